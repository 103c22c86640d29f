"""Where the judges from npm live, and how they come there: in a cache folder of the user, never in the checkout.

The folder's name carries a hash of everything under ``packages/``, so a changed list of versions is installed anew and
an unchanged one costs nothing; our own scripts under ``drivers/`` are copied into it, where they find the packages.
Invariant: a folder with this name is complete; an installation is made beside it and renamed. By hand:
``python tests/judges/xo/install.py``.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["JudgesAbsent", "install_drivers", "install_judges", "judges_folder"]

_PACKAGES = Path(__file__).with_name("packages")
_DRIVERS = Path(__file__).with_name("drivers")
_INSTALL_S_MAX = 240
_ATTEMPTS_MAX = 3
_NPM = ("npm", "ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund", "--loglevel=error")
"""Versions and hashes come from the lock file. Nothing that a package brings is run while installing it."""


class JudgesAbsent(Exception):
    """The judges from npm are not installed; the text says what is missing."""


def judges_folder(*, packages: Path = _PACKAGES) -> Path:
    """Return where the judges of a list of packages belong, whether they are there or not."""
    chosen = os.environ.get("HOLDFAST_JUDGES_DIR")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(chosen) if chosen else Path(cache) / "holdfast-judges"
    return root / f"npm-{_fingerprint(packages)}"


def install_judges(*, packages: Path = _PACKAGES) -> Path:
    """Return the folder with the judges of a list of packages, installed now if they were not.

    ``JudgesAbsent`` when that is impossible.

    A process tries once; afterwards the answer is known.
    """
    folder = judges_folder(packages=packages)
    if folder.is_dir():
        return folder
    found = _try_install(packages, folder)
    if isinstance(found, JudgesAbsent):
        raise found
    return found


@functools.cache
def _try_install(packages: Path, folder: Path) -> Path | JudgesAbsent:
    try:
        _install(packages, folder)
    except JudgesAbsent as absent:
        return absent
    return folder


def install_drivers() -> Path:
    """Return a folder with our scripts from which they find the judges. ``JudgesAbsent`` as above."""
    folder = install_judges() / f"drivers-{_fingerprint(_DRIVERS)}"
    if not folder.is_dir():
        _place(_DRIVERS, folder)
    return folder


def _install(packages: Path, folder: Path) -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise JudgesAbsent(f"{program} is not installed (Debian: nodejs npm)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _place(packages, folder, finish=_run_npm)


def _place(source: Path, folder: Path, *, finish: Callable[[Path], None] = lambda made: None) -> None:
    """Make ``folder`` a copy of ``source``, finished and all at once."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as scratch:
        made = Path(scratch) / "made"
        shutil.copytree(source, made)
        finish(made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # somebody else was faster, which is as good
                raise


def _run_npm(folder: Path) -> None:
    told = ""
    for _ in range(_ATTEMPTS_MAX):
        try:
            done = subprocess.run(_NPM, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_S_MAX, check=False)
        except subprocess.TimeoutExpired:
            told = f"npm did not finish within {_INSTALL_S_MAX} s"
            continue
        if done.returncode == 0:
            return
        told = done.stderr.strip()[-800:]
    raise JudgesAbsent(f"npm could not install them: {told}")


def _fingerprint(root: Path) -> str:
    """Hash every file below with its path."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    try:
        print(install_judges())
    except JudgesAbsent as absent:
        sys.exit(f"the judges from npm are missing: {absent}")
