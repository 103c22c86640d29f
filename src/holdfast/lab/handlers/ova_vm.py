"""VMs out of a file: what is kept, what becomes new, and which VM of the pool is replaced.

Without ``restore`` a VM gets a new identity, seed and generation; with it, all of these stay, and an older VM of the
same identity goes. Invariant: nothing is removed before every check of that VM has passed.
"""

from __future__ import annotations

import contextlib
from typing import cast

from holdfast.lab.calls import create_vm, destroy_vm, remove_vm
from holdfast.lab.columns import SpellingInvalid, parse
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF, parse_type
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.ova_document import OvaObject
from holdfast.lab.handlers.ova_import import Import

__all__ = ["assert_seeds_free", "handle_guest_metrics", "handle_metrics", "handle_vm", "link_snapshots"]

_MAC_SEED = "mac_seed"
_DEFAULT_TEMPLATE = "default_template"
_NEVER_TAKEN = "grant_api_access"
_DEVICE_MODEL = "device-model"
_OLD_DEVICE_MODEL = "qemu-trad"
_OLD_PRIORITIES = frozenset("0123")
_FILE_NAME = "Ref:"
_POOL_NAME = "OpaqueRef:"
_TEXTS = parse_type("(string -> string) map")


def _seed(fields: Fields) -> str | None:
    return cast("dict[str, str]", fields["other_config"]).get(_MAC_SEED)


# -- before anything is made


def assert_seeds_free(one: Import) -> None:
    """Return when no VM of the pool has the seed of one in the file; ``DUPLICATE_MAC_SEED`` otherwise.

    The same VM, its snapshots, and snapshots of the same VM may share one.
    """
    offered = [_record(one, each) for each in one.of("VM")]
    seeds = {_seed(fields) for fields in offered} - {None}
    held = [row.fields for row in one.context.db.rows("VM") if _seed(row.fields) in seeds]
    for fields in offered:
        for other in held:
            if _seed(fields) == _seed(other) and not _is_same_vm(one, fields, other):
                raise ApiFailure("DUPLICATE_MAC_SEED", str(_seed(other)))


def _is_same_vm(one: Import, fields: Fields, other: Fields) -> bool:
    mine = _origin(one, fields) if fields["is_a_snapshot"] else str(fields["uuid"])
    theirs = _origin(one, other) if other["is_a_snapshot"] else str(other["uuid"])
    return mine is not None and mine == theirs


def _origin(one: Import, fields: Fields) -> str | None:
    """Return the uuid of the VM that a snapshot was made of, if anybody knows it."""
    db, origin = one.context.db, str(fields["snapshot_of"])
    if origin.startswith(_FILE_NAME):
        vm = next((each for each in one.of("VM") if each.id == origin), None)
        return None if vm is None else str(_record(one, vm)["uuid"])
    if not origin.startswith(_POOL_NAME):
        return None
    if db.exists("VM", origin):
        return db.text("VM", origin, "uuid")
    # A restore replaced the VM since; the snapshot remembers it in the record that it keeps.
    try:
        kept = parse(str(fields["snapshot_metadata"]), _TEXTS)
    except SpellingInvalid:
        return None
    return str(cast(Fields, kept)["uuid"]) if "uuid" in cast(Fields, kept) else None


def _record(one: Import, each: OvaObject) -> Fields:
    fields = one.fields(each, cls="VM")
    if fields["domain_type"] == "unspecified":
        fields["domain_type"] = "hvm" if fields["HVM_boot_policy"] else "pv"
    return fields


# -- one VM


def handle_vm(one: Import, each: OvaObject) -> None:
    """Make the VM, or find the default template that it is."""
    fields = _record(one, each)
    template = _default_template(one, fields)
    if template is not None:
        one.found(each, template)
        one.vms.insert(0, template)
        return
    replaced = _replaced(one, fields)
    if replaced == "":
        return
    if replaced is None and not one.wishes.is_forced:
        fields["is_default_template"] = False
        fields["other_config"] = _without(fields["other_config"], _DEFAULT_TEMPLATE)
    _check_host(one, fields)
    if one.wishes.is_dry:
        one.dreamt(each)
        return
    if replaced is not None:
        remove_vm(one.context, replaced)  # waits until nothing else is done with it
    _make(one, each, fields)


def _without(config: object, key: str) -> dict[str, str]:
    return {name: value for name, value in cast("dict[str, str]", config).items() if name != key}


