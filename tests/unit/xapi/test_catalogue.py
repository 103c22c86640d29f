"""Every answer that people meet has a cause, an effect and a next step."""

from __future__ import annotations

import pytest

from holdfast.core import ExitStatus, Retry
from holdfast.xapi import ObjectGone, PoolFailure, SrFull
from holdfast.xapi.catalogue import RightsMissing, StorageOffline, failure_from


def test_a_known_answer_becomes_its_cause_and_keeps_the_raw_text() -> None:
    failure = failure_from(["SR_BACKEND_FAILURE_44", "", "There is insufficient space"], operation="VM.snapshot")
    assert isinstance(failure, SrFull)
    assert failure.exit_status is ExitStatus.NO_SPACE
    assert failure.retry is Retry.LATER
    assert failure.facts()["xapi_code"] == "SR_BACKEND_FAILURE_44"
    assert "insufficient space" in str(failure.facts()["xapi_text"])
    assert str(failure).startswith("VM.snapshot: ")


def test_what_a_transfer_was_refused_for_is_not_taken_for_missing_rights() -> None:
    wrapped = ["RBAC_PERMISSION_DENIED", "http/get_export_raw_vdi", "NO_HOSTS_AVAILABLE: [  ]"]
    assert isinstance(failure_from(wrapped, operation="export"), StorageOffline)
    wrapped[2] = "HANDLE_INVALID: [ VDI; OpaqueRef:1 ]"
    failure = failure_from(wrapped, operation="export")
    assert isinstance(failure, ObjectGone)
    assert failure.facts()["xapi_code"] == "HANDLE_INVALID"
    assert "OpaqueRef:1" in str(failure)
    denied = ["RBAC_PERMISSION_DENIED", "http/get_export_raw_vdi", "No permission in user session"]
    assert isinstance(failure_from(denied, operation="export"), RightsMissing)


@pytest.mark.parametrize("params", [["SOMETHING_NEW", "x"], []])
def test_an_unknown_answer_is_still_an_error_with_its_text(params: list[str]) -> None:
    failure = failure_from(params, operation="VM.start")
    assert type(failure) is PoolFailure
    assert failure.xapi_code == "".join(params[:1])


@pytest.mark.parametrize(
    "code",
    [
        "SR_BACKEND_FAILURE_44",
        "SR_BACKEND_FAILURE_46",
        "SR_BACKEND_FAILURE_82",
        "SR_BACKEND_FAILURE_109",
        "SR_BACKEND_FAILURE_460",
        "VDI_IN_USE",
        "VM_HAS_VUSBS",
        "LICENCE_RESTRICTION",
        "VDI_NO_CBT_METADATA",
        "VDI_IO_ERROR",
        "MAP_DUPLICATE_KEY",
        "OTHER_OPERATION_IN_PROGRESS",
        "TOO_MANY_PENDING_TASKS",
        "HANDLE_INVALID",
    ],
)
def test_what_people_meet_has_a_cause_an_effect_and_a_next_step(code: str) -> None:
    failure = failure_from([code, "detail"], operation="op")
    assert type(failure) is not PoolFailure
    assert failure.what
    assert failure.effect.endswith(".")
    assert failure.next_step().endswith((".", ")"))
    assert failure.code != PoolFailure.code


def test_gone_objects_are_recognised_by_reference_and_by_uuid() -> None:
    assert isinstance(failure_from(["HANDLE_INVALID", "VDI", "r"], operation="o"), ObjectGone)
    assert isinstance(failure_from(["UUID_INVALID", "VDI", "u"], operation="o"), ObjectGone)
