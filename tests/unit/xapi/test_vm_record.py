"""A VM is made from its saved record without anything of the old pool in it."""

from __future__ import annotations

from holdfast.model import JsonObject
from holdfast.xapi.vm_record import new_vm_record


def _new(**saved: object) -> JsonObject:
    return new_vm_record(saved)  # type: ignore[arg-type]


def test_what_a_guest_sees_is_carried_over() -> None:
    saved = {
        "name_label": "web",
        "platform": {"device-model": "qemu-upstream-uefi"},
        "NVRAM": {"EFI-variables": "AAAA"},
        "memory_static_max": "2147483648",
        "HVM_boot_params": {"firmware": "uefi"},
        "tags": ["a"],
        "generation_id": "1:2",
    }
    made = _new(**saved)
    assert {field: made[field] for field in saved} == saved


def test_nothing_refers_to_the_old_pool_and_nothing_volatile_travels() -> None:
    made = _new(
        affinity="OpaqueRef:host",
        VBDs=["OpaqueRef:vbd"],
        suspend_SR="OpaqueRef:sr",
        resident_on="OpaqueRef:host",
        power_state="Running",
        uuid="u",
        is_a_template=True,
        appliance="OpaqueRef:a",
    )
    assert made["affinity"] == "OpaqueRef:NULL"
    assert [value for value in made.values() if isinstance(value, str) and value.startswith("OpaqueRef:h")] == []
    assert not {"VBDs", "suspend_SR", "resident_on", "power_state", "uuid", "appliance"} & made.keys()
    assert made["is_a_template"] is False


def test_high_availability_is_left_off_because_it_would_start_the_vm() -> None:
    assert "ha_restart_priority" not in _new(ha_restart_priority="restart")


def test_a_record_of_an_older_pool_gets_what_vm_create_demands() -> None:
    made = _new(name_label="old")
    assert made["HVM_shadow_multiplier"] == 1.0
    assert made["user_version"] == "1"
