"""Kill real processes: ``python -m tests.kill [--kills 100] [--seed 1] [--store folder|moto|radosgw]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from holdfast.storage import StorePlace
from tests.kill.harness import kill_workers
from tests.support.s3_servers import s3_place, shared_moto, shared_radosgw


def main(arguments: list[str]) -> int:
    """Run the harness; an AssertionError ends it with its text."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=["folder", "moto", "radosgw"], default="folder")
    options = parser.parse_args(arguments)
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        if options.store == "folder":
            place = StorePlace(location=str(Path(scratch) / "repository"))
        else:
            place = s3_place(shared_moto() if options.store == "moto" else shared_radosgw())
        report = kill_workers(place, kills=options.kills, seed=options.seed)
    print(
        f"{report.kills} kills, {report.points_seen} points restored and compared, nothing lost, "
        f"{time.monotonic() - started_s:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