def _default_template(one: Import, fields: Fields) -> str | None:
    """Return the pool's template of the same name, for one that comes with every pool."""
    marked = cast("dict[str, str]", fields["other_config"]).get(_DEFAULT_TEMPLATE) == "true"
    if not (fields["is_default_template"] or (fields["is_a_template"] and marked)):
        return None
    rows = one.context.db.rows("VM")
    return next((row.ref for row in rows if row.fields["name_label"] == fields["name_label"]), None)


def _replaced(one: Import, fields: Fields) -> str | None:
    """Return the VM that goes, None when there is none; empty for a VM that a forced import leaves out."""
    db, uuid = one.context.db, str(fields["uuid"])
    if not one.wishes.keeps_identity or not db.has_uuid("VM", uuid):
        return None
    vm = db.by_uuid("VM", uuid)
    power = db.text("VM", vm, "power_state")
    if power != "Halted":
        if one.wishes.is_forced:
            return ""
        raise ApiFailure("VM_BAD_POWER_STATE", vm, "Halted", power)  # capitals, unlike everywhere else
    held, offered = db.number("VM", vm, "version"), cast(int, fields["version"])
    if held >= offered and not one.wishes.is_forced:
        raise ApiFailure("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", vm, str(held), str(offered))
    return vm


def _check_host(one: Import, fields: Fields) -> None:
    """For a VM that shall go on running here: refuse it when memory or processor do not suffice."""
    db, host = one.context.db, one.context.host
    if one.wishes.is_live and fields["power_state"] in ("Running", "Paused"):
        needed = cast(int, fields["memory_static_max"]) + cast(int, fields["memory_overhead"])
        available = db.number("host_metrics", db.text("host", host, "metrics"), "memory_free")
        if available < needed:
            raise ApiFailure("HOST_NOT_ENOUGH_FREE_MEMORY", str(needed), str(available))
    if one.wishes.checks_cpu and fields["power_state"] != "Halted":
        metrics = one.in_file(fields["metrics"])
        domain_type = str(one.fields(metrics, cls="VM_metrics")["current_domain_type"])
        if not (fields["is_a_snapshot"] and domain_type == "unspecified"):
            _check_processor(one, fields, domain_type)


def _check_processor(one: Import, fields: Fields, domain_type: str) -> None:
    """A guest that goes on must find the processor that it has seen, or a better one of the same make."""
    seen = cast("dict[str, str]", fields["last_boot_CPU_flags"])
    own = one.context.db.mapping("host", one.context.host, "cpu_info")
    features = own.get("features_pv" if domain_type == "pv" else "features_hvm")
    if features is None:
        text = "Host does not have new leveling feature keys - not comparing VM's flags"
    elif seen.get("vendor", own.get("vendor")) != own.get("vendor"):
        text = "VM last booted on a host which had a CPU from a different vendor."
    elif _lacks(features, seen.get("features", "")):
        text = "VM last booted on a CPU with features this host's CPU does not have."
    else:
        return
    raise ApiFailure("VM_INCOMPATIBLE_WITH_THIS_HOST", NULL_REF, one.context.host, text)


def _lacks(own: str, wanted: str) -> bool:
    """Whether a bit is wanted that the own ones lack; both are words of hexadecimal digits."""
    words = own.split("-")
    for index, word in enumerate(wanted.split("-") if wanted else ()):
        if int(word, 16) & ~int(words[index] if index < len(words) else "0", 16):
            return True
    return False


def _make(one: Import, each: OvaObject, fields: Fields) -> None:
    context, db, task = one.context, one.context.db, one.context.task
    fields["other_config"] = _other_config(one, fields)
    fields["generation_id"] = _generation(one, fields)
    if "parent" not in cast(Fields, each.record):  # from before memory could be changed live
        fixed = fields["memory_static_max"]
        fields |= dict.fromkeys(("memory_dynamic_min", "memory_dynamic_max", "memory_target"), fixed)
    if "has_vendor_device" not in cast(Fields, each.record):
        fields["has_vendor_device"] = False
    fields["version"] = cast(int, fields["version"]) + 1 if one.wishes.keeps_identity else 0
    if fields["ha_restart_priority"] in _OLD_PRIORITIES and fields["ha_restart_priority"]:
        fields |= {"order": int(str(fields["ha_restart_priority"])), "ha_restart_priority": "restart"}
    fields |= {"protection_policy": NULL_REF, "appliance": NULL_REF, "platform": _with_device_model(fields)}
    specs = db.table("VM").fields
    record = {name: value for name, value in fields.items() if specs[name].is_given_at_creation}
    with db.transaction():
        vm = create_vm(context, {**record, "suspend_VDI": NULL_REF, "power_state": "Halted"})
        one.made(each, vm, lambda: _remove(one, vm, task))
        one.vms.insert(0, vm)
        if one.wishes.keeps_identity:
            db.rename("VM", vm, str(fields["uuid"]))
        _sleep(one, vm, fields)
        _complete(one, vm, fields)
        if not one.wishes.is_forced:
            db.put_key("VM", vm, "current_operations", key=task, value="import")


