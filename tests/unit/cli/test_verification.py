"""What damage is in words: first what each VM has lost, then the objects, of very many the first ones."""

from __future__ import annotations

from holdfast.cli.verification import explain_damage
from holdfast.model import Extent, PointId, VmUuid
from holdfast.repository import DamageFound, HitDisk

WEB, OTHER_WEB = VmUuid("vm-1"), VmUuid("vm-2")


def hit(point: int, *, vm: VmUuid = WEB, position: str = "0", lost_bytes: int = 65536) -> HitDisk:
    extents = (Extent(offset_bytes=131072, length_bytes=lost_bytes),) if lost_bytes else ()
    return HitDisk(
        point=PointId(f"20261120T0908{point:02d}Z-aaaaaaaa"),
        vm_uuid=vm,
        vm_name="web",
        disk_name="root",
        position=position,
        lost_bytes=lost_bytes,
        extents=extents,
    )


def damage(number: int, *hits: HitDisk) -> DamageFound:
    return DamageFound(object=f"packs/{number}", slots=(3,), reason="its seal does not match", hits=hits)


def test_what_a_vm_has_lost_comes_first_and_adds_up_in_each_point() -> None:
    lines = explain_damage([damage(1, hit(2), hit(1)), damage(2, hit(2), hit(2, position="1"))])
    assert lines[:3] == [
        "VM 'web': 2 restore points, 20261120T090801Z-aaaaaaaa to 20261120T090802Z-aaaaaaaa, have lost data",
        "  disk 0 'root': up to 128 KiB in one of them",
        "  disk 1 'root': up to 64.0 KiB in one of them",
    ]
    assert lines[3] == "damaged: packs/1 slots 3: its seal does not match"
    assert lines[4].endswith("in point 20261120T090802Z-aaaaaaaa: 64.0 KiB lost, at byte 131072")


def test_vms_of_one_name_are_told_apart_and_a_lost_map_is_called_so() -> None:
    lines = explain_damage([damage(1, hit(1, lost_bytes=0)), damage(2, hit(2, vm=OTHER_WEB))])
    assert lines[:4] == [
        "VM 'web': restore point 20261120T090801Z-aaaaaaaa has lost data",
        "  disk 0 'root': its map is damaged",
        "VM 'web': restore point 20261120T090802Z-aaaaaaaa has lost data",
        "  disk 0 'root': 64.0 KiB",
    ]


def test_a_pack_that_a_hundred_points_share_takes_a_few_lines() -> None:
    lines = explain_damage([damage(1, *map(hit, range(60)))])
    assert len(lines) == 2 + 1 + 6 + 1
    assert lines[-1] == "  and 54 more disks of restore points"


def test_of_a_thousand_damaged_objects_the_first_ones_are_told() -> None:
    lines = explain_damage([damage(number) for number in range(1000)])
    assert lines[-1] == "… and 960 more damaged objects; --json names all of them"
    assert len(lines) == 81


def test_no_damage_is_no_line() -> None:
    assert explain_damage([]) == []
