"""Fuzz with atheris: ``python -m tests.fuzz [TARGET …] [--seconds 60 | --minutes 10]``; without a name all in turn.

What breaks a decoder is written to ``tests/fuzz/corpus/<target>``, or below the folder of ``--work``; mend the decoder
and keep the file.
"""

from __future__ import annotations

import argparse
import logging
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

_DATA_BYTES_MAX = 2 << 30
"""What a decoder may make of its input. libFuzzer's own limit counts what the parent of this process once used."""
_INPUT_S_MAX = 10
_SECONDS = 60
_INPUT_BYTES_MAX = 200_000


def main(arguments: list[str]) -> int:
    """Return 1 when a target broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=0, help="for each target")
    parser.add_argument("--minutes", type=float, default=0, help="for all targets together")
    parser.add_argument("--runs", type=int, default=-1, help="end after so many inputs for each target")
    parser.add_argument("--seed", type=int, default=0, help="the same inputs again; 0, the default, is by chance")
    parser.add_argument("--work", type=Path, help="where new inputs are kept between runs")
    options = parser.parse_args(arguments)
    if len(options.targets) == 1:
        seconds = options.seconds or round(options.minutes * 60) or _SECONDS
        limits = {"max_total_time": seconds, "runs": options.runs, "seed": options.seed}
        return _fuzz(options.targets[0], limits, work=options.work)
    from tests.fuzz.targets import TARGETS

    names = options.targets or sorted(TARGETS)
    seconds = options.seconds or (max(1, round(options.minutes * 60 / len(names))) if options.minutes else _SECONDS)
    broken = []
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz", name, f"--seconds={seconds}"]
        command += [f"--runs={options.runs}", f"--seed={options.seed}"]
        if options.work:
            command.append(f"--work={options.work}")
        done = subprocess.run(command, capture_output=True, text=True)
        print(f"{'ok' if done.returncode == 0 else 'BROKEN':6} {name}: {_summary(done.stderr)}", flush=True)
        if done.returncode != 0:
            broken.append(name)
            print(done.stdout[-1500:], done.stderr[-3000:], sep="\n")
    print(f"{len(names) - len(broken)} of {len(names)} targets held")
    return 1 if broken else 0


def _summary(told: str) -> str:
    """Return the line of libFuzzer that says how many inputs were tried."""
    return next((line for line in reversed(told.splitlines()) if line.startswith(("Done", "#"))), "nothing told")


def _fuzz(name: str, limits: dict[str, int], *, work: Path | None) -> int:
    import atheris
    import structlog

    resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES_MAX, _DATA_BYTES_MAX))
    with atheris.instrument_imports(include=["holdfast.formats", "holdfast.repository"]):
        from tests.fuzz.targets import CORPUS, GROUPS, TARGETS
    # Thousands of warnings a second would be most of the work.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    target = {**GROUPS, **TARGETS}[name]
    found = CORPUS / name
    artifacts = work / "broken" / name if work else found
    artifacts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        grown = (work or Path(scratch)) / name
        grown.mkdir(parents=True, exist_ok=True)
        for number, sample in enumerate(target.samples()):
            (grown / f"sample-{number}").write_bytes(sample)
        options = [
            *(f"-{limit}={value}" for limit, value in limits.items()),
            f"-timeout={_INPUT_S_MAX}",
            "-rss_limit_mb=0",
            f"-max_len={_INPUT_BYTES_MAX}",
            f"-artifact_prefix={artifacts}/",
        ]
        known = [str(found)] if found.is_dir() else []
        atheris.Setup(["fuzz", *options, str(grown), *known], lambda data: (target.feed(data), None)[1])
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
