"""The many small calls of a pool that few programs use: each refuses, or answers, as a real pool does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.lab.talk import refusal

NOWHERE = "OpaqueRef:nope"
NULL = "OpaqueRef:NULL"


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("VBD_metrics.get_all", ()),
        ("VBD_metrics.get_record", (NOWHERE,)),
        ("VBD_metrics.add_to_other_config", (7, 7, 7)),
        ("VIF_metrics.get_by_uuid", ("x",)),
        ("PIF_metrics.get_io_read_kbs", (7,)),
        ("VM.get_is_snapshot_from_vmpp", (NOWHERE,)),
        ("VMPP.set_name_label", (NOWHERE, 7)),
        ("VMPP.destroy", (NOWHERE,)),
    ],
)
def test_a_call_on_what_was_removed_says_so_before_it_looks_at_anything(
    api: Any, call: str, arguments: tuple[object, ...]
) -> None:
    assert refusal(lambda: getattr(api, call)(*arguments)) == ["MESSAGE_REMOVED"]


def test_the_value_of_a_removed_field_stays_in_records(api: Any) -> None:
    [metrics] = api.host_metrics.get_all()
    assert api.host_metrics.get_record(metrics)["memory_free"]


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("host.get_servertime", ()),
        ("host.set_multipathing", (True,)),
        ("host.call_plugin", ("x", "x", {})),
        ("PIF.introduce", ("x", "x")),
    ],
)
def test_a_call_that_a_host_must_do_needs_one_that_is_alive(api: Any, call: str, arguments: tuple[object, ...]) -> None:
    for host in (NOWHERE, NULL):
        assert refusal(lambda host=host: getattr(api, call)(host, *arguments)) == ["HOST_OFFLINE", host]  # type: ignore[misc]
