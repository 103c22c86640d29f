"""Restore points in a repository in memory, with records as rich as a test wants them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holdfast.model import DiskUuid, JsonObject, PointFacts, RunId, VmUuid
from holdfast.repository import RestorePoint
from tests.support.repositories import World, disk_facts, point_facts, write_whole

__all__ = ["make_point", "saved_vm"]


def saved_vm(**fields: Any) -> JsonObject:
    """Return what a point keeps of a VM with two cards; ``fields`` are those of its VM record."""
    record = {
        "uuid": "vm-web",
        "name_label": "web",
        "is_a_template": False,
        "power_state": "Running",
        "affinity": "OpaqueRef:host",
        "appliance": "OpaqueRef:NULL",
        "suspend_SR": "OpaqueRef:NULL",
        "generation_id": "1:2",
        "other_config": {"mac_seed": "seed", "holdfast:run": "r", "folder": "prod", "import_task": "x"},
        "order": "3",
        "start_delay": "10",
        "VTPMs": [],
        "VGPUs": [],
        **fields,
    }
    cards = [
        {"position": "0", "mac": "02:00:00:00:00:01", "network_uuid": "net-1", "network_name": "lan", "record": {}},
        {"position": "1", "mac": "02:00:00:00:00:02", "network_uuid": "net-9", "network_name": "dmz", "record": {}},
    ]
    vbds = [
        {"userdevice": "0", "type": "Disk", "VDI": "OpaqueRef:disk"},
        {"userdevice": "3", "type": "CD", "VDI": "OpaqueRef:iso", "bootable": False},
        {"userdevice": "4", "type": "CD", "VDI": "OpaqueRef:NULL"},
    ]
    return {"VM": record, "VBD": vbds, "cards": cards}  # type: ignore[dict-item]


def make_point(
    world: World, *images: bytes, record: JsonObject | None = None, metadata: bytes = b"", run: str = "r-1"
) -> RestorePoint:
    """Back up a VM whose disks have this content."""
    facts: PointFacts = replace(
        point_facts(run, vm=VmUuid("vm-web"), name="web"),
        vm_record=record if record is not None else saved_vm(),
        vm_metadata=metadata,
    )
    with world.begin(run) as writer:
        disks = [
            (
                replace(
                    disk_facts(len(image), name=f"disk {position}"),
                    uuid=DiskUuid(f"old-{position}"),
                    position=str(position),
                    bootable=position == 0,
                    vdi_record={
                        "name_description": "what it is",
                        "tags": ["gold"],
                        "other_config": {"holdfast:run": "r", "content_id": "c", "config-drive": "true"},
                    },
                ),
                write_whole(writer, image),
            )
            for position, image in enumerate(images)
        ]
        return writer.publish(replace(facts, run=RunId(run)), disks)
