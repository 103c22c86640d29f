"""Calls about what VMs offer beside running: templates that install themselves, plug-ins, recovery elsewhere."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
import xml.parsers.expat.errors as expat_errors
from dataclasses import dataclass

from holdfast.lab.calls.common import vm_operation
from holdfast.lab.calls.vbd import create as create_vbd
from holdfast.lab.calls.vm import leave_templates
from holdfast.lab.calls.vm_copy import vm_vdis
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import check_power_state, has_feature
from holdfast.lab.volumes import create_vdi, destroy_vdi

__all__ = ["assert_can_be_recovered", "calls", "get_srs_required_for_recovery"]

calls = CallSet()

_DISKS, _SCRIPT = "disks", "postinstall"
_TYPES = ("system", "user", "ephemeral", "suspend", "crashdump")
_PLUGIN = "guest-agent-operation"
_ENDS_EARLY = tuple(
    expat_errors.codes[name] for name in (expat_errors.XML_ERROR_NO_ELEMENTS, expat_errors.XML_ERROR_UNCLOSED_TOKEN)
)


# -- templates that say which disks they want


@dataclass(frozen=True, slots=True)
class _WantedDisk:
    device: str
    size_bytes: int
    sr: str
    is_bootable: bool
    kind: str


@calls.on("VM.provision")
def provision(context: Context, vm: str) -> str:
    """Turn a template into a VM and make the disks that it asks for."""
    db = context.db
    with vm_operation(context, vm, "provision"):
        wanted = _wanted_disks(context, vm)
        script = db.mapping("VM", vm, "other_config").get(_SCRIPT)
        leave_templates(context, vm)
        # What was made stays when a later disk fails: a pool clears up only behind a script.
        made = [_make_disk(context, vm, disk) for disk in wanted]
        if script is not None:
            for vbd in made:
                vdi = db.text("VBD", vbd, "VDI")
                db.destroy("VBD", vbd)
                destroy_vdi(context.pool, vdi)
            raise ApiFailure("PERMISSION_DENIED", f"illegal provision script {script}")
        if made:
            db.drop_key("VM", vm, "other_config", key=_DISKS)
    return ""


def _wanted_disks(context: Context, vm: str) -> list[_WantedDisk]:
    text = context.db.mapping("VM", vm, "other_config").get(_DISKS)
    if text is None:
        return []
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as cause:
        raise ApiFailure("INTERNAL_ERROR", f"XML Error: {_reason(text, cause)} line {cause.position[0]}") from cause
    if root.tag != "provision" or root.attrib:
        raise ApiFailure("INTERNAL_ERROR", "Xapi_templates.Parse_failure")
    return [_wanted_disk(element) for element in root]


def _reason(text: str, cause: ElementTree.ParseError) -> str:
    """Return what a pool's parser says about a text that is no XML."""
    begun = text.lstrip()
    if not begun or cause.code in _ENDS_EARLY:
        return "unexpected end of input"
    return "malformed character stream" if begun.startswith("<") else "expected root element"


def _wanted_disk(element: ElementTree.Element) -> _WantedDisk:
    try:
        kind = element.attrib.get("type", "system")
        return _WantedDisk(
            element.attrib["device"],
            int(element.attrib["size"]),
            element.attrib["sr"],
            element.attrib["bootable"] == "true",
            kind if kind in _TYPES else "system",
        )
    except (KeyError, ValueError) as cause:
        raise ApiFailure("INTERNAL_ERROR", "Xapi_templates.Parse_failure") from cause


