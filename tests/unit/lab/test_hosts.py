"""Several hosts in one pool: who answers what, where transfers go, and a change of master."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import XenAPI

from holdfast.core import Cancellation, Secret, SystemEntropy
from holdfast.lab import RunningLab
from holdfast.lab.hosts import host_address, make_master
from holdfast.model import DiskUuid
from holdfast.xapi import Credentials, PinnedCertificate, PoolAddress, ReadTransport, open_pool
from tests.contract.pool_world import HurriedClock, read_disk
from tests.support.lab import PASSWORD, logged_in, tiny_lab
from tests.unit.lab.talk import converse_at, json_call, new_disk, refusal

MIB = 1 << 20


@pytest.fixture(scope="module")
def two() -> Iterator[RunningLab]:
    with tiny_lab(hosts=2, scenario="empty", nbd="none") as lab:
        yield lab


def _members(lab: RunningLab) -> list[str]:
    db = lab.pool.db
    return [row.ref for row in db.rows("host") if row.ref != lab.pool.master_ref]


def _local_sr(lab: RunningLab, host: str) -> str:
    db = lab.pool.db
    attached = [str(row.fields["SR"]) for row in db.rows("PBD") if row.fields["host"] == host]
    return next(sr for sr in attached if not db.flag("SR", sr, "shared"))


def _disk_on(lab: RunningLab, api: Any, sr: str) -> str:
    record = {"name_label": "local", "name_description": "", "SR": sr, "virtual_size": str(MIB), "type": "user"}
    disk: str = api.VDI.create({**record, "sharable": False, "read_only": False, "other_config": {}})
    return disk


@pytest.mark.parametrize(
    ("first", "number", "address"),
    [
        ("127.0.0.1", 0, "127.0.0.1"),
        ("127.0.0.1", 2, "127.0.0.3"),
        ("0.0.0.0", 1, "0.0.0.0"),
        ("::1", 1, "::1"),
        ("lab.example", 1, "lab.example"),
    ],
)
def test_hosts_count_up_from_a_loopback_address_only(first: str, number: int, address: str) -> None:
    assert host_address(first, number) == address


def test_every_host_has_an_address_of_its_own_at_the_same_ports(two: RunningLab) -> None:
    member = urlsplit(two.member_urls[0])
    assert member.hostname == "127.0.0.2"
    assert member.port == urlsplit(two.url).port
    hosts = two.pool.db.rows("host")
    assert [row.fields["address"] for row in hosts] == ["127.0.0.1", "127.0.0.2"]


def test_a_member_answers_every_call_with_the_masters_address(two: RunningLab) -> None:
    member = XenAPI.Session(two.plain_url.replace("127.0.0.1", "127.0.0.2"))
    wanted = ["HOST_IS_SLAVE", "127.0.0.1"]
    assert refusal(lambda: member.xenapi.login_with_password("root", PASSWORD)) == wanted
    with logged_in(two) as session:
        member._session = session._session
        assert refusal(lambda: member.xenapi.VM.get_all()) == wanted


@pytest.mark.parametrize("verb", ["GET /export_raw_vdi", "PUT /import_raw_vdi"])
def test_a_transfer_is_sent_to_the_host_that_sees_the_disk(two: RunningLab, verb: str) -> None:
    with logged_in(two) as session:
        disk = _disk_on(two, session.xenapi, _local_sr(two, _members(two)[0]))
        query = f"session_id={session._session}&vdi={disk}&format=raw"
        head = f"{verb}?{query} HTTP/1.0\r\nHost: lab\r\nContent-Length: 0\r\n\r\n".encode()
        answer = converse_at(two.plain_url, head).decode()
        port = urlsplit(two.url).port
        path = verb.partition(" ")[2]
        assert answer.startswith("HTTP/1.1 302 Found\r\n")
        assert f"\r\nLocation: https://127.0.0.2:{port}{path}?{query}\r\n" in answer
        session.xenapi.VDI.destroy(disk)


def test_a_transfer_of_shared_storage_is_served_where_it_is_asked_for(two: RunningLab) -> None:
    with logged_in(two) as session:
        disk = new_disk(session.xenapi, MIB)
        head = f"GET /export_raw_vdi?session_id={session._session}&vdi={disk}&format=raw HTTP/1.0\r\n\r\n".encode()
        member = two.plain_url.replace("127.0.0.1", "127.0.0.2")
        assert converse_at(member, head).endswith(bytes(MIB))
        session.xenapi.VDI.destroy(disk)


def test_holdfast_follows_a_member_to_the_master_and_a_disk_to_its_host(two: RunningLab) -> None:
    content = b"local disk" * 100_000
    with logged_in(two) as session:
        disk = _disk_on(two, session.xenapi, _local_sr(two, _members(two)[0]))
        live = DiskUuid(session.xenapi.VDI.get_uuid(disk))
        two.pool.disks.write(live, 0, content)
        snapshot = DiskUuid(session.xenapi.VDI.get_uuid(session.xenapi.VDI.snapshot(disk)))
    with open_pool(
        PoolAddress.parse(two.member_urls[0]),
        Credentials(user="root", password=Secret(PASSWORD)),
        PinnedCertificate(two.fingerprint),
        clock=HurriedClock(),
        entropy=SystemEntropy(),
        cancel=Cancellation(),
    ) as client:
        assert client.address.host == "127.0.0.1"
        plan = client.plan_read(live=live, snapshot=snapshot, reference=None, force_full=True)
        assert plan.transport is ReadTransport.STREAM
        with client.open_reader(plan, cancel=Cancellation()) as reader:
            assert read_disk(reader)[: len(content)] == content
        for each in (snapshot, live):
            client.destroy_disk(each)


def test_after_a_change_of_master_the_old_one_names_the_new_one() -> None:
    with tiny_lab(hosts=2, scenario="empty") as lab, logged_in(lab) as session:
        old, new, old_url = lab.pool.master_ref, _members(lab)[0], lab.plain_url
        make_master(lab.pool, new)
        assert json_call(lab, "VM.get_all", session._session)["error"]["message"] == "SESSION_INVALID"
        late = XenAPI.Session(old_url)
        login = ("root", PASSWORD)
        assert refusal(lambda: late.xenapi.login_with_password(*login)) == ["HOST_IS_SLAVE", "127.0.0.2"]
        assert lab.plain_url == old_url.replace("127.0.0.1", "127.0.0.2")
        moved = XenAPI.Session(lab.plain_url)
        moved.xenapi.login_with_password("root", PASSWORD)
        assert moved.xenapi.pool.get_master(moved.xenapi.pool.get_all()[0]) == new != old
        moved.xenapi.session.logout()
