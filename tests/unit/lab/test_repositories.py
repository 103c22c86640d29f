"""Storage repositories: what their drivers can do, how their life goes, and what happens when they are full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdfast.lab import RunningLab
from holdfast.lab.disks import DiskFull
from holdfast.lab.volumes import begin_epoch
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import ended, refusal

pytestmark = pytest.mark.slow(reason="a lab of its own, and disks that are really written")

MIB = 1 << 20
GIB = 1 << 30
NO_SPACE = ["SR_BACKEND_FAILURE_44", "", "There is insufficient space", ""]
NULL = "OpaqueRef:NULL"


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    with tiny_lab(scenario="empty", nbd="none") as running:
        yield running


@pytest.fixture
def session(lab: RunningLab) -> Iterator[Any]:
    with logged_in(lab) as session:
        yield session


def new_sr(api: Any, kind: str, *, size_bytes: int = GIB, config: dict[str, str] | None = None) -> str:
    (host,) = api.host.get_all()
    given = config or {"device": "/dev/sdz"}
    made: str = api.SR.create(host, given, str(size_bytes), kind, "", kind, "user", False, {})
    return made


def new_disk(api: Any, sr: str, size_bytes: int, **changes: Any) -> str:
    record = {"name_label": "d", "name_description": "", "SR": sr, "virtual_size": str(size_bytes), "type": "user"}
    flags = {"sharable": False, "read_only": False, "other_config": {}}
    made: str = api.VDI.create({**record, **flags, **changes})
    return made


def uuid_of(api: Any, disk: str) -> str:
    return str(api.VDI.get_uuid(disk))


# -- what a driver can do


@pytest.mark.parametrize(
    ("kind", "config", "cannot"),
    [
        ("ext", {"device": "/dev/x"}, {"vdi_introduce", "vdi_revert"}),
        ("iso", {"location": "nas:/iso"}, {"vdi_snapshot", "vdi_resize", "vdi_mirror", "vdi_enable_cbt", "update"}),
        ("udev", {"location": "/dev/xapi/cd"}, {"vdi_create", "vdi_destroy", "vdi_snapshot"}),
    ],
)
def test_a_repository_offers_what_its_driver_can_do(
    api: Any, kind: str, config: dict[str, str], cannot: set[str]
) -> None:
    sr = new_sr(api, kind, config=config)
    allowed = set(api.SR.get_allowed_operations(sr))
    assert not allowed & cannot
    assert {"scan", "plug", "unplug", "pbd_create", "pbd_destroy", "vdi_clone"} <= allowed


def test_what_a_driver_cannot_do_is_refused_before_the_disk_is_looked_at(api: Any) -> None:
    sr = new_sr(api, "iso", config={"location": "nas:/iso"})
    disk = new_disk(api, sr, MIB)
    for call in (api.VDI.snapshot, api.VDI.enable_cbt, api.VDI.data_destroy):
        assert refusal(partial(call, disk)) == ["SR_OPERATION_NOT_SUPPORTED", sr]
    assert set(api.VDI.get_allowed_operations(disk)) == {"copy", "destroy", "forget"}


@pytest.mark.parametrize(
    ("kind", "config", "code"),
    [
        ("ext", {}, "SR_BACKEND_FAILURE_90"),
        ("nfs", {"serverpath": "/x"}, "SR_BACKEND_FAILURE_102"),
        ("nfs", {"server": "nas"}, "SR_BACKEND_FAILURE_101"),
        ("lvmoiscsi", {"target": "10.0.0.1"}, "SR_BACKEND_FAILURE_96"),
        ("tape", {}, "SR_UNKNOWN_DRIVER"),
    ],
)
def test_a_repository_that_cannot_be_made_leaves_no_record(
    api: Any, kind: str, config: dict[str, str], code: str
) -> None:
    (host,) = api.host.get_all()
    before = set(api.SR.get_all()), set(api.PBD.get_all())
    assert refusal(lambda: api.SR.create(host, config, "0", "x", "", kind, "user", False, {}))[0] == code
    assert (set(api.SR.get_all()), set(api.PBD.get_all())) == before


# -- its life


def test_what_was_forgotten_is_found_again_by_a_scan(lab: RunningLab, api: Any) -> None:
    sr = new_sr(api, "lvm")
    disk = new_disk(api, sr, 4 * MIB, name_label="kept")
    uuid, content = uuid_of(api, disk), os.urandom(MIB)
    lab.pool.disks.write(uuid, 0, content)
    snapshot = api.VDI.snapshot(disk)
    api.VDI.forget(disk)
    assert refusal(lambda: api.VDI.get_by_uuid(uuid)) == ["UUID_INVALID", "VDI", uuid]
    api.SR.scan(sr)
    found = api.VDI.get_by_uuid(uuid)
    assert (found != disk, api.VDI.get_name_label(found), api.VDI.get_virtual_size(found)) == (
        True,
        "kept",
        str(4 * MIB),
    )
    assert lab.pool.disks.read(uuid, 0, MIB) == content
    assert api.VDI.get_sm_config(found) == {**api.VDI.get_sm_config(snapshot)}


def test_a_repository_that_was_forgotten_is_introduced_with_all_it_holds(lab: RunningLab, api: Any) -> None:
    (host,) = api.host.get_all()
    sr = new_sr(api, "nfs", config={"server": "nas", "serverpath": "/vm"})
    record = api.SR.get_record(sr)
    disk = new_disk(api, sr, 4 * MIB)
    lab.pool.disks.write(uuid_of(api, disk), 0, b"x")
    api.VDI.snapshot(disk)
    uuids = {each["uuid"] for each in api.VDI.get_all_records().values() if each["SR"] == sr}
    assert refusal(lambda: api.SR.forget(sr)) == ["SR_HAS_PBD", sr]
    api.PBD.unplug(record["PBDs"][0])
    assert refusal(lambda: api.VDI.snapshot(disk)) == ["SR_HAS_NO_PBDS", sr]
    assert refusal(lambda: api.SR.destroy(sr)) == ["SR_NOT_EMPTY"]
    api.SR.forget(sr)
    assert record["uuid"] in api.SR.probe(host, {"server": "nas", "serverpath": "/vm"}, "nfs", {})
    assert record["uuid"] not in api.SR.probe(host, {"server": "nas", "serverpath": "/other"}, "nfs", {})
    again = api.SR.introduce(record["uuid"], "back", "", "nfs", "user", False, {})
    assert refusal(lambda: api.SR.introduce(record["uuid"], "", "", "nfs", "", False, {})) == [
        "SR_UUID_EXISTS",
        record["uuid"],
    ]
    pbd = api.PBD.create({"host": host, "SR": again, "device_config": {"server": "nas", "serverpath": "/vm"}})
    api.PBD.plug(pbd)
    api.SR.scan(again)
    found = [each for each in api.VDI.get_all_records().values() if each["SR"] == again]
    assert {each["uuid"] for each in found} == uuids
    assert sorted(each["managed"] for each in found) == [False, True, True]
    assert api.SR.get_physical_size(again) == record["physical_size"]


def test_a_destroyed_repository_takes_its_base_copies_with_it(lab: RunningLab, api: Any) -> None:
    sr = new_sr(api, "ext")
    disk = new_disk(api, sr, 4 * MIB)
    lab.pool.disks.write(uuid_of(api, disk), 0, b"x")
    snapshot = api.VDI.snapshot(disk)
    before = set(lab.pool.disks.uuids())
    api.VDI.destroy(disk)
    api.VDI.destroy(snapshot)
    api.PBD.unplug(api.SR.get_PBDs(sr)[0])
    api.SR.add_to_other_config(sr, "indestructible", "true")
    assert refusal(lambda: api.SR.destroy(sr)) == ["SR_INDESTRUCTIBLE", sr]
    api.SR.remove_from_other_config(sr, "indestructible")
    api.SR.destroy(sr)
    assert len(before - set(lab.pool.disks.uuids())) == 3
    assert refusal(lambda: api.SR.get_uuid(sr)) == ["HANDLE_INVALID", "SR", sr]


def test_a_way_in_use_is_not_taken_away(lab: RunningLab, api: Any) -> None:
    sr = new_sr(api, "ext")
    (pbd,) = api.SR.get_PBDs(sr)
    disk = new_disk(api, sr, 4 * MIB)
    vbd = lab.pool.db.create(
        "VBD", {"VM": lab.pool.control_domain_ref, "VDI": disk, "mode": "RO", "currently_attached": True}
    )
    assert refusal(lambda: api.PBD.unplug(pbd)) == ["VDI_IN_USE", disk]
    assert refusal(lambda: api.PBD.destroy(pbd)) == ["OPERATION_NOT_ALLOWED", "PBD is currently attached"]
    lab.pool.db.destroy("VBD", vbd)
    api.PBD.unplug(pbd)
    assert "destroy" not in api.SR.get_allowed_operations(sr)


def test_a_password_becomes_a_secret_that_goes_with_the_way(api: Any) -> None:
    (host,) = api.host.get_all()
    sr = api.SR.introduce("", "s", "", "smb", "user", False, {})
    pbd = api.PBD.create({"host": host, "SR": sr, "device_config": {"server": "nas", "cifspassword": "hush"}})
    config = api.PBD.get_device_config(pbd)
    secret = api.secret.get_by_uuid(config.pop("cifspassword_secret"))
    assert (config, api.secret.get_value(secret)) == ({"server": "nas"}, "hush")
    api.PBD.destroy(pbd)
    assert refusal(lambda: api.secret.get_value(secret)) == ["HANDLE_INVALID", "secret", secret]


def test_an_operation_on_a_disk_shows_on_its_repository(lab: RunningLab, api: Any) -> None:
    sr = new_sr(api, "ext")
    with lab.pool.operations.running("SR", sr, "vdi_create", task="t", check=lambda: None):
        assert api.SR.get_current_operations(sr) == {"t": "vdi_create"}
        assert api.SR.get_allowed_operations(sr) == []
        task = api.Async.SR.scan(sr)
        assert api.task.get_status(task) == "pending"
    assert ended(lab, task)["status"] == "success"


# -- space


def test_a_thin_repository_gives_out_more_than_it_has_until_it_is_written(lab: RunningLab, api: Any) -> None:
    sr = new_sr(api, "ext", size_bytes=64 * MIB)
    disk = new_disk(api, sr, GIB)
    lab.pool.disks.write(uuid_of(api, disk), 0, os.urandom(50 * MIB))
    with pytest.raises(DiskFull):
        lab.pool.disks.write(uuid_of(api, disk), 100 * MIB, os.urandom(20 * MIB))
    lab.pool.disks.write(uuid_of(api, disk), 0, os.urandom(MIB))
    api.SR.scan(sr)
    assert 50 * MIB < int(api.SR.get_physical_utilisation(sr)) < 64 * MIB
    assert api.SR.get_virtual_allocation(sr) == str(GIB)


def test_a_thick_repository_takes_the_whole_size_at_once(lab: RunningLab, api: Any) -> None:
    sr = new_sr(api, "lvm", size_bytes=200 * MIB)
    disk = new_disk(api, sr, 64 * MIB)
    taken_bytes = int(api.VDI.get_physical_utilisation(disk))
    assert 64 * MIB < taken_bytes < 80 * MIB
    assert refusal(lambda: new_disk(api, sr, 128 * MIB)) == NO_SPACE
    snapshot = api.VDI.snapshot(disk)
    assert int(api.VDI.get_physical_utilisation(snapshot)) < 16 * MIB
    api.VDI.clone(snapshot)


def test_a_thick_snapshot_needs_room_for_the_disk_as_it_may_become(lab: RunningLab, api: Any) -> None:
    sr = new_sr(api, "lvm", size_bytes=110 * MIB)
    disk = new_disk(api, sr, 64 * MIB)
    lab.pool.disks.write(uuid_of(api, disk), 0, os.urandom(60 * MIB))
    assert refusal(lambda: api.VDI.snapshot(disk)) == NO_SPACE
    assert refusal(lambda: api.VDI.resize(disk, str(128 * MIB))) == NO_SPACE
    api.VDI.destroy(disk)
    new_disk(api, sr, 64 * MIB)


def test_a_collected_thick_disk_has_its_whole_size_again(lab: RunningLab, api: Any) -> None:
    sr = new_sr(api, "lvm")
    disk = new_disk(api, sr, 64 * MIB)
    alone_bytes = int(api.SR.get_physical_utilisation(sr))
    lab.pool.disks.write(uuid_of(api, disk), 0, os.urandom(8 * MIB))
    snapshot = api.VDI.snapshot(disk)
    assert int(api.SR.get_physical_utilisation(sr)) > alone_bytes + 8 * MIB
    api.VDI.destroy(snapshot)
    lab.control.advance(330)
    assert int(api.SR.get_physical_utilisation(sr)) == alone_bytes
    assert "vhd-parent" not in api.VDI.get_sm_config(disk)


def test_a_raw_volume_has_no_snapshots_and_is_cloned_by_copying(lab: RunningLab, api: Any) -> None:
    sr = new_sr(api, "lvm")
    disk = new_disk(api, sr, 8 * MIB, sm_config={"type": "raw"})
    lab.pool.disks.write(uuid_of(api, disk), 0, b"content")
    assert refusal(lambda: api.VDI.snapshot(disk)) == ["UNIMPLEMENTED_IN_SM_BACKEND", sr]
    assert refusal(lambda: api.VDI.enable_cbt(disk))[0] == "SR_BACKEND_FAILURE_66"
    assert api.VDI.checksum(api.VDI.clone(disk)) == api.VDI.checksum(disk)
    assert len(api.SR.get_VDIs(sr)) == 2


def test_a_copy_into_a_full_repository_leaves_nothing(lab: RunningLab, api: Any) -> None:
    source = new_disk(api, new_sr(api, "ext"), 64 * MIB)
    lab.pool.disks.write(uuid_of(api, source), 0, os.urandom(40 * MIB))
    sr = new_sr(api, "ext", size_bytes=16 * MIB)
    assert refusal(lambda: api.VDI.copy(source, sr, NULL, NULL))[0] == "VDI_COPY_FAILED"
    assert api.SR.get_VDIs(sr) == []


# -- formats and sizes


def test_vhd_ends_below_two_tib_and_qcow2_goes_on(lab: RunningLab, api: Any) -> None:
    sr = new_sr(api, "ext", size_bytes=4 * GIB)
    assert refusal(lambda: new_disk(api, sr, 2041 * GIB))[0] == "SR_BACKEND_FAILURE_79"
    disk = new_disk(api, sr, 3000 * GIB, sm_config={"image-format": "qcow2"})
    uuid, end_bytes = uuid_of(api, disk), 3000 * GIB
    lab.pool.disks.write(uuid, end_bytes - 4096, b"end")
    snapshot = api.VDI.snapshot(disk)
    assert lab.pool.disks.read(uuid_of(api, snapshot), end_bytes - 4096, 3) == b"end"
    assert api.VDI.get_sm_config(disk)["image-format"] == "qcow2"
    assert refusal(lambda: new_disk(api, sr, 16_382 * GIB, sm_config={"image-format": "qcow2"}))[0].endswith("79")


def test_an_attachment_may_prefer_a_format(api: Any) -> None:
    config = {"device": "/dev/sdq", "preferred-image-formats": "qcow2"}
    sr = new_sr(api, "ext", config=config)
    assert api.VDI.get_sm_config(new_disk(api, sr, MIB)) == {"image-format": "qcow2"}
    assert (
        refusal(
            lambda: new_disk(
                api, new_sr(api, "smb", config={"server": "nas"}), MIB, sm_config={"image-format": "qcow2"}
            )
        )[0]
        == "SR_BACKEND_FAILURE_79"
    )


def test_a_disk_never_shrinks(api: Any) -> None:
    disk = new_disk(api, new_sr(api, "ext"), 8 * MIB)
    assert refusal(lambda: api.VDI.resize(disk, str(4 * MIB))) == [
        "SR_BACKEND_FAILURE_79",
        "",
        "VDI Invalid size [opterr=shrinking not allowed]",
        "",
    ]
    api.VDI.resize(disk, str(9 * MIB))
    assert api.VDI.get_virtual_size(disk) == str(10 * MIB)


# -- tracking that stops by itself


def messages(api: Any, disk: str) -> list[str]:
    uuid = uuid_of(api, disk)
    return [each["name"] for each in api.message.get_all_records().values() if each["obj_uuid"] == uuid]


def test_a_log_left_in_doubt_by_a_crash_ends_tracking_at_the_next_use(lab: RunningLab, api: Any) -> None:
    disk = new_disk(api, new_sr(api, "ext"), 8 * MIB)
    api.VDI.enable_cbt(disk)
    lab.pool.disks.break_log(uuid_of(api, disk))
    assert api.VDI.get_cbt_enabled(disk)
    api.VDI.copy(new_disk(api, api.VDI.get_SR(disk), 4 * MIB), NULL, NULL, disk)
    assert not api.VDI.get_cbt_enabled(disk)
    assert messages(api, disk) == ["VDI_CBT_METADATA_INCONSISTENT"]


def test_a_thick_repository_tracks_disks_up_to_two_tib(api: Any) -> None:
    sr = new_sr(api, "lvm", size_bytes=8192 * GIB)
    large = new_disk(api, sr, 2100 * GIB, sm_config={"image-format": "qcow2"})
    assert refusal(lambda: api.VDI.enable_cbt(large))[0] == "SR_BACKEND_FAILURE_457"
    disk = new_disk(api, sr, 1000 * GIB, sm_config={"image-format": "qcow2"})
    api.VDI.enable_cbt(disk)
    api.VDI.resize(disk, str(2100 * GIB))
    assert (api.VDI.get_cbt_enabled(disk), messages(api, disk)) == (False, ["VDI_CBT_RESIZE_FAILED"])


# -- disks that are reset on boot


def test_a_disk_that_is_reset_on_boot_forgets_at_each_start(lab: RunningLab, api: Any) -> None:
    sr = new_sr(api, "ext")
    disk = new_disk(api, sr, 8 * MIB)
    uuid = uuid_of(api, disk)
    lab.pool.disks.write(uuid, 0, b"kept")
    api.VDI.enable_cbt(disk)
    assert refusal(lambda: api.VDI.set_on_boot(disk, "reset")) == ["VDI_CBT_ENABLED", disk]
    api.VDI.disable_cbt(disk)
    api.VDI.set_on_boot(disk, "reset")
    assert refusal(lambda: api.VDI.snapshot(disk)) == ["VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"]
    for _ in range(2):
        begin_epoch(lab.pool, disk)
        assert lab.pool.disks.read(uuid, 0, 5) == b"kept\0"
        lab.pool.disks.write(uuid, 0, b"lost!")
    api.VDI.set_on_boot(disk, "persist")
    begin_epoch(lab.pool, disk)
    assert lab.pool.disks.read(uuid, 0, 5) == b"lost!"


def test_a_restarted_lab_takes_the_collection_up_again(tmp_path: Path) -> None:
    with tiny_lab(tmp_path, scenario="empty", nbd="none") as first, logged_in(first) as session:
        (sr,) = session.xenapi.SR.get_all()
        disk = new_disk(session.xenapi, sr, 8 * MIB)
        uuid = uuid_of(session.xenapi, disk)
        first.pool.disks.write(uuid, 0, b"x")
        session.xenapi.VDI.destroy(session.xenapi.VDI.snapshot(disk))
        first.pool.db.put_key("VDI", disk, "sm_config", key="relinking", value="true")
    with tiny_lab(tmp_path, scenario="empty", nbd="none") as again, logged_in(again) as session:
        assert "relinking" not in session.xenapi.VDI.get_sm_config(disk)
        again.control.advance(301)
        assert session.xenapi.VDI.get_sm_config(disk) == {}


# -- the pool of the recordings: plain images


@pytest.fixture
def plain() -> Iterator[Any]:
    with tiny_lab(scenario="recorded", nbd="none") as lab, logged_in(lab) as session:
        yield lab, session.xenapi


def test_a_driver_of_plain_images_compares_contents(plain: Any) -> None:
    lab, api = plain
    (sr,) = api.SR.get_all()
    one, two = new_disk(api, sr, MIB), new_disk(api, sr, MIB)
    for disk, data in ((one, b"same"), (two, b"same")):
        lab.pool.disks.write(uuid_of(api, disk), 0, data)
    lab.pool.disks.write(uuid_of(api, two), 9 * 64 * 1024, b"other")
    assert api.VDI.list_changed_blocks(one, one) == "AAA="
    assert api.VDI.list_changed_blocks(one, two) == "AEA="


def test_nothing_is_done_on_a_repository_that_is_detached(plain: Any) -> None:
    _, api = plain
    (sr,), (pbd,) = api.SR.get_all(), api.PBD.get_all()
    disk = new_disk(api, sr, MIB)
    api.PBD.unplug(pbd)
    for call in (api.VDI.destroy, api.VDI.snapshot, api.VDI.clone, api.VDI.enable_cbt, api.VDI.update):
        assert refusal(partial(call, disk)) == ["SR_HAS_NO_PBDS", sr]
    assert refusal(lambda: api.VDI.resize(disk, str(2 * MIB))) == ["SR_HAS_NO_PBDS", sr]
    assert refusal(lambda: api.VDI.set_name_label(disk, "x")) == ["SR_HAS_NO_PBDS", sr]
    assert refusal(lambda: api.VDI.checksum(disk)) == ["NO_HOSTS_AVAILABLE"]
    assert refusal(lambda: api.VDI.copy(disk, sr, NULL, NULL)) == ["INTERNAL_ERROR", "Not_found"]
    api.VDI.add_to_other_config(disk, "k", "v")
    api.PBD.plug(pbd)
    api.VDI.destroy(disk)


def test_a_repository_of_one_host_has_one_way_or_nothing_is_done_on_it(plain: Any) -> None:
    _, api = plain
    (host,) = api.host.get_all()
    sr = api.SR.introduce("bbbbbbbb-0000-4000-8000-000000000001", "two", "", "file", "user", False, {})
    way = {"SR": sr, "device_config": {"location": "/srv"}, "other_config": {}}
    first = api.PBD.create({**way, "host": host})
    api.PBD.plug(first)
    second = api.PBD.create({**way, "host": NULL})
    uuids = [api.PBD.get_uuid(pbd) for pbd in (second, first)]
    told = f"Storage_error ([S(Internal_error);S(Server_error(SR_HAS_MULTIPLE_PBDS, [ {'; '.join(uuids)} ]))])"
    assert refusal(lambda: api.SR.scan(sr)) == ["INTERNAL_ERROR", told]
    assert refusal(lambda: new_disk(api, sr, MIB)) == ["SR_HAS_MULTIPLE_PBDS", *uuids]
    assert refusal(lambda: api.PBD.unplug(first)) == ["SR_HAS_MULTIPLE_PBDS", *uuids]
    api.PBD.destroy(second)
    api.PBD.unplug(first)
    api.PBD.create({**way, "host": NULL})
    assert refusal(lambda: api.PBD.plug(first))[0] == "INTERNAL_ERROR"
    api.SR.set_shared(sr, True)
    api.PBD.plug(first)
    api.PBD.unplug(first)
    api.SR.forget(sr)


def test_a_virtual_disk_is_not_looked_at_again_when_its_disk_is_forgotten(plain: Any) -> None:
    _, api = plain
    (sr,) = api.SR.get_all()
    (control,) = [vm for vm in api.VM.get_all() if api.VM.get_is_control_domain(vm)]
    disk = new_disk(api, sr, MIB)
    record = {"VM": control, "VDI": disk, "userdevice": "autodetect", "mode": "RO", "type": "Disk", "empty": False}
    more = {"bootable": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    vbd = api.VBD.create({**record, **more})
    before = api.VBD.get_allowed_operations(vbd)
    api.VDI.forget(disk)
    assert api.VBD.get_allowed_operations(vbd) == before != []
    assert refusal(lambda: api.VBD.plug(vbd)) == ["HANDLE_INVALID", "VDI", disk]
    api.VBD.destroy(vbd)


def test_a_detached_disk_is_not_attached_copied_onto_or_moved(plain: Any) -> None:
    _, api = plain
    (host,) = api.host.get_all()
    (sr,) = api.SR.get_all()
    other = api.SR.create(host, {"location": "/srv/other"}, "0", "other", "", "file", "user", False, {})
    disk, away = new_disk(api, sr, MIB), new_disk(api, other, MIB)
    (control,) = [vm for vm in api.VM.get_all() if api.VM.get_is_control_domain(vm)]
    record = {"VM": control, "VDI": away, "userdevice": "autodetect", "mode": "RO", "type": "Disk", "empty": False}
    more = {"bootable": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    vbd = api.VBD.create({**record, **more})
    before = set(api.VDI.get_allowed_operations(away))
    api.PBD.unplug(api.SR.get_PBDs(other)[0])
    assert refusal(lambda: api.VBD.plug(vbd)) == ["SR_NOT_ATTACHED", other]
    assert refusal(lambda: api.VDI.copy(disk, NULL, NULL, away)) == ["NO_HOSTS_AVAILABLE"]
    assert refusal(lambda: api.VDI.copy(disk, NULL, NULL, sr)) == ["HANDLE_INVALID", "VDI", sr]
    assert set(api.VDI.get_allowed_operations(away)) == before
    api.VBD.destroy(vbd)
    api.SR.forget(other)
    api.VDI.destroy(disk)
