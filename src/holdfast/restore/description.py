"""The pool's own description of a VM (a tar with ``ova.xml``), adapted for a restore.

It is the only way to a virtual TPM's contents. Taken as it is, it would also bring what a restore must not: network
cards where they were, networks that the pool lacks, a suspended state, a place under high availability. Invariant:
everything that is not named here passes through unchanged, the TPM's contents above all.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree as Xml

from holdfast.core import ExitStatus, HoldfastError

__all__ = ["DescriptionUnusable", "adapt_description"]

_MEMBER = "ova.xml"
_LEFT_OUT = frozenset(
    {"VIF", "network", "VGPU", "GPU_group", "VGPU_type", "VUSB", "USB_group", "PVS_proxy", "PVS_site"}
)
"""Cards are made as the plan says. Devices of a host are not ours to hand out."""
_EMPTIED = ("VIFs", "VGPUs", "VUSBs", "attached_PCIs", "snapshots", "children")
_NULL_REF = "OpaqueRef:NULL"


class DescriptionUnusable(HoldfastError):
    """The pool's own description of a VM cannot be used to make it anew."""

    code = "restore.description-unusable"
    exit_status = ExitStatus.DAMAGED
    effect = "The VM is made from its saved record instead, without its virtual TPM."
    advice = "Have the guest's recovery key at hand if it encrypts its disk with the TPM."

    def __init__(self, *, why: str) -> None:
        super().__init__(f"the pool's own description of the VM cannot be used: {why}")
        self.why = why


def adapt_description(archive: bytes, *, name: str, other_config: Mapping[str, str]) -> bytes:
    """Return a description of the same VM, halted, under another name, with that ``other_config`` and no cards."""
    try:
        root = Xml.fromstring(_read_member(archive))
    except (tarfile.TarError, Xml.ParseError, OSError) as cause:
        raise DescriptionUnusable(why=str(cause)) from cause
    listed = _field(root, "objects")
    objects = listed.find("array/data") if listed is not None else None
    if objects is None:
        raise DescriptionUnusable(why="it lists no objects")
    vms = [each for each in objects if _class_of(each) == "VM"]
    if len(vms) != 1:
        raise DescriptionUnusable(why=f"it describes {len(vms)} VMs")
    _leave_out(objects)
    _adapt_vm(_record(vms[0]), name=name, other_config=other_config)
    return _write_member(Xml.tostring(root, encoding="utf-8", short_empty_elements=False, xml_declaration=False))


def _leave_out(objects: Xml.Element) -> None:
    """Remove what the plan decides anew, and disks that no place refers to: memory of a suspended VM."""
    placed = {_text(_record(each), "VDI") for each in objects if _class_of(each) == "VBD"}
    for each in list(objects):
        kind = _class_of(each)
        if kind in _LEFT_OUT or (kind == "VDI" and _text(each, "id") not in placed):
            objects.remove(each)


def _adapt_vm(record: Xml.Element, *, name: str, other_config: Mapping[str, str]) -> None:
    for field, text in (
        ("name_label", name),
        ("power_state", "Halted"),
        ("suspend_VDI", _NULL_REF),
        ("affinity", _NULL_REF),
        ("ha_restart_priority", ""),
    ):
        _set_text(record, field, text)
    for field in ("ha_always_run", "is_a_template"):
        if (value := _emptied(record, field)) is not None:
            Xml.SubElement(value, "boolean").text = "0"
    for field in _EMPTIED:
        if (value := _emptied(record, field)) is not None:
            Xml.SubElement(Xml.SubElement(value, "array"), "data")
    if (value := _emptied(record, "other_config")) is not None:
        struct = Xml.SubElement(value, "struct")
        for key, each in other_config.items():
            member = Xml.SubElement(struct, "member")
            Xml.SubElement(member, "name").text = key
            Xml.SubElement(member, "value").text = each


def _read_member(archive: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.name == _MEMBER else None
            if stream is not None:
                return stream.read()
    raise DescriptionUnusable(why=f"it holds no {_MEMBER}")


def _write_member(body: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo(_MEMBER)
        member.size, member.mode = len(body), 0o400
        tar.addfile(member, io.BytesIO(body))
    return archive.getvalue()


def _members(value: Xml.Element) -> Iterator[tuple[str, Xml.Element]]:
    """Yield name and value of every member of a struct."""
    for member in value.iterfind("struct/member"):
        name, held = member.find("name"), member.find("value")
        if name is not None and held is not None:
            yield name.text or "", held


def _field(value: Xml.Element, name: str) -> Xml.Element | None:
    return next((held for key, held in _members(value) if key == name), None)


def _text(value: Xml.Element, name: str) -> str:
    held = _field(value, name)
    return "".join(held.itertext()) if held is not None else ""


def _class_of(value: Xml.Element) -> str:
    return _text(value, "class")


def _record(value: Xml.Element) -> Xml.Element:
    record = _field(value, "snapshot")
    if record is None:
        raise DescriptionUnusable(why="an object in it has no record")
    return record


def _emptied(record: Xml.Element, name: str) -> Xml.Element | None:
    held = _field(record, name)
    if held is not None:
        held.clear()
    return held


def _set_text(record: Xml.Element, name: str, text: str) -> None:
    if (held := _emptied(record, name)) is not None:
        held.text = text
