"""Makes the repository with three key epochs that stands frozen in ``version-1-epochs``.

Run it only for a new version of the format, into a new folder, as ``make.py``.
Files of key holders are age files, which are random; so it makes other bytes each time, and must open for ever.
"""

from __future__ import annotations

import sys
from pathlib import Path

from holdfast.repository import IdentityHolder
from tests.support.keyed_world import LEAVER, MACHINE, UNLOCK, KeyedWorld
from tests.support.repositories import image_of

__all__ = ["FOLDER", "IMAGES", "LEAVER_FILE", "MACHINE_FILE", "main"]

FOLDER = Path(__file__).parent / "version-1-epochs"

IMAGES = [image_of({0: 1}, count=2), image_of({0: 1, 1: 2}, count=2), image_of({0: 3, 1: 2}, count=2)]
"""The disk in epoch 0, 1 and 2. What is the same is stored once, in the epoch that saw it first."""
MACHINE_FILE = "keys-of-this-test/machine.txt"
LEAVER_FILE = "keys-of-this-test/leaver.txt"


def main(folder: Path) -> None:
    """Write the objects as files, and beside them the keys of two holders; one of them left before epoch 1."""
    world = KeyedWorld((IdentityHolder("machine", MACHINE.public), IdentityHolder("leaver", LEAVER.public)))
    old_file = world.store.get("keys/leaver.age")
    for epoch, image in enumerate(IMAGES):
        if epoch:
            world.rotate(leave_out=["leaver"] if epoch == 1 else [])
            world.repository = world.open(UNLOCK)
        world.back_up(image, run=f"r-{epoch}")
    world.store.put("keys/leaver.age", old_file)
    objects = {**world.memory.snapshot(), MACHINE_FILE: MACHINE.secret.reveal().encode()}
    for key, content in {**objects, LEAVER_FILE: LEAVER.secret.reveal().encode()}.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(content)


if __name__ == "__main__":
    main(Path(__file__).parent / sys.argv[1])
