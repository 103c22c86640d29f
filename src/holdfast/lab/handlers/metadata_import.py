"""``PUT /import_metadata``: make VMs from a description, on disks that are there already.

Disks are found by an explicit mapping (``vdi:<old uuid>=<new uuid>``) or by their location on the same repository.
``restore`` keeps identities: uuid, MAC addresses, seed. Invariant: a refused import has changed nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from holdfast.lab.calls import derived_mac, destroy_vm, new_metrics
from holdfast.lab.context import Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.metadata_export import query_flag
from holdfast.lab.handlers.ova import OvaObject, read_ova
from holdfast.lab.handlers.transfer import Transfer
from holdfast.lab.rules import bad_power_state

__all__ = ["import_metadata"]

_MAPPING_PREFIX = "vdi:"

_NEEDED = {
    "VM": frozenset(
        """
        uuid version name_label is_a_snapshot snapshot_of parent other_config generation_id power_state suspend_VDI
        affinity platform HVM_boot_policy HVM_boot_params
        """.split()
    ),
    "VBD": frozenset({"uuid", "VM", "VDI", "type", "userdevice", "mode"}),
    "VIF": frozenset({"uuid", "VM", "network", "device", "MAC"}),
    "VTPM": frozenset({"uuid", "VM"}),
    "VDI": frozenset({"uuid", "SR", "location"}),
    "network": frozenset({"uuid", "name_label", "bridge"}),
}
"""What a record must bring to become an object."""


@dataclass(slots=True)
class _Import:
    """One import: the file, the wishes, and what each name of the file became."""

    context: Context
    task: str
    objects: list[OvaObject]
    keeps_identity: bool
    ignores_missing: bool
    mapping: dict[str, str]
    refs: dict[str, str] = field(default_factory=dict)
    seeds: dict[str, str] = field(default_factory=dict)

    def of(self, cls: str) -> list[OvaObject]:
        """Return the file's objects of one class."""
        return [each for each in self.objects if each.cls == cls]

    def ref(self, name: object) -> str:
        """Return the pool's object for a name of the file, or null."""
        return self.refs.get(str(name), NULL_REF)


def import_metadata(one: Transfer) -> None:
    """Receive a description and make its VMs; the task's result is the list of them."""
    is_dry = query_flag(one, "dry_run", default=False)
    keeps_identity = query_flag(one, "restore", default=False)
    ignores_missing = query_flag(one, "force", default=False)
    one.head(f"task-id:{one.task}", "content-type: application/octet-stream")
    one_import = _Import(
        context=one.context,
        task=one.task,
        objects=read_ova(one.connection),
        keeps_identity=keeps_identity,
        ignores_missing=ignores_missing,
        mapping={
            name.removeprefix(_MAPPING_PREFIX): value
            for name, value in one.request.query.items()
            if name.startswith(_MAPPING_PREFIX)
        },
    )
    _check_shape(one_import)
    with one.pool.db.transaction():
        _find_existing(one_import)
        _check_replaced(one_import)
        if is_dry:
            one.result = []
            return
        one.result = _make_all(one_import)


def _check_shape(one: _Import) -> None:
    """Refuse a file whose records lack a field or hold what does not convert, before anything is made of it."""
    for each in one.objects:
        needed = _NEEDED.get(each.cls, frozenset({"uuid"}))
        if not isinstance(each.record, dict) or not needed <= set(each.record):
            raise ApiFailure("INTERNAL_ERROR", "Not_found")
        if each.cls in _NEEDED:
            _accepted(one, each.cls, each)
    ids = {each.id for each in one.of("VM")}
    for cls in ("VBD", "VIF", "VTPM"):
        if any(each.record["VM"] not in ids for each in one.of(cls)):
            raise ApiFailure("INTERNAL_ERROR", "Not_found")


def _find_existing(one: _Import) -> None:
    """Find hosts, networks, repositories and disks of the file in this pool."""
    db = one.context.db
    for cls in ("host", "SR"):
        for each in one.of(cls):
            uuid = str(each.record["uuid"])
            if db.has_uuid(cls, uuid):
                one.refs[each.id] = db.by_uuid(cls, uuid)
    for each in one.of("network"):
        network = _find_network(one, each)
        if network is not None:
            one.refs[each.id] = network
    for each in one.of("VDI"):
        ref = _find_disk(one, each)
        if ref is not None:
            one.refs[each.id] = ref


