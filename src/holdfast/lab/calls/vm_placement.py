"""On which host a VM can run, and why not on another.

Invariant: a question here changes nothing.
"""

from __future__ import annotations

from typing import cast

from holdfast.lab.calls.common import check_licence
from holdfast.lab.calls.vm_memory import memory_overhead_bytes
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Database, Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure

__all__ = ["calls", "check_can_boot", "check_cpu", "check_sees_storage", "choose_host", "choose_storage_host"]

calls = CallSet()

_FEATURE_KEYS = {"pv": "features_pv", "hvm": "features_hvm", "pvh": "features_hvm", "pv_in_pvh": "features_hvm"}


def choose_host(context: Context, vm: str) -> str:
    """Return the host to run the VM on: the one it likes, else the master, else any; ``NO_HOSTS_AVAILABLE``."""
    db = context.db
    liked = (db.text("VM", vm, "affinity"), context.pool.master_ref)
    hosts = sorted((row.ref for row in db.rows("host")), key=lambda host: liked.index(host) if host in liked else 2)
    for checks_memory in (True, False):
        for host in hosts:
            if _can_boot(context, vm, host, checks_memory=checks_memory):
                return host
    raise ApiFailure("NO_HOSTS_AVAILABLE")


def choose_storage_host(context: Context, vm: str) -> str:
    """Return a host that sees the VM's disks; ``NO_HOSTS_AVAILABLE`` when there is none."""
    for row in context.db.rows("host"):
        try:
            check_sees_storage(context, vm, row.ref)
        except ApiFailure:
            continue
        return row.ref
    raise ApiFailure("NO_HOSTS_AVAILABLE")


def _can_boot(context: Context, vm: str, host: str, *, checks_cpu: bool = True, checks_memory: bool = True) -> bool:
    try:
        check_can_boot(context, vm, host, checks_cpu=checks_cpu, checks_memory=checks_memory)
    except ApiFailure:
        return False
    return True


def check_can_boot(
    context: Context, vm: str, host: str, *, checks_cpu: bool = True, checks_memory: bool = True
) -> None:
    """Return when the VM can run on the host; the pool's first reason otherwise."""
    db = context.db
    fields = db.row("VM", vm).fields
    _check_settings(fields)
    row = db.find("host", host)
    if row is None:
        raise ApiFailure("HOST_NOT_LIVE")
    host_fields = row.fields
    metrics = db.find("host_metrics", str(host_fields["metrics"]))
    if metrics is None or not metrics.fields["live"]:
        raise ApiFailure("HOST_NOT_LIVE")
    if fields["is_control_domain"] and fields["affinity"] not in (NULL_REF, host):
        raise ApiFailure("OPERATION_NOT_ALLOWED", "Cannot boot a control domain on a host different from its affinity")
    is_there = fields["power_state"] == "Running" and fields["resident_on"] == host
    if not host_fields["enabled"] and not fields["is_control_domain"] and not is_there:
        raise ApiFailure("HOST_DISABLED", host)
    versions = cast("list[int]", host_fields["virtual_hardware_platform_versions"])
    if fields["hardware_platform_version"] not in versions:
        spelled = "; ".join(str(version) for version in versions)
        version = str(fields["hardware_platform_version"])
        raise ApiFailure("VM_HOST_INCOMPATIBLE_VIRTUAL_HARDWARE_PLATFORM_VERSION", host, f"[{spelled}]", vm, version)
    if checks_cpu:
        check_cpu(context, vm, host)
    check_sees_storage(context, vm, host)
    _check_networks(context, vm, host)
    capabilities = cast("list[str]", host_fields["capabilities"])
    if fields["domain_type"] != "pv" and not any("hvm" in capability for capability in capabilities):
        raise ApiFailure("VM_HVM_REQUIRED", vm)
    if checks_memory:
        _check_memory(fields, cast(int, metrics.fields["memory_free"]))
    _check_processors(fields, host_fields)


