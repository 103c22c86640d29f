"""The pool's own description is changed where a restore must, and nowhere else."""

from __future__ import annotations

import io
import tarfile
from typing import cast

import pytest

from holdfast.lab.rpc import parse_value
from holdfast.restore import DescriptionUnusable, adapt_description
from tests.support.golden import golden_path
from tests.support.ova import OvaRecord, pack_ova

_VM: dict[str, object] = {
    "uuid": "u",
    "name_label": "old",
    "power_state": "Suspended",
    "suspend_VDI": "Ref:9",
    "affinity": "Ref:5",
    "ha_restart_priority": "restart",
    "ha_always_run": True,
    "is_a_template": False,
    "VIFs": ["Ref:3"],
    "VGPUs": [],
    "other_config": {"auto_poweron": "true"},
    "memory_static_max": "1073741824",
    "platform": {"secureboot": "true"},
}


def _archive(*more: OvaRecord, vms: int = 1) -> bytes:
    objects: list[OvaRecord] = [("VM", f"Ref:{n}", dict(_VM)) for n in range(vms)]
    rest: list[OvaRecord] = [
        ("VBD", "Ref:1", {"uuid": "b", "VM": "Ref:0", "VDI": "Ref:2"}),
        ("VDI", "Ref:2", {"uuid": "d"}),
        ("VIF", "Ref:3", {"uuid": "i", "network": "Ref:4"}),
        ("network", "Ref:4", {"uuid": "n"}),
        ("VDI", "Ref:9", {"uuid": "memory"}),
        ("VTPM", "Ref:7", {"uuid": "t", "contents": "<&> sealed ä \n x"}),
        *more,
    ]
    return pack_ova([*objects, *rest], {"export_vsn": 2})


def _read(archive: bytes) -> dict[str, object]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        stream = tar.extractfile("ova.xml")
        assert stream is not None
        return cast("dict[str, object]", parse_value(stream.read()))


def _objects(archive: bytes) -> dict[str, dict[str, object]]:
    listed = cast("list[dict[str, object]]", _read(archive)["objects"])
    return {str(each["class"]): cast("dict[str, object]", each["snapshot"]) for each in listed}


def test_the_vm_is_halted_renamed_marked_and_without_cards() -> None:
    adapted = adapt_description(_archive(), name="new <&> ä", other_config={"holdfast:run": "mark", "a": ""})
    vm = _objects(adapted)["VM"]
    assert vm["name_label"] == "new <&> ä"
    assert vm["other_config"] == {"holdfast:run": "mark", "a": ""}
    assert (vm["power_state"], vm["suspend_VDI"], vm["affinity"]) == ("Halted", "OpaqueRef:NULL", "OpaqueRef:NULL")
    assert (vm["ha_restart_priority"], vm["ha_always_run"], vm["VIFs"]) == ("", False, [])


def test_what_is_not_named_passes_unchanged_the_tpm_above_all() -> None:
    before, after = _objects(_archive()), _objects(adapt_description(_archive(), name="n", other_config={}))
    assert after["VTPM"] == before["VTPM"]
    assert (after["VBD"], after["VDI"]) == (before["VBD"], {"uuid": "d"})
    assert after["VM"]["platform"] == {"secureboot": "true"}
    assert set(after) == {"VM", "VBD", "VDI", "VTPM"}, "no card, no network, no memory of a suspended VM"


def test_a_real_pools_description_is_understood() -> None:
    with tarfile.open(golden_path("export.xva")) as tar:
        stream = tar.extractfile("ova.xml")
        assert stream is not None
        body = stream.read()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("ova.xml")
        member.size = len(body)
        tar.addfile(member, io.BytesIO(body))
    objects = _objects(adapt_description(archive.getvalue(), name="again", other_config={"k": "v"}))
    assert objects["VM"]["name_label"] == "again"
    assert objects["VM"]["is_a_template"] is False
    assert {"VM", "VBD", "VDI", "SR"} <= set(objects)


def _tar(name: str, body: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(body)
        tar.addfile(member, io.BytesIO(body))
    return archive.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"x" * 2000,
        _tar("other.xml", b"<value/>"),
        _tar("ova.xml", b"<value"),
        _tar("ova.xml", b"<value></value>"),
        _tar("ova.xml", b"<value><struct><member><name>objects</name><value>x</value></member></struct></value>"),
        _archive(vms=0),
        _archive(vms=2),
        pack_ova([], {}),
        _archive()[:700],
    ],
)
def test_anything_else_is_refused_with_what_it_means(archive: bytes) -> None:
    with pytest.raises(DescriptionUnusable) as caught:
        adapt_description(archive, name="n", other_config={})
    assert "TPM" in caught.value.effect


def test_an_object_without_a_record_is_refused() -> None:
    listed = "<member><name>class</name><value>VM</value></member>"
    body = (
        "<value><struct><member><name>objects</name><value><array><data><value><struct>"
        f"{listed}</struct></value></data></array></value></member></struct></value>"
    )
    with pytest.raises(DescriptionUnusable, match="no record"):
        adapt_description(_tar("ova.xml", body.encode()), name="n", other_config={})
