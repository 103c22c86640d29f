"""VMs, SRs and networks are found by what people call them."""

from __future__ import annotations

import pytest

from holdfast.model import HostUuid, Pool, PoolUuid, PowerState, Sr, SrUuid, Vm, VmUuid
from holdfast.xapi import Inventory, VmAmbiguous, VmUnknown


def _vm(name: str, uuid: str) -> Vm:
    return Vm(
        uuid=VmUuid(uuid),
        name=name,
        description="",
        power_state=PowerState.RUNNING,
        tags=(),
        memory_bytes=0,
        vcpus=1,
        disks=(),
        nics=(),
        record={},
    )


def _inventory(*vms: Vm) -> Inventory:
    sr = Sr(
        uuid=SrUuid("sr-1"),
        name="Local storage",
        kind="ext",
        content_type="user",
        shared=False,
        physical_size_bytes=10,
        free_bytes=5,
        supports_cbt=True,
    )
    pool = Pool(uuid=PoolUuid("p"), name="pool", master=HostUuid("h"), default_sr=SrUuid("sr-1"))
    return Inventory(pool=pool, hosts=(), srs=(sr,), networks=(), vms=vms)


def test_a_vm_is_found_by_name_by_uuid_and_by_name_in_another_case() -> None:
    web = _vm("Web", "aa-1")
    inventory = _inventory(web, _vm("db", "bb-2"))
    assert inventory.find_vm("Web") is web
    assert inventory.find_vm("AA-1") is web
    assert inventory.find_vm("web") is web


def test_an_exact_name_wins_over_one_in_another_case() -> None:
    lower = _vm("web", "aa-1")
    assert _inventory(_vm("WEB", "bb-2"), lower).find_vm("web") is lower


def test_an_unknown_name_comes_back_with_near_ones() -> None:
    with pytest.raises(VmUnknown) as caught:
        _inventory(_vm("webserver-1", "a"), _vm("database", "b")).find_vm("websrever-1")
    assert caught.value.near == "webserver-1"
    assert "webserver-1" in caught.value.next_step()


def test_a_part_of_a_name_suggests_the_whole() -> None:
    with pytest.raises(VmUnknown) as caught:
        _inventory(_vm("production-web-frontend", "a")).find_vm("web")
    assert caught.value.near == "production-web-frontend"


def test_two_vms_of_one_name_are_told_apart_by_their_uuids() -> None:
    with pytest.raises(VmAmbiguous) as caught:
        _inventory(_vm("web", "a-1"), _vm("web", "b-2")).find_vm("web")
    assert "a-1" in caught.value.next_step()
    assert "b-2" in caught.value.next_step()


def test_an_unknown_sr_is_called_an_sr_and_the_default_is_found() -> None:
    inventory = _inventory()
    with pytest.raises(VmUnknown, match="no SR 'nfs'"):
        inventory.find_sr("nfs")
    assert inventory.default_sr is inventory.find_sr("local storage")