def _find_network(one: _Import, each: OvaObject) -> str | None:
    rows = one.context.db.rows("network")
    for name in ("name_label", "bridge"):
        for row in rows:
            if row.fields[name] == each.record[name]:
                return row.ref
    return None


def _find_disk(one: _Import, each: OvaObject) -> str | None:
    db = one.context.db
    wanted = one.mapping.get(str(each.record["uuid"]))
    if wanted is not None and db.has_uuid("VDI", wanted):
        return db.by_uuid("VDI", wanted)
    sr, location = one.ref(each.record["SR"]), str(each.record["location"])
    for vdi in db.texts("SR", sr, "VDIs") if db.exists("SR", sr) else []:
        if db.text("VDI", vdi, "location") == location:
            return vdi
    if one.ignores_missing or _is_disc(one, each):
        return None
    raise ApiFailure("VDI_LOCATION_MISSING", sr, location)


def _is_disc(one: _Import, each: OvaObject) -> bool:
    return any(vbd.record["VDI"] == each.id and vbd.record["type"] == "CD" for vbd in one.of("VBD"))


def _check_replaced(one: _Import) -> None:
    """With ``restore``: refuse to replace a VM that runs or is as new, and a seed that another VM has."""
    if not one.keeps_identity:
        return
    db = one.context.db
    for each in one.of("VM"):
        uuid = str(each.record["uuid"])
        if db.has_uuid("VM", uuid):
            vm = db.by_uuid("VM", uuid)
            held, offered = db.number("VM", vm, "version"), int(str(each.record["version"]))
            if offered <= held:
                raise ApiFailure("VM_TO_IMPORT_IS_NOT_NEWER_VERSION", vm, str(held), str(offered))
            power = db.text("VM", vm, "power_state")
            if power != "Halted":
                raise bad_power_state(vm, wanted=("Halted",), actual=power)
        if not each.record["is_a_snapshot"]:
            _check_seed(one, each)


def _check_seed(one: _Import, each: OvaObject) -> None:
    seed = _seed_of(each)
    for row in one.context.db.rows("VM"):
        same = cast("dict[str, str]", row.fields["other_config"]).get("mac_seed") == seed
        if same and not row.fields["is_a_snapshot"] and row.fields["uuid"] != each.record["uuid"]:
            raise ApiFailure("DUPLICATE_MAC_SEED", seed)


def _seed_of(each: OvaObject) -> str:
    return cast("dict[str, str]", each.record["other_config"]).get("mac_seed", "")


def _make_all(one: _Import) -> list[str]:
    made: list[str] = []
    for each in one.of("network"):
        if each.id not in one.refs:
            fields: Fields = {"name_label": each.record["name_label"], "bridge": each.record["bridge"]}
            one.refs[each.id] = one.context.db.create("network", fields)
    for each in sorted(one.of("VM"), key=lambda each: bool(each.record["is_a_snapshot"])):
        ref = _make_vm(one, each)
        one.refs[each.id] = ref
        if not each.record["is_a_snapshot"]:
            made.append(ref)
    for each in one.of("VM"):
        parent = one.ref(each.record["parent"])
        one.context.db.set("VM", one.refs[each.id], "parent", parent)
    for each in one.of("VBD"):
        _make_vbd(one, each)
    for each in one.of("VIF"):
        _make_vif(one, each)
    for each in one.of("VTPM"):
        changes: Fields = {"VM": one.ref(each.record["VM"]), "uuid": _identity(one, "VTPM", each)}
        one.context.db.create("VTPM", {**_accepted(one, "VTPM", each), **changes})
    return made