def _other_config(one: Import, fields: Fields) -> dict[str, str]:
    config = _without(fields["other_config"], _NEVER_TAKEN)
    if not one.wishes.keeps_identity:
        config = {_MAC_SEED: one.context.pool.new_uuid(), **_without(config, _MAC_SEED)}
    return config


def _generation(one: Import, fields: Fields) -> str:
    """Return what tells the guest that it is a copy; a template that never runs keeps it, and a VM that moves."""
    before = str(fields["generation_id"])
    if not before or one.wishes.is_live or fields["is_a_template"]:
        return before
    digits = int.from_bytes(one.context.pool.entropy.token_bytes(16), "big")
    return f"{digits >> 65}:{digits & ((1 << 63) - 1)}"


def _with_device_model(fields: Fields) -> dict[str, str]:
    platform = {**cast("dict[str, str]", fields["platform"])}
    if fields["is_a_template"]:
        return platform
    upstream = "qemu-upstream-compat"
    if fields["domain_type"] == "hvm" and _DEVICE_MODEL not in platform:
        return {_DEVICE_MODEL: upstream, **platform}
    if platform.get(_DEVICE_MODEL) == _OLD_DEVICE_MODEL:
        platform[_DEVICE_MODEL] = upstream
    return platform


def _sleep(one: Import, vm: str, fields: Fields) -> None:
    """Let a suspended VM be one again, with the image of its memory."""
    db = one.context.db
    db.update("VM", vm, {name: fields[name] for name in ("last_booted_record", "last_boot_CPU_flags")})
    if fields["power_state"] != "Suspended":
        return
    try:
        image = one.ref(fields["suspend_VDI"])
    except ApiFailure:
        if not one.wishes.is_forced:
            raise
        return
    db.update("VM", vm, {"power_state": "Suspended", "suspend_VDI": image})
    db.set("VM_metrics", db.text("VM", vm, "metrics"), "current_domain_type", fields["domain_type"])


def _complete(one: Import, vm: str, fields: Fields) -> None:
    """Give the VM what its constructor does not take."""
    db = one.context.db
    taken = (
        "is_control_domain",
        "is_a_snapshot",
        "snapshot_info",
        "snapshot_of",
        "snapshot_time",
        "transportable_snapshot_id",
        "parent",
        "bios_strings",
    )
    changes: Fields = {name: fields[name] for name in taken}
    changes |= {name: one.ref_or_null(fields[name]) for name in ("resident_on", "affinity")}
    changes["other_config"] = {**db.mapping("VM", vm, "other_config"), "import_task": one.context.task}
    if not db.exists("SR", str(fields["suspend_SR"])):
        changes["suspend_SR"] = NULL_REF
    if one.has(fields["metrics"]):
        db.destroy("VM_metrics", db.text("VM", vm, "metrics"))
        changes["metrics"] = one.ref(fields["metrics"])
    if one.has(fields["guest_metrics"]):
        changes["guest_metrics"] = one.ref(fields["guest_metrics"])
    db.update("VM", vm, changes)


def _remove(one: Import, vm: str, task: str) -> None:
    db = one.context.db
    with db.transaction():
        db.drop_key("VM", vm, "current_operations", key=task)
        destroy_vm(one.context, vm)


# -- what is known about a VM


def handle_metrics(one: Import, each: OvaObject) -> None:
    """Take over what was measured of a VM."""
    _copy(one, each)


def handle_guest_metrics(one: Import, each: OvaObject) -> None:
    """Take over what the guest told."""
    _copy(one, each)


def _copy(one: Import, each: OvaObject) -> None:
    if one.wishes.is_dry:
        one.dreamt(each)
        return
    one.found(each, one.context.db.create(each.cls, one.stored_fields(each)))


# -- when all VMs are there


def link_snapshots(one: Import) -> None:
    """Let snapshots and parents refer to the VMs of the pool. A name that nothing stands for stays as it is."""
    db = one.context.db
    for cls, vm in list(reversed(one.handled)):
        if cls != "VM" or not db.exists("VM", vm):
            continue
        origin = db.text("VM", vm, "snapshot_of")
        if db.flag("VM", vm, "is_a_snapshot") and origin != NULL_REF:
            db.set("VM", vm, "snapshot_of", one.ref(origin))
        with contextlib.suppress(ApiFailure):
            db.set("VM", vm, "parent", one.ref(db.text("VM", vm, "parent")))