def _check_settings(fields: Fields) -> None:
    maximum, at_startup = cast(int, fields["VCPUs_max"]), cast(int, fields["VCPUs_at_startup"])
    if maximum < 1:
        raise ApiFailure("INVALID_VALUE", "VCPUs_max", str(maximum))
    if at_startup < 1:
        raise ApiFailure("INVALID_VALUE", "VCPUs-at-startup", str(at_startup))
    if at_startup > maximum:
        raise ApiFailure("VALUE_NOT_SUPPORTED", "VCPUs-at-startup", str(at_startup), "value greater than VCPUs-max")
    if cast(int, fields["memory_static_min"]) > cast(int, fields["memory_static_max"]):
        raise ApiFailure("MEMORY_CONSTRAINT_VIOLATION")
    multiplier = cast(float, fields["HVM_shadow_multiplier"])
    if multiplier < 1.0:
        raise ApiFailure("INVALID_VALUE", "HVM_shadow_multiplier", f"{multiplier:.12g}")
    action = str(fields["actions_after_crash"])
    if action == "rename_restart":
        reason = "option would leak a domain; VMs and not domains are managed by this API"
        raise ApiFailure("VALUE_NOT_SUPPORTED", "VM.actions_after_crash", action, reason)
    if action.startswith("coredump_") and fields["domain_type"] != "pv":
        reason = "cannot invoke a coredump of an HVM, PVH or PV-in-PVH domain"
        raise ApiFailure("VALUE_NOT_SUPPORTED", "VM.actions_after_crash", action, reason)


def check_cpu(context: Context, vm: str, host: str) -> None:
    """Return when the processor of the host has what the VM was started with; ``VM_INCOMPATIBLE_WITH_THIS_HOST``."""
    db = context.db
    fields = db.row("VM", vm).fields
    if fields["power_state"] == "Halted":
        return
    flags = cast("dict[str, str]", fields["last_boot_CPU_flags"])
    cpu = db.mapping("host", host, "cpu_info")
    if "vendor" in flags and flags["vendor"] != cpu.get("vendor", ""):
        text = "VM last booted on a host which had a CPU from a different vendor."
        raise ApiFailure("VM_INCOMPATIBLE_WITH_THIS_HOST", vm, host, text)
    offered = cpu.get(_FEATURE_KEYS.get(str(fields["domain_type"]), "features_hvm"), "")
    if "features" in flags and not _is_subset(flags["features"], offered):
        text = "VM last booted on a CPU with features this host's CPU does not have."
        raise ApiFailure("VM_INCOMPATIBLE_WITH_THIS_HOST", vm, host, text)


def _is_subset(wanted: str, offered: str) -> bool:
    """Whether every bit of the first list of hexadecimal words is set in the second."""
    try:
        words = [int(word, 16) for word in wanted.split("-") if word]
        others = [int(word, 16) for word in offered.split("-") if word]
    except ValueError:
        return False
    others += [0] * (len(words) - len(others))
    return all(word & ~other == 0 for word, other in zip(words, others, strict=False))


def _storage_of(db: Database, vm: str) -> list[str]:
    rows = [db.row("VBD", vbd).fields for vbd in db.texts("VM", vm, "VBDs")]
    vdis = [str(row["VDI"]) for row in rows if not row["empty"]]
    if db.text("VM", vm, "power_state") == "Suspended":
        vdis.append(db.text("VM", vm, "suspend_VDI"))
    return [db.text("VDI", vdi, "SR") for vdi in vdis if vdi != NULL_REF]


def check_sees_storage(context: Context, vm: str, host: str) -> None:
    """Return when the host has every repository that the VM's disks are on; ``VM_REQUIRES_SR`` otherwise."""
    db = context.db
    pbds = [row.fields for row in db.rows("PBD") if row.fields["host"] == host]
    seen = {row["SR"] for row in pbds if row["currently_attached"]}
    for sr in _storage_of(db, vm):
        if sr not in seen:
            raise ApiFailure("VM_REQUIRES_SR", vm, sr)


