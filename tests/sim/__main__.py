"""Play many seeds: ``python -m tests.sim --seeds 1000 [--first 0] [--minutes 20] [--log]``.

A failing seed is printed with its history; add its number to ``tests/sim/seeds.txt``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback

import structlog

from tests.sim.world import World

ROUNDS = 10


def main(arguments: list[str]) -> int:
    """Return 1 when a seed fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--minutes", type=float, help="begin no seed after so many minutes")
    parser.add_argument("--stop", action="store_true", help="stop at the first seed that fails")
    parser.add_argument("--log", action="store_true", help="print the history of every seed")
    options = parser.parse_args(arguments)
    # Actors meet faults all the time, and the engine says so each time.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    failed = published = crashes = played = 0
    ends_s = time.monotonic() + 60 * options.minutes if options.minutes else None
    for seed in range(options.first, options.first + options.seeds):
        if ends_s is not None and time.monotonic() > ends_s:
            break
        played += 1
        world = World(seed)
        try:
            world.play(options.rounds)
        except Exception:
            failed += 1
            print(f"seed {seed} failed", *world.log, sep="\n", flush=True)
            traceback.print_exc(file=sys.stdout)
            if options.stop:
                break
        else:
            if options.log:
                print(f"seed {seed}", *world.log, sep="\n")
        published += world.published
        crashes += world.crashes
    print(f"{played} seeds, {published} points published, {crashes} crashes, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