def _make_disk(context: Context, vm: str, wanted: _WantedDisk) -> str:
    db = context.db
    if not db.has_uuid("SR", wanted.sr):
        raise ApiFailure("UUID_INVALID", "sr", wanted.sr)
    disk: Fields = {
        "name_label": "",
        "name_description": "Created by template provisioner",
        "SR": db.by_uuid("SR", wanted.sr),
        "virtual_size": wanted.size_bytes,
        "type": wanted.kind,
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "xenstore_data": {},
        "sm_config": {},
        "tags": [],
    }
    vdi = create_vdi(context.pool, disk)
    # Without its attachment, too, the disk stays, as on a pool.
    attachment: Fields = {
        "VM": vm,
        "VDI": vdi,
        "userdevice": wanted.device,
        "bootable": wanted.is_bootable,
        "mode": "RW",
        "type": "Disk",
        "unpluggable": wanted.kind != "system",
        "empty": False,
        "other_config": {"owner": ""},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    vbd = create_vbd(context, attachment)
    db.set("VDI", vdi, "name_label", db.text("VBD", vbd, "userdevice"))
    return vbd


# -- what guests and hosts do on demand


@calls.on("VM.call_plugin")
def call_plugin(context: Context, vm: str, plugin: str, function: str, arguments: dict[str, str]) -> str:
    """Let the guest's tools do something; those of the lab's guests can do nothing on demand."""
    db = context.db
    with vm_operation(context, vm, "call_plugin"):
        if plugin != _PLUGIN:
            raise ApiFailure("XENAPI_MISSING_PLUGIN", plugin)
        if function == "run-script":
            raise ApiFailure("FEATURE_RESTRICTED")
        if function not in ("request-rdp-on", "request-rdp-off"):
            text = f'The requested fn "{function}" could not be found in plugin "{plugin}".'
            raise ApiFailure("XENAPI_PLUGIN_FAILURE", "failed to find fn", text, text)
        metrics = db.find("VM_guest_metrics", db.text("VM", vm, "guest_metrics"))
        if not has_feature(metrics, "feature-ts2"):
            text = (
                f'The requested fn "{function}" of plugin "{plugin}" could not be executed for lack of guest agent '
                "control feature."
            )
            raise ApiFailure("XENAPI_PLUGIN_FAILURE", "failed to execute fn", text, text)
    return ""


@calls.on("VM.call_host_plugin")
def call_host_plugin(context: Context, vm: str, plugin: str, function: str, arguments: dict[str, str]) -> str:
    """Let the VM's host run a plug-in; the lab's hosts have none."""
    power_state = context.db.text("VM", vm, "power_state")
    if power_state != "Running":
        raise ApiFailure("VM_BAD_POWER_STATE", vm, "Running", power_state)
    with vm_operation(context, vm, "call_plugin"):
        raise ApiFailure("XENAPI_MISSING_PLUGIN", plugin)


@calls.on("VM.query_services")
def query_services(context: Context, vm: str) -> dict[str, str]:
    """Nothing offers services this way any more."""
    with vm_operation(context, vm, "query_services"):
        raise ApiFailure("NOT_IMPLEMENTED", "query_services")


@calls.on("VM.send_sysrq")
def send_sysrq(context: Context, vm: str, key: str) -> str:
    """No pool does this."""
    with vm_operation(context, vm, "send_sysrq"):
        raise ApiFailure("NOT_IMPLEMENTED", "send_sysrq")


@calls.on("VM.send_trigger")
def send_trigger(context: Context, vm: str, trigger: str) -> str:
    """No pool does this."""
    with vm_operation(context, vm, "send_trigger"):
        raise ApiFailure("NOT_IMPLEMENTED", "send_trigger")


@calls.on("VM.sysprep")
def sysprep(context: Context, vm: str, unattend: str, timeout: float) -> str:
    """Let a Windows guest forget who it is; the pool does not offer it unless told to."""
    with vm_operation(context, vm, "sysprep"):
        if timeout < 0:
            raise ApiFailure("INVALID_VALUE", "timeout", f"{timeout:.12g}")
        raise ApiFailure("SYSPREP", context.db.text("VM", vm, "uuid"), "API call is disabled")


@calls.on("VM.update_secureboot_certificates_on_boot")
def update_secureboot_certificates_on_boot(context: Context, vm: str, mark: bool) -> str:
    """Let the certificates in the firmware be renewed at the next start, or no longer."""
    name = "secureboot_certificates_state"
    state = context.db.text("VM", vm, name)
    before, after = ("update_available", "update_on_boot") if mark else ("update_on_boot", "update_available")
    if state not in (before, after):
        verb = "set" if mark else "clear"
        text = f"Cannot {verb} update_on_boot: VM.secureboot_certificates_state is not in a valid state"
        raise ApiFailure("OPERATION_NOT_ALLOWED", text)
    context.db.set("VM", vm, name, after)
    return ""


# -- figures, and advice of a machine that the lab does not have


@calls.on("VM.get_data_sources")
def get_data_sources(context: Context, vm: str) -> list[Fields]:
    """The lab measures nothing about its guests."""
    with vm_operation(context, vm, "data_source_op"):
        return []


@calls.on("VM.record_data_source", "VM.forget_data_source_archives")
def record_data_source(context: Context, vm: str, source: str) -> str:
    """Accepted for a VM that runs; nothing is recorded."""
    with vm_operation(context, vm, "data_source_op"):
        return ""


@calls.on("VM.query_data_source")
def query_data_source(context: Context, vm: str, source: str) -> float:
    """Return a figure of a VM that has a domain; it is always nothing."""
    check_power_state(context.db, vm, "Running", "Paused")
    return 0.0


@calls.on("VM.retrieve_wlb_recommendations")
def retrieve_wlb_recommendations(context: Context, vm: str) -> dict[str, list[str]]:
    """Advice needs a machine for workload balancing, which the lab does not have."""
    context.db.row("VM", vm)
    raise ApiFailure("WLB_NOT_INITIALIZED")


# -- recovery in another pool


def _storage(context: Context, vm: str) -> list[str]:
    """Return the repositories that hold the VM's disks, ISO libraries left out."""
    db = context.db
    found = dict.fromkeys(db.text("VDI", vdi, "SR") for vdi in vm_vdis(context, vm))
    return [sr for sr in found if db.text("SR", sr, "content_type") != "iso"]


def _is_attached(context: Context, sr: str) -> bool:
    db = context.db
    return any(db.flag("PBD", pbd, "currently_attached") for pbd in db.texts("SR", sr, "PBDs"))


@calls.on("VM.assert_can_be_recovered")
def assert_can_be_recovered(context: Context, vm: str, session: str) -> str:
    """Return when the other pool has the storage that the VM needs."""
    context.db.row("VM", vm)
    for sr in _storage(context, vm):
        if not _is_attached(context, sr):
            raise ApiFailure("VM_REQUIRES_SR", vm, sr)
    return ""


@calls.on("VM.get_SRs_required_for_recovery")
def get_srs_required_for_recovery(context: Context, vm: str, session: str) -> list[str]:
    """Return the storage that the other pool lacks."""
    context.db.row("VM", vm)
    return [sr for sr in _storage(context, vm) if not _is_attached(context, sr)]


@calls.on("VM.recover")
def recover(context: Context, vm: str, session: str, force: bool) -> str:
    """Recovery into another pool needs a session there, which the lab never has."""
    db = context.db
    appliance = db.text("VM", vm, "appliance")
    if appliance != NULL_REF and db.exists("VM_appliance", appliance):
        raise ApiFailure("VM_IS_PART_OF_AN_APPLIANCE", vm, appliance)
    db.row("session", session)
    assert_can_be_recovered(context, vm, session)
    raise ApiFailure("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", vm, "0", "0")


@calls.on("VM.import_convert")
def import_convert(
    context: Context, kind: str, username: str, password: str, sr: str, remote_config: dict[str, str]
) -> str:
    """Import from another hypervisor needs a conversion machine, which the lab does not have."""
    raise ApiFailure("XENAPI_MISSING_PLUGIN", "conversion")
