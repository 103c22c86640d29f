"""Makes the repository that stands frozen in ``version-1``: the same bytes each time.

Run it only for a new version of the format, into a new folder: ``python -m tests.golden.repository.make version-N``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from holdfast.core import BLOCK_BYTES
from holdfast.storage import MemoryStore
from tests.support.repositories import World, image_of

__all__ = ["FIRST", "FOLDER", "SECOND", "made_objects", "main"]

FOLDER = Path(__file__).parent / "version-1"

FIRST = image_of({0: 1, 1: 3, 2: 1, 5: 2}, count=7, tail_bytes=512)
SECOND = FIRST[: 5 * BLOCK_BYTES] + bytes(BLOCK_BYTES) + FIRST[6 * BLOCK_BYTES :]


def made_objects() -> Mapping[str, bytes]:
    """Return the objects: two points of one VM, the second an increment in which a block became zero."""
    store = MemoryStore()
    world = World(store, seed=1)
    point = world.back_up(FIRST, run="r-20261120-090820-000001")
    world.back_up_changes(SECOND, [5], run="r-20261121-090820-000002", reference=point.disks[0].stored)
    return store.snapshot()


def main(folder: Path) -> None:
    """Write the objects as files."""
    for key, content in made_objects().items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(content)


if __name__ == "__main__":
    main(Path(__file__).parent / sys.argv[1])
