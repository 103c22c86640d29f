"""The repository engine beside restic: first backup, database increment, restore, verification.

Rounds are interleaved, so that a busy minute of the machine hits everybody; figures are medians. A restore counts only
when the restored disk equals the image, compared outside the measured time.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.contenders import Contender, Step, Workplace
from bench.images import Images
from bench.machine import load
from bench.measure import Cost, run_measured, same_bytes, used_bytes, warm
from holdfast.core import MIB

__all__ = ["RestoredWrongly", "Sample", "compare", "table"]

Say = Callable[[str], None]


class RestoredWrongly(Exception):
    """An engine gave back something else than it was given; its times mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One step of one contender in one round."""

    contender: str
    round: int
    step: Step
    cost: Cost
    grown_bytes: int
    """How much its repository grew by this step."""
    load: float
    """How busy the machine was before it: figures of a machine that does something else mean little."""

    def to_json(self) -> str:
        """Return the sample as one line."""
        return json.dumps({**asdict(self), "step": self.step.value})


def compare(
    contenders: Sequence[Contender], images: Images, *, rounds: int, folder: Path, log: Path, say: Say
) -> list[Sample]:
    """Run every contender ``rounds`` times in turn; return the samples, which ``log`` gets as lines too.

    ``CommandFailed`` when a step fails, ``RestoredWrongly`` when a restored disk is not the disk.
    """
    samples: list[Sample] = []
    for number in range(1, rounds + 1):
        for contender in contenders:
            say(f"round {number} of {rounds}: {contender.name}")
            place = Workplace(folder / "work")
            try:
                for sample in _one_round(contender, images, number=number, place=place):
                    samples.append(sample)
                    say(f"  {sample.step.value:10} {sample.cost.wall_s:7.2f} s  {sample.grown_bytes / 1e6:+8.1f} MB")
                    with log.open("a") as file:
                        file.write(sample.to_json() + "\n")
            finally:
                shutil.rmtree(place.folder, ignore_errors=True)
    return samples


def _one_round(contender: Contender, images: Images, *, number: int, place: Workplace) -> list[Sample]:
    shutil.rmtree(place.folder, ignore_errors=True)
    place.state.mkdir(parents=True)
    samples = []
    for step in Step:
        if step in (Step.FIRST, Step.INCREMENT):
            place.show(images.base if step is Step.FIRST else images.database)
            warm(place.disk)
        before_bytes = used_bytes(place.repository)
        busy = load()
        command = contender.command(step, place, images)
        cost = run_measured(command, environment=contender.environment(place), log=place.folder / "log")
        grown_bytes = used_bytes(place.repository) - before_bytes
        samples.append(
            Sample(contender=contender.name, round=number, step=step, cost=cost, grown_bytes=grown_bytes, load=busy)
        )
        if step is Step.RESTORE:
            restored = contender.restored(place)
            if not same_bytes(restored, images.database):
                raise RestoredWrongly(f"{contender.name}: the restored disk is not the disk")
            restored.unlink()
    return samples


def table(samples: Sequence[Sample], images: Images) -> str:
    """Return the medians as a Markdown table, and how many times faster the first contender is than each other."""
    names = list(dict.fromkeys(sample.contender for sample in samples))
    lines = [
        "| engine | n | first s (CPU s) | MB/s | stored MB | increment s (CPU s) | +MB "
        "| restore s (CPU s) | verify s (CPU s) | peak RSS MiB |",
        "| --- " * 10 + "|",
    ]
    for name in names:
        own = [sample for sample in samples if sample.contender == name]
        first_s = _median(own, Step.FIRST, lambda sample: sample.cost.wall_s)
        cells = [
            name,
            str(len({sample.round for sample in own})),
            _time(own, Step.FIRST),
            f"{images.disk_bytes / 1e6 / first_s:.0f}",
            f"{_median(own, Step.FIRST, lambda sample: sample.grown_bytes) / 1e6:.0f}",
            _time(own, Step.INCREMENT),
            f"{_median(own, Step.INCREMENT, lambda sample: sample.grown_bytes) / 1e6:.1f}",
            _time(own, Step.RESTORE),
            _time(own, Step.VERIFY),
            f"{max(sample.cost.rss_peak_bytes for sample in own) / MIB:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_ratios(samples, names)]
    return "\n".join(lines)


def _ratios(samples: Sequence[Sample], names: Sequence[str]) -> list[str]:
    ours = [sample for sample in samples if sample.contender == names[0]]
    lines = []
    for name in names[1:]:
        other = [sample for sample in samples if sample.contender == name]
        factors = [
            f"{step.value} {_median(other, step, _wall_s) / _median(ours, step, _wall_s):.1f}x"
            for step in (Step.FIRST, Step.INCREMENT, Step.RESTORE, Step.VERIFY)
        ]
        lines.append(f"{names[0]} is faster than {name} by: {', '.join(factors)} (wall time).")
    return lines


def _time(samples: Sequence[Sample], step: Step) -> str:
    cpu_s = _median(samples, step, lambda sample: sample.cost.cpu_s)
    return f"{_median(samples, step, _wall_s):.2f} ({cpu_s:.1f})"


def _wall_s(sample: Sample) -> float:
    return sample.cost.wall_s


def _median(samples: Sequence[Sample], step: Step, value: Callable[[Sample], float]) -> float:
    return statistics.median(value(sample) for sample in samples if sample.step is step)
