"""What an export says about VMs: which objects hang on them, under which names, with which fields.

Names are counted through for the life of the pool, so no two exports use the same. A field that nobody set can get a
name, too: the null of a VM's metrics or host stands in the list of names, and then for every null that is looked up.
Invariant: only the fields named here are translated; every other reference stays as the pool knows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from holdfast.lab.context import PoolCore
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.ova_document import OvaObject
from holdfast.lab.records import Records
from holdfast.lab.vtpm import vtpm_contents

__all__ = ["Collection", "Wishes", "pool_version"]

ARCHIVE_VERSION = 2

_ORDER = (
    "host",
    "VM",
    "VM_metrics",
    "VM_guest_metrics",
    "VBD",
    "VIF",
    "network",
    "VDI",
    "SR",
    "VGPU_type",
    "VGPU",
    "GPU_group",
    "PVS_proxy",
    "PVS_site",
    "VTPM",
)

_IDLE: Fields = {"current_operations": {}, "allowed_operations": []}
_BARE_LISTS = """
    PIFs PBDs PGPUs PCIs host_CPUs patches crashdumps supported_bootloaders capabilities ha_statefiles
    ha_network_peers tags
    """
_BARE_MAPS = """
    license_params blobs external_auth_configuration logging cpu_configuration other_config software_version
    """
_BARE_WORDS = "external_auth_type external_auth_service_name sched_policy"
_BARE_HOST: Fields = {
    **{name: [] for name in _BARE_LISTS.split()},
    **{name: {} for name in _BARE_MAPS.split()},
    **dict.fromkeys(_BARE_WORDS.split(), ""),
    "metrics": NULL_REF,
}
"""What no export tells about a host."""

_UNRELATED: Fields = {
    "is_a_snapshot": False,
    "snapshot_of": NULL_REF,
    "snapshots": [],
    "snapshot_time": EPOCH,
    "transportable_snapshot_id": "",
    "parent": NULL_REF,
}
"""What makes a VM in an export without snapshots stand alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What an export shall hold."""

    snapshots: bool = False
    power_state: bool = False
    """Whether a suspended VM stays one, with the image of its memory."""
    vhd_parents: bool = False
    excluded: frozenset[str] = frozenset()
    """Kinds of devices that are left out: vif, vbd, vgpu, vtpm."""


@dataclass(slots=True)
class Collection:
    """The objects of one export, in the order in which they were met."""

    pool: PoolCore
    wishes: Wishes
    names: dict[str, str] = field(default_factory=dict)
    _members: dict[str, list[str]] = field(default_factory=dict)

    def add_vm(self, vm: str, *, with_snapshots: bool | None = None) -> None:
        """Add a VM with all that hangs on it. Safe to call twice."""
        db = self.pool.db
        if not db.exists("VM", vm) or vm in self.names:
            return
        follows = self.wishes.snapshots if with_snapshots is None else with_snapshots
        self._add("VM", vm)
        self._add_devices(vm)
        if follows:
            for snapshot in db.texts("VM", vm, "snapshots"):
                self.add_vm(snapshot, with_snapshots=False)
        image = db.text("VM", vm, "suspend_VDI")
        if self.wishes.power_state and db.text("VM", vm, "power_state") == "Suspended" and db.exists("VDI", image):
            self._add_disk(image)
        self._add("VM_metrics", db.text("VM", vm, "metrics"))
        self._add("VM_guest_metrics", db.text("VM", vm, "guest_metrics"))
        self._add("host", db.text("VM", vm, "resident_on"))
        self._add("host", db.text("VM", vm, "affinity"))
        if follows:
            self.add_vm(db.text("VM", vm, "parent"), with_snapshots=False)

    def _add(self, cls: str, ref: str) -> None:
        if ref in self.names:
            return
        self.names[ref] = f"Ref:{next(self.pool.export_names)}"
        if self.pool.db.exists(cls, ref):
            self._members.setdefault(cls, []).append(ref)

    def _add_devices(self, vm: str) -> None:
        db, excluded = self.pool.db, self.wishes.excluded
        if "vif" not in excluded:
            for vif in db.texts("VM", vm, "VIFs"):
                self._add("VIF", vif)
                self._add("network", db.text("VIF", vif, "network"))
        if "vbd" not in excluded:
            for vbd in db.texts("VM", vm, "VBDs"):
                self._add("VBD", vbd)
                if not db.flag("VBD", vbd, "empty"):
                    self._add_disk(db.text("VBD", vbd, "VDI"))
        if "vgpu" not in excluded:
            for vgpu in db.texts("VM", vm, "VGPUs"):
                self._add("VGPU", vgpu)
                self._add("VGPU_type", db.text("VGPU", vgpu, "type"))
                self._add("GPU_group", db.text("VGPU", vgpu, "GPU_group"))
        if "vtpm" not in excluded:
            for vtpm in db.texts("VM", vm, "VTPMs"):
                self._add("VTPM", vtpm)

    def _add_disk(self, vdi: str) -> None:
        """Add a disk with its repository and, on demand, the hidden disks that it stands on."""
        db = self.pool.db
        while True:
            self._add("VDI", vdi)
            self._add("SR", db.text("VDI", vdi, "SR"))
            parent = db.mapping("VDI", vdi, "sm_config").get("vhd-parent", "")
            if not self.wishes.vhd_parents or not db.has_uuid("VDI", parent):
                return
            vdi = db.by_uuid("VDI", parent)
            if vdi in self.names:
                return

    def objects(self) -> list[OvaObject]:
        """Return the records, translated, by class."""
        records = Records(self.pool.db)
        listed: list[OvaObject] = []
        for cls in _ORDER:
            for ref in self._members.get(cls, []):
                record = records.record(cls, self.pool.db.row(cls, ref))
                listed.append(OvaObject(cls, self.names[ref], self._translated(cls, ref, record)))
        return listed

    def _name(self, ref: object) -> str:
        return self.names.get(str(ref), NULL_REF)

    def _filtered(self, refs: object) -> list[str]:
        return [self.names[ref] for ref in cast("list[str]", refs) if ref in self.names]

    def _translated(self, cls: str, ref: str, record: Fields) -> Fields:
        match cls:
            case "host":
                return self._host(record)
            case "VM":
                return self._vm(record)
            case "VTPM":
                return self._vtpm(ref, record)
            case "VM_metrics" | "VM_guest_metrics" | "VGPU_type":
                return record
            case _:
                changes: Fields = {name: value for name, value in _IDLE.items() if name in record}
                return record | changes | self._plain(cls, record)

    def _plain(self, cls: str, record: Fields) -> Fields:
        """Return what differs from the pool's own record for a class without further rules."""
        one: dict[str, tuple[str, ...]] = {
            "VBD": ("VDI", "VM"),
            "VIF": ("network", "VM"),
            "VDI": ("SR",),
            "VGPU": ("GPU_group", "type", "VM"),
        }
        many = {"network": ("VIFs",), "VDI": ("VBDs",), "SR": ("VDIs",), "GPU_group": ("VGPUs",)}
        blank: dict[str, Fields] = {
            "VBD": {"metrics": NULL_REF},
            "VIF": {"metrics": NULL_REF},
            "network": {"PIFs": []},
            "VDI": {"crash_dumps": []},
            "SR": {"PBDs": []},
            "GPU_group": {"PGPUs": []},
        }
        changes: Fields = {name: self._name(record[name]) for name in one.get(cls, ())}
        changes |= {name: self._filtered(record[name]) for name in many.get(cls, ())}
        if "currently_attached" in record and not self.wishes.power_state:
            changes["currently_attached"] = False
        return changes | blank.get(cls, {})

    def _host(self, record: Fields) -> Fields:
        named: Fields = {name: self._name(record[name]) for name in ("crash_dump_sr", "suspend_image_sr")}
        return record | _BARE_HOST | named | {"resident_VMs": self._filtered(record["resident_VMs"])}

    def _vm(self, record: Fields) -> Fields:
        translate: dict[str, Callable[[object], object]] = {
            **dict.fromkeys(("VIFs", "VBDs", "VGPUs", "VTPMs"), self._filtered),
            **dict.fromkeys(("resident_on", "affinity", "metrics", "guest_metrics"), self._name),
        }
        changes: Fields = {name: change(record[name]) for name, change in translate.items()}
        if self.wishes.snapshots:
            changes |= {name: self._name(record[name]) for name in ("snapshot_of", "parent")}
        else:
            changes |= _UNRELATED
        if self.wishes.power_state:
            changes["suspend_VDI"] = self._name(record["suspend_VDI"])
        else:
            changes |= {"power_state": "Halted", "suspend_VDI": NULL_REF}
        changes |= {"crash_dumps": [], "consoles": [], "blobs": {}, "protection_policy": NULL_REF}
        return record | changes | _IDLE

    def _vtpm(self, ref: str, record: Fields) -> Fields:
        """A record of its own: the contents are in no public field."""
        return {
            "vTPM'_VM": self._name(record["VM"]),
            "vTPM'_uuid": record["uuid"],
            "vTPM'_is_unique": record["is_unique"],
            "vTPM'_is_protected": record["is_protected"],
            "vTPM'_content": vtpm_contents(self.pool, ref),
        }


def pool_version(pool: PoolCore) -> dict[str, object]:
    """Return who this pool is, as it stands in its exports and is compared with at imports."""
    software = pool.db.mapping("host", pool.master_ref, "software_version")
    major, _, minor = software.get("xapi", "0.0").partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise ApiFailure("INTERNAL_ERROR", f"unknown version {software.get('xapi')}")
    told: dict[str, object] = {
        name: software.get(name, "")
        for name in ("hostname", "date", "product_version", "product_brand", "build_number")
    }
    return told | {"xapi_major": int(major), "xapi_minor": int(minor), "export_vsn": ARCHIVE_VERSION}
