"""Spoil many objects: ``python -m tests.corruption [--count 10000] [--way flip] [--seed 1]``.

Every fifth repository is also written to, collected and verified afterwards.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import traceback
from collections import Counter

import structlog

from tests.corruption.judge import judge
from tests.corruption.spoil import WAYS, spoil

_WORKED_ON_EVERY = 5


def main(arguments: list[str]) -> int:
    """Return 1 when something wrong was restored, or damage was not named."""
    parser = argparse.ArgumentParser(prog="python -m tests.corruption", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--way", choices=sorted(WAYS), default="flip")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    # Damage is all over the place here, and the engine says so each time.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    chance = random.Random(options.seed)
    verdicts: Counter[tuple[str, str]] = Counter()
    failed = 0
    for number in range(options.count):
        spoiled = spoil(chance, options.way)
        try:
            verdict = judge(spoiled.objects, spoiled.key, is_worked_on=number % _WORKED_ON_EVERY == 0)
        except Exception:
            failed += 1
            print(f"number {number}: {spoiled.how}")
            traceback.print_exc(file=sys.stdout)
            continue
        verdicts[spoiled.key.partition("/")[0], verdict.value] += 1
    for (kind, told), count in sorted(verdicts.items()):
        print(f"{kind:16} {told:12} {count}")
    print(f"{options.count} objects spoiled by a {options.way}, {failed} times wrongly taken")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
