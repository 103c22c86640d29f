"""Arming a fault: as often as told, only where it is meant, refused in words when it makes no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.lab import FAULT_AREAS, FAULT_KINDS, FaultManner, LabRefused, RunningLab
from holdfast.lab.faults import ArmedFault, Faults, FaultUnknown, FaultValueInvalid


def test_a_fault_fires_as_often_as_told_and_is_gone() -> None:
    faults = Faults()
    faults.arm("login-refused", count=2)
    assert [bool(faults.take("login-refused")) for _ in range(3)] == [True, True, False]
    assert faults.armed() == []


def test_a_fault_without_an_end_stays_until_cleared() -> None:
    faults = Faults()
    faults.arm("login-refused", count=-1)
    assert all(faults.take("login-refused") for _ in range(5))
    assert faults.clear(name="login-refused") == 1
    assert faults.take("login-refused") is None


def test_a_fault_waits_for_the_method_it_is_for() -> None:
    faults = Faults()
    faults.arm("call-stalls", method="VM.snapshot", seconds=0.0)
    assert faults.take("call-stalls", method="VM.get_all") is None
    assert faults.take("call-stalls", method="VM.snapshot") is not None


def test_a_fault_may_name_a_thing_by_any_of_its_names() -> None:
    faults = Faults()
    faults.arm("storage-full", sr="nas")
    assert faults.take("storage-full", sr=("OpaqueRef:1", "local")) is None
    assert faults.take("storage-full", sr=("OpaqueRef:2", "nas")) is not None


def test_two_faults_of_one_name_are_counted_apart() -> None:
    faults = Faults()
    early, late = faults.arm("export-cut", after_bytes=10), faults.arm("export-cut", after_bytes=20)
    assert faults.take_this(late)
    assert not faults.take_this(late)
    assert faults.armed() == [early]


def test_what_lasts_begins_when_armed_and_ends_when_cleared() -> None:
    faults, told = Faults(), []
    faults.enact("clock-skewed", lambda fault: told.append("begin"), end=lambda fault: told.append("end"))
    faults.arm("clock-skewed", seconds=5)
    assert (told, len(faults.armed())) == (["begin"], 1)
    faults.clear()
    assert (told, faults.armed()) == (["begin", "end"], [])


def test_an_accident_has_happened_on_return_and_one_that_cannot_is_not_armed() -> None:
    faults, told = Faults(), []
    faults.enact("host-crashes", lambda fault: told.append(fault.text("host")))
    faults.arm("host-crashes", host="a")
    assert (told, faults.armed()) == (["a"], [])

    def impossible(fault: ArmedFault) -> None:
        raise ValueError("there is no such storage")

    faults.enact("storage-detached", impossible, end=lambda fault: None)
    with pytest.raises(ValueError, match="no such storage"):
        faults.arm("storage-detached", sr="none")
    assert faults.armed() == []


@pytest.mark.parametrize(("name", "parameters"), [("no-such-fault", {}), ("login-refused", {"method": "x"})])
def test_an_unknown_fault_or_parameter_is_refused(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(FaultUnknown):
        Faults().arm(name, **parameters)


@pytest.mark.parametrize("name", ["count", "name", "self", "parameters"])
def test_a_parameter_may_be_called_anything_and_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(FaultUnknown, match=f"no parameter '{name}'"):
        Faults().arm_with("login-refused", {name: 1})


def test_a_parameter_given_as_text_becomes_what_its_default_is() -> None:
    armed = Faults().arm("nbd-stalls", after_bytes="4096", seconds="0.5")
    assert armed.parameters == {"after_bytes": 4096, "seconds": 0.5}
    assert (armed.number("after_bytes"), armed.seconds()) == (4096, 0.5)
    assert Faults().arm("nbd-stalls", after_bytes=8192.0, seconds=2).parameters == {"after_bytes": 8192, "seconds": 2.0}
    assert Faults().arm("snapshot-fails", code=44).text("code") == "44"


@pytest.mark.parametrize("value", ["soon", "", "1.5", 1.5, "-1", -1, True, float("inf"), float("nan")])
def test_a_whole_number_that_is_none_is_refused_by_name_and_expected_kind(value: Any) -> None:
    faults = Faults()
    with pytest.raises(FaultValueInvalid, match=r"^after_bytes of fault 'nbd-stalls' is a whole number of 0 or more"):
        faults.arm("nbd-stalls", after_bytes=value)
    assert faults.armed() == []


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "-0.5", -1, False, 1e18, "31622401"])
@pytest.mark.parametrize("name", ["call-stalls", "clock-skewed", "toolstack-restarts"])
def test_a_duration_that_is_none_or_leaves_the_calendar_is_refused(name: str, value: Any) -> None:
    with pytest.raises(FaultValueInvalid, match=rf"^seconds of fault '{name}' is a number from 0 to 31622400, not"):
        Faults().arm(name, seconds=value)


def test_no_pace_at_all_is_refused() -> None:
    with pytest.raises(FaultValueInvalid, match="bytes_per_s of fault 'nbd-slow' is a whole number of 1 or more"):
        Faults().arm("nbd-slow", bytes_per_s=0)


def test_a_place_that_is_not_there_is_refused_before_the_fault_is_armed() -> None:
    faults = Faults()
    faults.learn("method", {"VM.start"}.__contains__, expected="a call")
    with pytest.raises(FaultValueInvalid, match=r"^method of fault 'call-fails' is a call, not 'VM.strat'"):
        faults.arm("call-fails", method="VM.strat")
    assert faults.armed() == []
    faults.arm("call-fails", method="VM.start")
    faults.arm("call-fails")
    assert len(faults.armed()) == 2


def test_clearing_a_fault_that_there_is_none_of_is_refused() -> None:
    with pytest.raises(FaultUnknown, match="nbd-slow"):
        Faults().clear(name="nbd-slwo")


@pytest.mark.parametrize(("name", "parameter"), [("clock-skewed", "direction"), ("storage-fails", "operation")])
def test_a_word_that_is_not_among_the_choices_is_refused_with_the_choices(name: str, parameter: str) -> None:
    with pytest.raises(FaultValueInvalid, match=f"^{parameter} of fault .* is one of "):
        Faults().arm_with(name, {parameter: "sideways"})


@pytest.mark.parametrize(
    ("name", "count"), [("login-refused", 0), ("login-refused", -2), ("clock-skewed", 2), ("host-crashes", -1)]
)
def test_a_count_that_makes_no_sense_is_refused(name: str, count: int) -> None:
    with pytest.raises(FaultValueInvalid, match="count"):
        Faults().arm(name, count=count)


def test_the_side_channel_refuses_a_value_in_words_and_arms_nothing(lab: RunningLab) -> None:
    for name, parameters in (
        ("nbd-disconnects", {"after_bytes": "soon"}),
        ("nbd-disconnects", {"after_bytes": [5]}),
        ("login-refused", {"name": "x"}),
        ("login-refused", {"count": 3}),
    ):
        with pytest.raises(LabRefused) as caught:
            lab.control.arm_fault_with(name, parameters)  # type: ignore[arg-type]
        assert next(iter(parameters)) in str(caught.value)
    with pytest.raises(LabRefused, match="count"):
        lab.control.arm_fault("login-refused", count=True)
    assert lab.control.faults() == []


def test_the_side_channel_names_what_it_does_not_know(lab: RunningLab) -> None:
    with pytest.raises(LabRefused) as caught:
        lab.control.arm_fault("logins-refuse")
    assert "Did you mean login-refused?" in str(caught.value)


def test_the_side_channel_tells_what_is_armed_and_what_there_is(lab: RunningLab) -> None:
    armed = lab.control.arm_fault_with("export-cut", {"after_bytes": "7"}, count=-1)
    assert lab.control.faults() == [armed]
    assert (armed["remaining"], armed["parameters"]) == (-1, {"path": "", "after_bytes": 7})
    kinds = lab.control.fault_kinds()
    assert [kind["name"] for kind in kinds] == list(FAULT_KINDS)
    assert {kind["manner"] for kind in kinds} == {manner.value for manner in FaultManner}
    assert lab.control.clear_faults() == 1


def test_every_fault_says_what_it_does_and_has_one_area() -> None:
    for kind in FAULT_KINDS.values():
        assert kind.summary.endswith(".")
        assert kind.name == kind.name.lower()
        assert set(kind.choices) <= set(kind.parameters)
    assert sum(map(len, FAULT_AREAS.values())) == len(FAULT_KINDS)


def test_every_fault_is_proven_by_a_test() -> None:
    folder = Path(__file__).parent
    proofs = [*folder.glob("test_faults_*.py"), folder / "test_snapshots.py"]
    source = "".join(path.read_text(encoding="utf-8") for path in proofs if path.name != Path(__file__).name)
    assert [name for name in FAULT_KINDS if f'"{name}"' not in source] == []
