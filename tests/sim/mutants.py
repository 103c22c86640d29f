"""Engines with one safeguard taken out, to see whether the simulation notices: ``python -m tests.sim.mutants``.

Each mutant is the engine with one text replaced, in a copy of the sources. A mutant that no world finds out means that
the simulation does not look there.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MUTANTS", "Mutant"]

_PROJECT = Path(__file__).parents[2]
_ENGINE = Path("src/holdfast/repository")
_SEEDS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One safeguard, and how it is taken out."""

    name: str
    file: str
    safe: str
    unsafe: str

    def apply(self, engine: Path) -> None:
        """Take the safeguard out of a copy of the engine; AssertionError when it is not there any more."""
        path = engine / self.file
        text = path.read_text(encoding="utf-8")
        assert text.count(self.safe) == 1, f"{self.name}: {self.file} does not say so once: {self.safe}"
        path.write_text(text.replace(self.safe, self.unsafe), encoding="utf-8")


MUTANTS = (
    Mutant(
        name="collection does not look at the points again",
        file="space/gc.py",
        safe="        is_dead = ~again.is_needed[at]\n",
        unsafe="        is_dead = np.ones_like(again.is_needed[at])\n",
    ),
    Mutant(
        name="collection does not wait for writers",
        file="space/gc.py",
        safe="        deletable = is_dead & is_free[at]\n",
        unsafe="        deletable = is_dead\n",
    ),
    Mutant(
        name="collectors trust their own clock alone",
        file="records/elapsed.py",
        safe="        if age is None or age > lasts + margin:\n",
        unsafe="        if age is None or age >= timedelta():\n",
    ),
    Mutant(
        name="writers do not look at condemned lists",
        file="writing/pack_presence.py",
        safe="pack in self._quarantined or (self._condemned is not None and pack in self._condemned)",
        unsafe="pack in self._quarantined",
    ),
    Mutant(
        name="writers do not look at records of holes",
        file="writing/session.py",
        safe="        self.dead_slots = keeper.holes.avoided().without(moved)\n",
        unsafe="        self.dead_slots = AvoidedSlots({})\n",
    ),
    Mutant(
        name="points are published after the lease has ended",
        file="writing/lease_keeper.py",
        safe="            self._check_age(self._renewed.age_s())\n\n    @contextlib",
        unsafe="\n    @contextlib",
    ),
    Mutant(
        name="frames are punched without waiting for writers",
        file="space/gc_frames.py",
        safe="            if named is None or bool((work.dead & ~named).any()):\n                return False\n",
        unsafe="            if named is None or bool((work.dead & ~named).any()):\n                return True\n",
    ),
    Mutant(
        name="frames are punched without a second look at the points",
        file="space/gc_frames.py",
        safe="        look.look_again(read_moves(vault))\n",
        unsafe="",
    ),
    Mutant(
        name="moved records come before the packs they lead to",
        file="space/repack.py",
        safe="            copier.stream.close()\n        except",
        unsafe="            copier.stream.abort()\n        except",
    ),
    Mutant(
        name="what is live is left behind when a pack is emptied",
        file="space/gc_frames.py",
        safe="            keep = ~work.dead | look.live[work.place]\n",
        unsafe="            keep = look.live[work.place] & (look.live[work.place].cumsum() > 1)\n",
    ),
    Mutant(
        name="blocks leave their frame and no record says where to",
        file="space/repack.py",
        safe="        publish_moves(vault, moved.rows, emptied",
        unsafe="        publish_moves(vault, moved.rows if moved.emptied else moved.rows[:0], emptied",
    ),
    Mutant(
        name="a resumed run does not look what was collected since",
        file="writing/run_writer.py",
        safe="        unusable = self._session.presence.unusable(needed)\n        if unusable:\n            raise",
        unsafe="        unusable = self._session.presence.unusable(needed)\n        if not needed:\n            raise",
    ),
    Mutant(
        name="blocks in quarantine count as known",
        file="writing/session.py",
        safe="        self.avoided = self.quarantine.slots | self.dead_slots\n",
        unsafe="        self.avoided = self.dead_slots\n",
    ),
    Mutant(
        name="points are held longer than their packs",
        file="writing/locking.py",
        safe="        for pack, until in zip(short, self._extend(short, horizon), strict=True):\n",
        unsafe="        for pack, until in ((each, horizon) for each in short):\n",
    ),
    Mutant(
        name="an epoch replaces the key files before it has begun",
        file="keys/rotation.py",
        safe="        _check_before(vault, holders, unlock=unlock, made=made)\n",
        unsafe="        drop_files(vault, [each.file for each in holders])\n",
    ),
)


def seeds_needed(mutant: Mutant, *, first: int, seeds_max: int) -> tuple[int, str] | None:
    """Return how many worlds it took to find a mutant out, and what was said; None when all were fine."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(_PROJECT / "src", Path(scratch) / "src")
        shutil.copytree(_PROJECT / "tests", Path(scratch) / "tests", ignore=shutil.ignore_patterns("golden", "judges"))
        mutant.apply(Path(scratch) / _ENGINE)
        command = [sys.executable, "-m", "tests.sim", f"--first={first}", f"--seeds={seeds_max}", "--stop"]
        environment = {**os.environ, "PYTHONPATH": "src", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True)
    found = re.findall(r"^seed (\d+) failed$", done.stdout, re.MULTILINE)
    if not found:
        assert done.returncode == 0, done.stderr
        return None
    said = [line for line in done.stdout.splitlines() if re.match(r"[\w.]*[A-Z]\w+: ", line)]
    return int(found[0]) - first + 1, said[-1] if said else ""


def main(arguments: list[str]) -> int:
    """Return 1 when a mutant lives."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=_SEEDS_MAX, help="how many worlds each mutant may live through")
    parser.add_argument("names", nargs="*", help="parts of names of mutants; all without")
    options = parser.parse_args(arguments)
    alive = 0
    for mutant in MUTANTS:
        if options.names and not any(name in mutant.name for name in options.names):
            continue
        found = seeds_needed(mutant, first=options.first, seeds_max=options.seeds)
        alive += found is None
        told = "LIVES" if found is None else f"{found[0]} worlds: {found[1][:120]}"
        print(f"{mutant.name}: {told}", flush=True)
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
