"""The pool client's whole work on a pool that speaks the real protocols: look, snapshot, read, restore, clean up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast.core import BLOCK_BYTES, MIB, TIB, Cancellation, NoProgress, Secret, SystemEntropy
from holdfast.model import ChangeSource, Coverage, DataRun, PowerState, Reference, VmUuid
from holdfast.xapi import (
    CertificateAuthority,
    CertificateChanged,
    Credentials,
    LoginRefused,
    NoTls,
    PinnedCertificate,
    PoolAddress,
    PoolClient,
    ReadTransport,
    TaggedKind,
    TlsTrust,
    VmUnknown,
    open_pool,
    read_certificate,
)
from tests.contract.pool_world import HurriedClock, World, pool_world
from tests.support.lab import logged_in
from tests.support.qcow2 import SparseDisk
from tests.support.vhd import MemoryDisk, pattern

pytestmark = pytest.mark.slow(reason="each test starts a lab pool on real sockets")

CHANGES = ((5 * MIB + 100, 4096), (20 * MIB, 3 * BLOCK_BYTES), (64 * MIB - 512, 512))
CHANGED_BLOCKS = [80, 320, 321, 322, 1023]


@pytest.fixture
def world() -> Iterator[World]:
    with pool_world() as made:
        yield made


@pytest.fixture
def world_without_nbd() -> Iterator[World]:
    with pool_world(nbd="none") as made:
        yield made


def _connect(world: World, url: str, trust: TlsTrust, *, password: str | None = None) -> PoolClient:
    secret = Secret(password) if password is not None else world.lab.password
    return open_pool(
        PoolAddress.parse(url),
        Credentials(user=world.lab.user, password=secret),
        trust,
        clock=HurriedClock(),
        entropy=SystemEntropy(),
        cancel=Cancellation(),
    )


# --- who answers, and who asks


def test_the_certificate_shown_is_the_pools_and_can_be_trusted_in_every_way(world: World, tmp_path: Path) -> None:
    facts = read_certificate(PoolAddress.parse(world.lab.url))
    assert facts.fingerprint == world.lab.fingerprint
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(facts.pem)
    for url, trust in (
        (world.lab.url, PinnedCertificate(facts.fingerprint)),
        (world.lab.url, CertificateAuthority(ca_file)),
        (world.lab.plain_url, NoTls()),
    ):
        with _connect(world, url, trust) as client:
            assert client.pool == world.pool.pool


def test_a_wrong_password_and_a_wrong_certificate_are_refused(world: World) -> None:
    with pytest.raises(LoginRefused):
        _connect(world, world.lab.url, PinnedCertificate(world.lab.fingerprint), password="wrong")
    with pytest.raises(CertificateChanged):
        _connect(world, world.lab.url, PinnedCertificate("00" * 32))


def test_closing_leaves_no_session_behind(world: World) -> None:
    before = world.lab.control.status()["sessions"]
    with _connect(world, world.lab.url, PinnedCertificate(world.lab.fingerprint)) as client:
        client.inventory()
        client.with_cancel(Cancellation()).close()
        assert client.inventory().vms
    assert world.lab.control.status()["sessions"] == before


# --- what is there


def test_the_inventory_is_what_the_vendors_own_client_sees(world: World) -> None:
    inventory = world.pool.inventory()
    with logged_in(world.lab) as session:
        records = session.xenapi.VM.get_all_records().values()
        expected = {
            record["uuid"]
            for record in records
            if not record["is_a_template"] and not record["is_control_domain"] and not record["is_a_snapshot"]
        }
        assert {vm.uuid for vm in inventory.vms} == expected
        assert inventory.pool.uuid == session.xenapi.pool.get_uuid(session.xenapi.pool.get_all()[0])
    assert [vm.name for vm in inventory.vms] == ["alpha", "beta"]
    assert [each.position for each in inventory.find_vm("beta").disks] == ["0", "1"]
    assert inventory.find_vm("alpha").power_state is PowerState.RUNNING
    assert inventory.default_sr is not None
    with pytest.raises(VmUnknown) as caught:
        inventory.find_vm("alpah")
    assert caught.value.near == "alpha"


def test_one_vm_read_afresh_equals_the_inventorys(world: World) -> None:
    assert world.pool.vm(world.vm.uuid) == world.vm
    with pytest.raises(VmUnknown):
        world.pool.vm(VmUuid("00000000-0000-0000-0000-000000000000"))


def test_a_vm_is_described_with_all_that_belongs_to_it(world: World) -> None:
    described = world.pool.describe_vm(world.vm.uuid)
    vm = described["VM"]
    assert isinstance(vm, dict)
    assert vm["uuid"] == world.vm.uuid
    disks = described["VDI"]
    assert isinstance(disks, list)
    assert [disk["uuid"] for disk in disks if isinstance(disk, dict)] == [world.disk]
    assert described["network"]


# --- snapshots


def test_a_snapshot_is_described_found_again_and_removed_twice(world: World) -> None:
    snapshot = world.snapshot()
    assert list(snapshot.disks) == [world.disk]
    assert world.pool.find_snapshots(world.vm.uuid, name_label="holdfast test") == [snapshot]
    assert world.pool.find_snapshots(world.vm.uuid, name_label="another") == []
    for _ in range(2):
        world.pool.destroy_snapshot(snapshot.vm, keep_disks=False)
        assert world.pool.find_snapshots(world.vm.uuid, name_label="holdfast test") == []
        assert world.pool.disk(snapshot.disks[world.disk]) is None
    assert world.lab.control.ours() == []


def test_a_snapshot_of_a_vm_that_is_gone_is_still_found_by_its_name(world: World) -> None:
    snapshot = world.snapshot()
    world.pool.shutdown_vm(world.vm.uuid)
    world.pool.destroy_vm(world.vm.uuid, with_disks=True)
    found = world.pool.find_snapshots(world.vm.uuid, name_label="holdfast test")
    assert [each.vm for each in found] == [snapshot.vm]


def test_a_snapshots_data_can_go_while_its_changes_stay(world: World) -> None:
    snapshot = world.snapshot()
    disk = snapshot.disks[world.disk]
    world.pool.destroy_snapshot(snapshot.vm, keep_disks=True)
    for _ in range(2):
        world.pool.data_destroy(disk)
        left = world.pool.disk(disk)
        assert left is not None
        assert left.kind == "cbt_metadata"
    for _ in range(2):
        world.pool.destroy_disk(disk)
        assert world.pool.disk(disk) is None


def test_change_tracking_is_switched_on_once() -> None:
    with pool_world(cbt=False) as world:
        first, second = world.pool.enable_cbt(world.disk), world.pool.enable_cbt(world.disk)
        assert (first.enabled, first.switched_on) == (True, True)
        assert (second.enabled, second.switched_on) == (True, False)
        disk = world.pool.disk(world.disk)
        assert disk is not None
        assert disk.cbt_enabled


def test_tags_mark_what_is_ours_and_the_lab_sees_them(world: World) -> None:
    snapshot = world.snapshot("plain name")
    disk = snapshot.disks[world.disk]
    for _ in range(2):
        world.pool.tag(TaggedKind.DISK, disk, "holdfast:run", "r-1")
    world.pool.tag(TaggedKind.VM, snapshot.vm, "holdfast:run", "r-1")
    found = world.pool.find_tagged("holdfast:run")
    assert [(each.kind, each.uuid, each.value) for each in found] == [
        (TaggedKind.VM, snapshot.vm, "r-1"),
        (TaggedKind.DISK, disk, "r-1"),
    ]
    assert len(world.lab.control.ours()) == 2
    for _ in range(2):
        world.pool.untag(TaggedKind.DISK, disk, "holdfast:run")
        world.pool.untag(TaggedKind.VM, snapshot.vm, "holdfast:run")
        assert world.pool.find_tagged("holdfast:run") == []


# --- reading


def test_a_whole_disk_is_read_over_nbd_without_its_holes(world: World) -> None:
    snapshot = world.snapshot()
    plan = world.plan(snapshot)
    assert (plan.source, plan.transport, plan.coverage) == (ChangeSource.FULL, ReadTransport.NBD, Coverage.WHOLE)
    assert plan.planned_bytes < world.vm.provisioned_bytes / 4
    assert world.read(plan) == world.content(snapshot.disks[world.disk])


def test_a_whole_disk_is_read_from_the_export_where_there_is_no_nbd(world_without_nbd: World) -> None:
    world = world_without_nbd
    snapshot = world.snapshot()
    plan = world.plan(snapshot)
    assert (plan.source, plan.transport) == (ChangeSource.FULL, ReadTransport.STREAM)
    assert "purpose 'nbd'" in plan.reason
    assert world.read(plan) == world.content(snapshot.disks[world.disk])


@pytest.mark.parametrize("purged", [False, True])
def test_an_increment_reads_exactly_the_changed_blocks(world: World, purged: bool) -> None:
    first = world.snapshot("holdfast 1")
    reference = Reference(snapshot=first.disks[world.disk], has_data=not purged)
    before = world.content(reference.snapshot)
    if purged:
        world.pool.destroy_snapshot(first.vm, keep_disks=True)
        world.pool.data_destroy(reference.snapshot)
    world.guest_writes(*CHANGES)
    second = world.snapshot("holdfast 2")
    plan = world.plan(second, reference)
    assert (plan.source, plan.coverage) == (ChangeSource.CBT, Coverage.CHANGES)
    assert plan.blocks is not None
    assert plan.blocks.nonzero()[0].tolist() == CHANGED_BLOCKS
    assert world.read(plan, onto=before) == world.content(second.disks[world.disk])


def test_without_nbd_an_increment_is_a_vhd_difference(world_without_nbd: World) -> None:
    world = world_without_nbd
    first = world.snapshot("holdfast 1")
    reference = Reference(snapshot=first.disks[world.disk], has_data=True)
    world.guest_writes(*CHANGES)
    second = world.snapshot("holdfast 2")
    plan = world.plan(second, reference)
    assert (plan.source, plan.coverage) == (ChangeSource.VHD_DIFFERENCE, Coverage.CHANGES)
    assert plan.planned_bytes == 3 * 2 * MIB
    assert world.read(plan, onto=world.content(reference.snapshot)) == world.content(second.disks[world.disk])


def test_a_full_read_can_be_forced(world: World) -> None:
    first = world.snapshot("holdfast 1")
    second = world.snapshot("holdfast 2")
    plan = world.plan(second, Reference(snapshot=first.disks[world.disk], has_data=True), force_full=True)
    assert plan.source is ChangeSource.FULL
    assert "asked for" in plan.reason


# --- restoring


@pytest.mark.parametrize("size_bytes", [8 * MIB, 5 * MIB + 512, MIB])
def test_a_disk_that_is_written_has_the_content_that_was_sent(world: World, size_bytes: int) -> None:
    content = bytearray(size_bytes)
    content[-300:] = pattern(300, seed=1)
    content[: min(size_bytes, 100_000)] = pattern(min(size_bytes, 100_000), seed=2)
    sr = world.pool.inventory().srs[0]
    disk = world.pool.create_disk(
        sr.uuid, size_bytes=size_bytes, name="restored", other_config={"holdfast:run": "r-1"}, labels=("a",)
    )
    world.pool.write_disk(disk, MemoryDisk(bytes(content)), progress=NoProgress(), cancel=Cancellation())
    assert world.content(disk)[:size_bytes] == bytes(content)
    assert [each.uuid for each in world.pool.find_tagged("holdfast:run")] == [disk]


@pytest.mark.parametrize("kept", ["qcow2", "vhd"])
@pytest.mark.parametrize("size_bytes", [4 * MIB, 3 * MIB + 512])
def test_a_disk_too_large_for_vhd_is_sent_as_what_it_is_kept_as(
    world: World, monkeypatch: pytest.MonkeyPatch, kept: str, size_bytes: int
) -> None:
    # The client's own bounds alone: the lab keeps the real one.
    bounds = SimpleNamespace(VHD_DISK_BYTES_MAX=MIB)
    monkeypatch.setattr("holdfast.xapi.uploads.limits", bounds)
    if kept == "qcow2":
        monkeypatch.setattr("holdfast.xapi.image_format.limits", bounds)
    content = (bytes(MIB) + pattern(MIB + 1000, seed=3)).ljust(size_bytes - 200, b"\0") + pattern(200, seed=4)
    disk = world.pool.create_disk(world.pool.inventory().srs[0].uuid, size_bytes=size_bytes, name="restored")
    world.pool.write_disk(disk, MemoryDisk(content), progress=NoProgress(), cancel=Cancellation())
    assert world.content(disk)[:size_bytes] == content


def test_a_disk_of_3_tib_costs_what_it_holds(world: World) -> None:
    """Too large for a VHD: kept as qcow2, sent without its holes, read without its holes."""
    last = 3 * TIB - BLOCK_BYTES
    source = SparseDisk(3 * TIB, {0: pattern(5 * BLOCK_BYTES, seed=1), 7 * MIB: b"x", last: pattern(300, seed=2)})
    disk = world.pool.create_disk(world.pool.inventory().srs[0].uuid, size_bytes=3 * TIB, name="archive")
    world.pool.write_disk(disk, source, progress=NoProgress(), cancel=Cancellation())
    assert world.lab.pool.disks.allocated_blocks(disk).tolist() == [0, 3, 3 * TIB // (2 * MIB) - 1]
    for offset_bytes, length_bytes in ((0, 8 * MIB), (TIB, MIB), (3 * TIB - MIB, MIB)):
        held = world.lab.pool.disks.read(disk, offset_bytes, length_bytes)
        assert held == source.read(offset_bytes, length_bytes)
    plan = world.pool.plan_read(live=disk, snapshot=disk, reference=None, force_full=False)
    assert (plan.transport, plan.planned_bytes) == (ReadTransport.NBD, 7 * BLOCK_BYTES)
    with world.pool.open_reader(plan, cancel=world.cancel) as reader:
        for run in reader.runs():
            assert isinstance(run, DataRun)
            assert bytes(run.data) == source.read(run.offset_bytes, run.length_bytes)


def test_a_vm_made_from_its_record_starts_and_goes_again(world: World) -> None:
    described = world.pool.describe_vm(world.vm.uuid)
    record = described["VM"]
    assert isinstance(record, dict)
    disk = world.pool.create_disk(world.pool.inventory().srs[0].uuid, size_bytes=MIB, name="root")
    vm = world.pool.create_vm({**record, "name_label": "restored"})
    old = world.vm.disks[0]
    world.pool.create_vbd(vm, disk, position=old.position, bootable=True, read_only=False, record=old.vbd_record)
    nic = world.vm.nics[0]
    assert nic.network is not None
    world.pool.create_vif(vm, nic.network.uuid, position="0", mac="0a:00:00:00:00:01", record=nic.record)
    world.pool.set_blocked_operations(vm, {"suspend": "a test"})
    bios_strings = record["bios_strings"]
    assert isinstance(bios_strings, dict)
    assert "" in bios_strings.values(), "a VM that was started has empty ones, which no pool takes back"
    world.pool.set_bios_strings(vm, {key: str(value) for key, value in bios_strings.items()})
    made = world.pool.vm(vm)
    assert made.record["bios_strings"] == bios_strings
    assert (made.name, made.memory_bytes, made.tags) == ("restored", world.vm.memory_bytes, world.vm.tags)
    assert [each.disk.uuid for each in made.disks] == [disk]
    assert made.nics[0].mac == "0a:00:00:00:00:01"
    assert made.power_state is PowerState.HALTED
    world.pool.start_vm(vm)
    assert world.pool.vm(vm).power_state is PowerState.RUNNING
    for _ in range(2):
        world.pool.shutdown_vm(vm)
        assert world.pool.vm(vm).power_state is PowerState.HALTED
    for _ in range(2):
        world.pool.destroy_vm(vm, with_disks=True)
        assert world.pool.disk(disk) is None


def test_the_pools_own_metadata_makes_the_vm_with_other_disks(world: World) -> None:
    metadata = world.pool.export_metadata(world.vm.uuid)
    disk = world.pool.create_disk(world.pool.inventory().srs[0].uuid, size_bytes=64 * MIB, name="root")
    vm = world.pool.import_metadata(metadata, disk_map={world.disk: disk}, restore=False)
    made = world.pool.vm(vm)
    assert vm != world.vm.uuid
    assert made.name == world.vm.name
    assert [each.disk.uuid for each in made.disks] == [disk]


def test_free_space_is_what_the_sr_says_after_a_look(world: World) -> None:
    sr = world.pool.inventory().srs[0]
    assert 0 < world.pool.sr_free_bytes(sr.uuid) <= sr.physical_size_bytes
