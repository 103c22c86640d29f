"""``python -m bench <name>``: build the inputs, run a comparison."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.judges.xo.install import judges_folder

from bench.access import measure_access
from bench.contenders import Borg, Contender, Holdfast, Restic, XenOrchestra
from bench.engine import RestoredWrongly, compare, table
from bench.images import Images, Recipe, ToolMissing, default_folder, prepare_images
from bench.lab import measure_lab
from bench.machine import describe_machine
from bench.measure import CommandFailed
from bench.memory import measure_memory
from bench.pool import measure_pool
from bench.s3 import measure_s3
from bench.scale import measure_scale
from bench.scale_world import ScaleRecipe
from holdfast.core import MIB

SMALL = Recipe(
    disk_bytes=512 * MIB,
    files_bytes=150_000_000,
    database_bytes=128 * MIB,
    random_bytes=32 * MIB,
    upgraded_bytes=4_000_000,
)
"""For trying the harness; its figures say nothing about engines."""


def main(arguments: list[str]) -> int:
    """Run what was asked for; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.verb in ("lab", "pool"):
        print(describe_machine())
        measure = measure_lab if options.verb == "lab" else measure_pool
        print(measure(rounds=options.rounds, folder=options.dir / options.verb))
        return 0
    if options.verb == "s3":
        print(describe_machine())
        print(measure_s3(disk_bytes=options.mib * MIB, rounds=options.rounds, say=_say))
        return 0
    if options.verb == "scale":
        print(describe_machine())
        recipe = ScaleRecipe(vms=options.vms, points_per_vm=options.points)
        print(measure_scale(options.dir / "scale", recipe, say=_say))
        return 0
    folder: Path = options.dir / ("small" if options.small else "full")
    try:
        if options.verb != "images":
            # In a process of its own: the peak memory of a child begins with that of its parent.
            subprocess.run([sys.executable, "-m", "bench", "images", *_image_options(options)], check=True)
        images = prepare_images(folder, recipe=SMALL if options.small else None)
        print(images.explain())
        print(describe_machine())
        if options.verb == "engine":
            _engine(images, folder, options)
        if options.verb == "access":
            print(measure_access(images, folder=folder, say=_say))
        if options.verb == "memory":
            print(measure_memory(images, folder=folder, say=_say))
    except (ToolMissing, CommandFailed, RestoredWrongly) as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the engine beside its peers.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    images = verbs.add_parser("images", help="build the disk images and say what is in them")
    engine = verbs.add_parser("engine", help="our engine beside restic, borg and Xen Orchestra")
    memory = verbs.add_parser("memory", help="peak memory of a backup: a 4 GiB disk beside a 64 GiB sparse one")
    access = verbs.add_parser("access", help="random reads of a stored disk, as file restore and NBD make them")
    pool = verbs.add_parser("pool", help="the whole command against a lab pool: backup, increments, restore")
    lab = verbs.add_parser("lab", help="the lab pool itself: exports, NBD, calls, and the start of a fleet")
    scale = verbs.add_parser("scale", help="a repository of 100,000 points and ten million blocks")
    scale.add_argument("--dir", type=Path, default=default_folder(), help="where to work (%(default)s)")
    scale.add_argument("--vms", type=int, default=1000, help="how many VMs (%(default)s)")
    scale.add_argument("--points", type=int, default=100, help="how many points of each VM (%(default)s)")
    s3 = verbs.add_parser("s3", help="the engine on a Ceph radosgw beside bare puts and gets, and its requests")
    s3.add_argument("--mib", type=int, default=1024, help="size of the disk (%(default)s)")
    s3.add_argument("--rounds", type=int, default=3, help="how often (%(default)s)")
    for verb in (lab, pool):
        verb.add_argument("--dir", type=Path, default=default_folder(), help="where to work (%(default)s)")
        verb.add_argument("--rounds", type=int, default=3, help="how often (%(default)s)")
    for verb in (images, engine, memory, access):
        verb.add_argument("--dir", type=Path, default=default_folder(), help="where images are kept (%(default)s)")
        verb.add_argument("--small", action="store_true", help="an eighth of everything: to try the harness itself")
    engine.add_argument("--rounds", type=int, default=3, help="how often each engine runs (%(default)s)")
    engine.add_argument("--restic", default="restic", help="the restic program (%(default)s)")
    engine.add_argument("--borg", default="borg", help="the borg 1.4 program (%(default)s)")
    engine.add_argument("--xo", type=Path, help="a folder with Xen Orchestra's packages from npm (that of the judges)")
    engine.add_argument("--only-ours", action="store_true", help="leave the peers out")
    engine.add_argument("--out", type=Path, help="samples as JSON lines (<dir>/engine.jsonl)")
    return parser


def _image_options(options: argparse.Namespace) -> list[str]:
    return [f"--dir={options.dir}", *(["--small"] if options.small else [])]


def _engine(images: Images, folder: Path, options: argparse.Namespace) -> None:
    contenders: list[Contender] = [Holdfast(compression="standard"), Holdfast(compression="small")]
    if not options.only_ours:
        contenders += _peers(options)
    log = options.out or folder / "engine.jsonl"
    samples = compare(contenders, images, rounds=options.rounds, folder=folder, log=log, say=_say)
    print()
    print(table(samples, images))
    print(f"\nEvery sample: {log}")


def _peers(options: argparse.Namespace) -> list[Contender]:
    """Return the peers that are installed, and say how to install the others."""
    found: list[tuple[Contender | None, str]] = [
        (Restic.find(options.restic), "restic: apt install restic"),
        (
            Borg.find(options.borg),
            "borg: pip install 'borgbackup==1.4.*', which needs Debian's libacl1-dev libssl-dev "
            "liblz4-dev libzstd-dev libxxhash-dev pkg-config",
        ),
        (XenOrchestra.find(options.xo or judges_folder()), "Xen Orchestra: python tests/judges/xo/install.py"),
    ]
    for peer, remedy in found:
        if peer is None:
            print(f"not installed, so not compared: {remedy}", file=sys.stderr)
    return [peer for peer, _ in found if peer is not None]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