def _check_networks(context: Context, vm: str, host: str) -> None:
    """A network with interfaces must have one on the host; one without is made where it is needed."""
    db = context.db
    for vif in db.texts("VM", vm, "VIFs"):
        network = db.text("VIF", vif, "network")
        found = db.find("network", network)
        pifs = cast("list[str]", found.fields["PIFs"]) if found is not None else []
        if found is None or (pifs and not any(db.text("PIF", pif, "host") == host for pif in pifs)):
            raise ApiFailure("VM_REQUIRES_NETWORK", vm, network)


def _check_memory(fields: Fields, free_bytes: int) -> None:
    overhead = memory_overhead_bytes(
        static_max_bytes=cast(int, fields["memory_static_max"]),
        vcpus=cast(int, fields["VCPUs_max"]),
        multiplier=cast(float, fields["HVM_shadow_multiplier"]),
        domain_type=str(fields["domain_type"]),
    )
    needed = cast(int, fields["memory_dynamic_min"]) + overhead
    if free_bytes < needed:
        raise ApiFailure("HOST_NOT_ENOUGH_FREE_MEMORY", str(needed), str(free_bytes))


def _check_processors(fields: Fields, host_fields: Fields) -> None:
    wanted = cast(int, fields["VCPUs_max"])
    count = int(cast("dict[str, str]", host_fields["cpu_info"]).get("cpu_count", "0"))
    is_free = cast("dict[str, str]", fields["platform"]).get("vcpu-unrestricted") in ("1", "true")
    if wanted > count and not is_free:
        raise ApiFailure("HOST_NOT_ENOUGH_PCPUS", str(wanted), str(count))


@calls.on("VM.assert_can_boot_here")
def assert_can_boot_here(context: Context, vm: str, host: str) -> str:
    """Return when the VM can run on the host; the pool's first reason otherwise."""
    if context.db.text("VM", vm, "power_state") == "Halted":
        check_licence(context, "vm_start", "VM_start")
    check_can_boot(context, vm, host)
    return ""


@calls.on("VM.get_possible_hosts")
def get_possible_hosts(context: Context, vm: str) -> list[str]:
    """Return the hosts that the VM can run on."""
    db = context.db
    scheduled = db.text("VM", vm, "scheduled_to_be_resident_on")
    if scheduled != NULL_REF:
        return [scheduled]
    return [row.ref for row in db.rows("host") if _can_boot(context, vm, row.ref, checks_cpu=False)]


@calls.on("VM.assert_agile")
def assert_agile(context: Context, vm: str) -> str:
    """Return when the VM can run on any host: nothing of it is tied to one."""
    db = context.db
    fields = db.row("VM", vm).fields
    for name, code in (("VGPUs", "VM_HAS_VGPU"), ("VUSBs", "VM_HAS_VUSBS")):
        if fields[name]:
            raise ApiFailure(code, vm)
    hosts = {row.ref for row in db.rows("host") if row.fields["enabled"]}
    for vbd in db.texts("VM", vm, "VBDs"):
        row = db.row("VBD", vbd).fields
        if not row["empty"]:
            sr = db.text("VDI", str(row["VDI"]), "SR")
            if not _is_shared(db, sr, hosts):
                raise ApiFailure("HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED", sr)
    for vif in db.texts("VM", vm, "VIFs"):
        network = db.text("VIF", vif, "network")
        pifs = db.texts("network", network, "PIFs")
        if not hosts <= {db.text("PIF", pif, "host") for pif in pifs}:
            raise ApiFailure("HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED", network)
    return ""


def _is_shared(db: Database, sr: str, hosts: set[str]) -> bool:
    pbds = [db.row("PBD", pbd).fields for pbd in db.texts("SR", sr, "PBDs")]
    return db.flag("SR", sr, "shared") and hosts <= {str(pbd["host"]) for pbd in pbds if pbd["currently_attached"]}