def _make_vm(one: _Import, each: OvaObject) -> str:
    db, pool = one.context.db, one.context.pool
    fields = _accepted(one, "VM", each)
    uuid = str(each.record["uuid"])
    if one.keeps_identity:
        if db.has_uuid("VM", uuid):
            destroy_vm(one.context, db.by_uuid("VM", uuid))
        fields |= {"uuid": uuid, "version": cast(int, fields["version"]) + 1}
        seed = _seed_of(each) or pool.new_uuid()
    else:
        seed = one.seeds.setdefault(str(each.record["snapshot_of"]), "") or pool.new_uuid()
        fields |= {"uuid": pool.new_uuid(), "version": 0}
    one.seeds[each.id] = seed
    suspend_vdi = one.ref(each.record["suspend_VDI"])
    is_suspended = fields["power_state"] == "Suspended" and suspend_vdi != NULL_REF
    other_config = {**cast("dict[str, str]", fields["other_config"]), "mac_seed": seed, "import_task": one.task}
    fields |= {
        "other_config": other_config,
        "platform": _with_device_model(fields),
        "power_state": "Suspended" if is_suspended else "Halted",
        "suspend_VDI": suspend_vdi if is_suspended else NULL_REF,
        "affinity": one.ref(each.record["affinity"]),
        "snapshot_of": one.ref(each.record["snapshot_of"]),
        "generation_id": _fresh_generation(one.context, str(fields["generation_id"])),
        "metrics": new_metrics(one.context),
    }
    return db.create("VM", fields)


_NEVER_TAKEN = frozenset(
    """
    allowed_operations current_operations resident_on scheduled_to_be_resident_on domid consoles metrics guest_metrics
    blocked_operations appliance snapshot_schedule protection_policy parent crash_dumps blobs groups suspend_SR
    attached_PCIs
    """.split()
)


def _accepted(one: _Import, cls: str, each: OvaObject) -> Fields:
    """Return the record's plain fields converted to the datamodel's types."""
    db = one.context.db
    enums = db.datamodel.enums
    fields: Fields = {"domid": -1} if cls == "VM" else {}
    for name, spec in db.table(cls).fields.items():
        if name in each.record and name not in _NEVER_TAKEN and spec.computed_from is None:
            fields[name] = spec.type.accept(each.record[name], enums)
    return fields


def _with_device_model(fields: Fields) -> dict[str, str]:
    platform = {**cast("dict[str, str]", fields["platform"])}
    if fields["HVM_boot_policy"] and "device-model" not in platform:
        firmware = cast("dict[str, str]", fields["HVM_boot_params"]).get("firmware", "bios")
        platform["device-model"] = "qemu-upstream-uefi" if firmware == "uefi" else "qemu-upstream-compat"
    return platform


def _fresh_generation(context: Context, before: str) -> str:
    if before in ("", "0:0"):
        return before
    digits = int.from_bytes(context.pool.entropy.token_bytes(16), "big")
    return f"{digits >> 65}:{digits & ((1 << 63) - 1)}"


def _make_vbd(one: _Import, each: OvaObject) -> None:
    vdi = one.ref(each.record["VDI"])
    vm = one.ref(each.record["VM"])
    is_empty = vdi == NULL_REF
    if is_empty and each.record["type"] == "Disk":
        return  # a disk that is missing was allowed to be
    fields = _accepted(one, "VBD", each)
    changes: Fields = {
        "VM": vm,
        "VDI": vdi,
        "empty": is_empty,
        "currently_attached": one.context.db.text("VM", vm, "power_state") == "Suspended",
        "metrics": f"OpaqueRef:{one.context.pool.new_uuid()}",
    }
    one.context.db.create("VBD", {**fields, **changes, "uuid": _identity(one, "VBD", each)})


def _make_vif(one: _Import, each: OvaObject) -> None:
    vm = one.ref(each.record["VM"])
    fields = _accepted(one, "VIF", each)
    changes: Fields = {
        "VM": vm,
        "network": one.ref(each.record["network"]),
        "currently_attached": one.context.db.text("VM", vm, "power_state") == "Suspended",
        "metrics": f"OpaqueRef:{one.context.pool.new_uuid()}",
    }
    if not one.keeps_identity:
        seed = one.seeds[str(each.record["VM"])]
        changes |= {"MAC": derived_mac(seed, str(fields["device"])), "MAC_autogenerated": True}
    one.context.db.create("VIF", {**fields, **changes, "uuid": _identity(one, "VIF", each)})


def _identity(one: _Import, cls: str, each: OvaObject) -> str:
    uuid = str(each.record["uuid"])
    if one.keeps_identity and not one.context.db.has_uuid(cls, uuid):
        return uuid
    return one.context.pool.new_uuid()
