"""A report says what its machine does to its figures."""

from __future__ import annotations

from pathlib import Path

from bench.machine import describe_machine, gives_memory_back, load


def test_a_machine_that_gives_memory_back_is_named(tmp_path: Path) -> None:
    assert not gives_memory_back(root=tmp_path)
    assert "gives freed memory back" not in describe_machine(root=tmp_path)
    device = tmp_path / "sys/bus/virtio/drivers/virtio_balloon/virtio0"
    device.mkdir(parents=True)
    (device / "features").write_text("0110000")
    assert not gives_memory_back(root=tmp_path)
    (device / "features").write_text("0110010")
    assert gives_memory_back(root=tmp_path)
    assert "gives freed memory back" in describe_machine(root=tmp_path)


def test_the_processor_and_the_load_are_told(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast One\n")
    text = describe_machine(root=tmp_path)
    assert "Fast One" in text
    assert "load " in text
    assert load() >= 0
