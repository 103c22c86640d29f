"""The lab's own process: ``python -m holdfast.lab``. Started by ``spawn_lab``; by hand only to look at it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from holdfast.core import HoldfastError, Secret, configure_log
from holdfast.lab.options import LabDelays, LabOptions
from holdfast.lab.process import forget_lab_file, write_lab_file
from holdfast.lab.running import start_lab


def main() -> int:
    """Serve until told to stop by signal or side channel; return the exit status."""
    configure_log()
    options = _read_options()
    try:
        lab = start_lab(options)
    except HoldfastError as cause:
        # The last line of the log is what ``spawn_lab`` gives as the reason: one line, whole sentences.
        sys.stderr.write(" ".join(f"{cause}. {cause.next_step()}".split()) + "\n")
        return int(cause.exit_status)
    with lab:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: lab.stopped.set())
        write_lab_file(lab, options)
        lab.stopped.wait()
    forget_lab_file(options.state_dir, pid=os.getpid())
    return 0


def _read_options() -> LabOptions:
    parser = argparse.ArgumentParser(prog="python -m holdfast.lab", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--scenario", default="demo")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--plain-port", type=int, default=0)
    parser.add_argument("--tls-port", type=int, default=0)
    parser.add_argument("--nbd-port", type=int, default=0)
    parser.add_argument("--nbd", choices=("tls", "plain", "none"), default="tls")
    parser.add_argument("--user")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--cbt", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--witness", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--plug-s", type=float, default=LabDelays().plug_s)
    parser.add_argument("--unplug-s", type=float, default=LabDelays().unplug_s)
    parser.add_argument("--snapshot-s", type=float, default=LabDelays().snapshot_s)
    given = parser.parse_args()
    password = "" if sys.stdin.isatty() else sys.stdin.read()
    return LabOptions(
        state_dir=given.state_dir,
        scenario=given.scenario,
        host=given.host,
        hosts=given.hosts,
        plain_port=given.plain_port,
        tls_port=given.tls_port,
        nbd_port=given.nbd_port,
        nbd=given.nbd,
        cbt=given.cbt,
        witness=given.witness,
        user=given.user,
        password=Secret(password) if password else None,
        seed=given.seed,
        delays=LabDelays(plug_s=given.plug_s, unplug_s=given.unplug_s, snapshot_s=given.snapshot_s),
    )


if __name__ == "__main__":
    sys.exit(main())
