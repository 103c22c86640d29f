"""Where Azurite lives, and how it comes there: as the judges of ``tests/judges/xo`` do. By hand:
``python -m tests.judges.azurite.install``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.judges.xo.install import JudgesAbsent, install_judges

__all__ = ["JudgesAbsent", "install_azurite"]

_PACKAGES = Path(__file__).with_name("packages")


def install_azurite() -> Path:
    """Return the script that serves blobs, installed now if it was not. ``JudgesAbsent`` when that is impossible."""
    return install_judges(packages=_PACKAGES) / "node_modules/azurite/dist/src/blob/main.js"


if __name__ == "__main__":
    try:
        print(install_azurite())
    except JudgesAbsent as absent:
        sys.exit(f"Azurite is missing: {absent}")
