"""The comparison measures in turn, proves what was restored, and reports medians."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from bench.contenders import Borg, Contender, Holdfast, Restic, Step, Workplace, XenOrchestra
from bench.engine import RestoredWrongly, Sample, compare, table
from bench.images import Images, Mutation
from bench.measure import CommandFailed, Cost, run_measured, same_bytes, used_bytes

from holdfast.core import MIB


class Copying:
    """An engine that copies the disk: the simplest that restores rightly, or wrongly when told so."""

    def __init__(self, name: str, *, wrong: bool = False) -> None:
        self.name = name
        self._wrong = wrong

    def command(self, step: Step, place: Workplace, images: Images) -> list[str] | None:
        kept = str(place.repository / "disk")
        match step:
            case Step.CREATE:
                return ["mkdir", str(place.repository)]
            case Step.FIRST | Step.UPGRADE | Step.DATABASE:
                return ["cp", str(place.disk), kept]
            case Step.RESTORE:
                return ["cp", str(images.base) if self._wrong else kept, str(place.target)]
            case Step.VERIFY:
                return ["cmp", kept, str(images.database.disk)]
            case Step.CLONE | Step.REINSTALL:
                return [
                    "sh",
                    "-c",
                    f'cp {place.other_disk} {kept}-{step.value}; echo \'{{"data_bytes": 90000, "new_bytes": 9000}}\'',
                ]
            case Step.DELETE:
                return None

    def environment(self, place: Workplace) -> Mapping[str, str]:
        return os.environ

    def restored(self, place: Workplace) -> Path:
        return place.target


@pytest.fixture
def images(tmp_path: Path) -> Images:
    folder = tmp_path / "images"
    folder.mkdir()
    names = ("base", "upgrade", "db", "clone", "reinstalled")
    paths = {name: folder / f"{name}.raw" for name in names}
    for name, path in paths.items():
        path.write_bytes(name.encode().ljust(12, b".") * 10_000)
    changes = folder / "changes.json"
    changes.write_text("[]")
    return Images(
        base=paths["base"],
        upgrade=Mutation(disk=paths["upgrade"], changes=changes, written_bytes=1, changed_bytes=1),
        database=Mutation(disk=paths["db"], changes=changes, written_bytes=1, changed_bytes=1),
        clone=Mutation(disk=paths["clone"], changes=changes, written_bytes=0, changed_bytes=1),
        reinstalled=paths["reinstalled"],
        disk_bytes=120_000,
        nonzero_bytes=120_000,
    )


@pytest.mark.slow(reason="starts twenty processes")
def test_rounds_are_interleaved_and_every_sample_is_kept(images: Images, tmp_path: Path) -> None:
    log = tmp_path / "samples.jsonl"
    contenders = [Copying("one"), Copying("two")]
    samples = compare(contenders, images, rounds=2, folder=tmp_path, log=log, say=lambda line: None)
    steps = [step for step in Step if step is not Step.DELETE]
    assert [(sample.round, sample.contender) for sample in samples[:: len(steps)]] == [
        (1, "one"),
        (1, "two"),
        (2, "one"),
        (2, "two"),
    ]
    assert [sample.step for sample in samples[: len(steps)]] == steps
    assert {sample.step for sample in samples if sample.data_bytes is not None} == {Step.CLONE, Step.REINSTALL}
    kept = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(sample["round"], sample["contender"], sample["step"]) for sample in kept] == [
        (sample.round, sample.contender, sample.step.value) for sample in samples
    ]
    assert all(sample["cost"]["wall_s"] > 0 and sample["cost"]["rss_peak_bytes"] > 0 for sample in kept)
    first = next(sample for sample in samples if sample.step is Step.FIRST)
    assert first.grown_bytes >= 100_000
    assert not (tmp_path / "work").exists()


def test_a_wrong_restore_ends_the_comparison(images: Images, tmp_path: Path) -> None:
    with pytest.raises(RestoredWrongly):
        compare(
            [Copying("liar", wrong=True)],
            images,
            rounds=1,
            folder=tmp_path,
            log=tmp_path / "log",
            say=lambda line: None,
        )
    assert not (tmp_path / "work").exists()


def test_a_failing_step_tells_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"status 3:\noh no"):
        run_measured(["sh", "-c", "echo oh no; exit 3"], environment=os.environ, log=tmp_path / "log")


def test_the_cost_of_a_process_is_its_own(tmp_path: Path) -> None:
    idle = run_measured(["true"], environment=os.environ, log=tmp_path / "log")
    busy = run_measured(
        ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"], environment=os.environ, log=tmp_path / "log"
    )
    assert busy.cpu_s > idle.cpu_s
    assert busy.wall_s >= busy.cpu_s * 0.5


def test_used_space_counts_blocks_not_lengths(tmp_path: Path) -> None:
    assert used_bytes(tmp_path / "none") == 0
    before = used_bytes(tmp_path)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(MIB)
    assert used_bytes(tmp_path) - before < MIB
    (tmp_path / "full").write_bytes(os.urandom(MIB))
    assert used_bytes(tmp_path) - before >= MIB


def test_the_table_shows_medians_and_ratios(images: Images) -> None:
    def sample(contender: str, number: int, step: Step, wall_s: float) -> Sample:
        cost = Cost(wall_s=wall_s, cpu_s=2 * wall_s, rss_peak_bytes=100 * MIB)
        return Sample(contender=contender, round=number, step=step, cost=cost, grown_bytes=5_000_000, load=0.5)

    samples = [sample("ours", n, step, wall_s) for step in Step for n, wall_s in [(1, 9.0), (2, 1.0), (3, 2.0)]]
    samples += [sample("peer", n, step, wall_s) for step in Step for n, wall_s in [(1, 8.0), (2, 8.0), (3, 1.0)]]
    text = table(samples, images)
    assert "| ours | " + " | ".join(["2.00 (4.0)"] * 8) + " |" in text
    assert "| peer | " + " | ".join(["5.0"] * 6) + " | 100 |" in text
    assert "ours is faster than peer by: first 4.0x, upgrade 4.0x, database 4.0x, restore 4.0x" in text


def test_a_contender_that_fails_is_told_and_the_others_go_on(images: Images, tmp_path: Path) -> None:
    class Failing(Copying):
        def command(self, step: Step, place: Workplace, images: Images) -> list[str] | None:
            return ["false"] if step is Step.VERIFY else super().command(step, place, images)

    said: list[str] = []
    contenders = [Failing("weak"), Copying("strong")]
    samples = compare(contenders, images, rounds=1, folder=tmp_path, log=tmp_path / "log", say=said.append)
    assert [each.step for each in samples if each.contender == "weak"][-1] is Step.RESTORE
    assert [each.step for each in samples if each.contender == "strong"][-1] is Step.REINSTALL
    assert any("weak failed" in line for line in said)
    text = table(samples, images)
    assert "| weak | " in text


def test_same_bytes_compares_every_byte(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"x" * 5_000_000)
    two.write_bytes(b"x" * 4_999_999 + b"y")
    assert same_bytes(one, one)
    assert not same_bytes(one, two)
    two.write_bytes(b"x")
    assert not same_bytes(one, two)


def test_a_peer_that_is_not_installed_is_left_out() -> None:
    assert Restic.find("/nowhere/restic") is None


def test_every_step_of_every_contender_names_its_repository(images: Images, tmp_path: Path) -> None:
    place = Workplace(tmp_path / "work")
    peers: list[Contender | None] = []
    for kind, version in ((Restic, "restic 9.9.9 compiled"), (Borg, "borg 9.9.9")):
        program = tmp_path / kind.__name__
        program.write_text(f"#!/bin/sh\necho {version}\n")
        program.chmod(0o700)
        peers.append(kind.find(str(program)))
    package = tmp_path / "node_modules" / "vhd-lib" / "package.json"
    package.parent.mkdir(parents=True)
    package.write_text('{\n  "version": "9.9.9"\n}')
    peers.append(XenOrchestra("node", tmp_path))
    assert [each.name for each in peers if each] == ["restic 9.9.9", "borg 9.9.9", "Xen Orchestra (vhd-lib 9.9.9)"]
    for contender in (Holdfast(), *peers):
        assert contender is not None
        for step in Step:
            told = " ".join([*(contender.command(step, place, images) or []), *contender.environment(place).values()])
            assert str(place.repository) in told or contender.command(step, place, images) is None
        assert place.folder in contender.restored(place).parents
