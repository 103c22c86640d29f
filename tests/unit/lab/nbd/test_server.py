"""What the lab's NBD server answers, and where it hangs up."""

from __future__ import annotations

import socket
import ssl
import struct
import threading

import pytest

from holdfast.core import MIB
from holdfast.lab.nbd import NBD_CONNECTIONS_MAX, NbdFault, NbdMode, NbdServer, parse_export_name
from tests.unit.lab.nbd.support import (
    CONTENT,
    NAME,
    SESSION,
    UUID,
    Client,
    Pool,
    certificate_pem,
    serving,
)

ACK, ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_TLS_REQD = 1, 0x80000001, 0x80000002, 0x80000003, 0x80000005
READ, WRITE, DISC, FLUSH = 0, 1, 2, 3
EPERM, EINVAL = 1, 22


def connected(server: NbdServer) -> Client:
    client = Client(server.address)
    client.greet()
    return client


def opened(server: NbdServer) -> Client:
    client = connected(server)
    assert len(client.open()) == 134
    return client


def test_an_export_is_told_in_134_bytes_whatever_the_client_gave_up() -> None:
    expected = struct.pack(">QH", len(CONTENT), 3) + bytes(124)
    with serving() as server:
        for flags in (0, 1, 3, 0xFFFFFFFF):
            client = Client(server.address)
            client.greet(flags=flags)
            assert client.open() == expected


def test_reads_come_back_in_order_and_whole() -> None:
    with serving() as server:
        client = opened(server)
        for handle, (offset, length) in enumerate([(0, 4096), (2 * MIB, 512), (MIB - 512, 3 * MIB)]):
            client.command(READ, offset, length, handle=handle)
        for handle, (offset, length) in enumerate([(0, 4096), (2 * MIB, 512), (MIB - 512, 3 * MIB)]):
            assert client.answer() == (0, handle)
            assert client.take(length) == CONTENT[offset : offset + length]
        client.command(DISC, 0, 0)
        assert client.is_over()


def test_an_empty_read_is_answered_and_the_connection_stays() -> None:
    with serving() as server:
        client = opened(server)
        client.command(READ, 0, 0, handle=7)
        assert client.answer() == (0, 7)
        client.command(READ, 0, 512, handle=8)
        assert client.answer() == (0, 8)


@pytest.mark.parametrize(("offset", "length"), [(100, 512), (0, 100), (511, 513)])
def test_a_misaligned_read_is_refused_and_the_connection_ends(offset: int, length: int) -> None:
    with serving() as server:
        client = opened(server)
        client.command(READ, offset, length)
        client.command(READ, 0, 512)
        assert client.answer() == (EINVAL, 1)
        assert client.is_over()


@pytest.mark.parametrize("offset", [len(CONTENT), len(CONTENT) - 512, 1 << 62])
def test_a_read_beyond_the_end_is_promised_and_then_cut(offset: int) -> None:
    with serving() as server:
        client = opened(server)
        client.command(READ, offset, 1024)
        assert client.answer() == (0, 1)
        assert client.is_over()


@pytest.mark.parametrize(("kind", "error"), [(WRITE, EPERM), (FLUSH, EINVAL), (4, EINVAL), (77, EINVAL)])
def test_everything_but_reading_is_refused_and_the_connection_ends(kind: int, error: int) -> None:
    with serving() as server:
        client = opened(server)
        client.command(kind, 0, 512, data=b"w" * 512 if kind == WRITE else b"")
        assert client.answer() == (error, 1)
        assert client.is_over()


def test_listing_is_refused_and_modern_options_are_unknown() -> None:
    with serving() as server:
        client = connected(server)
        assert client.ask(3) == ERR_POLICY
        assert client.ask(5) == ERR_POLICY
        for option in (6, 7, 8, 9, 10, 99):
            assert client.ask(option, b"some data") == ERR_UNSUP
        assert len(client.open()) == 134


def test_abort_is_acknowledged_and_ends_it_but_before_encryption_it_only_ends_it() -> None:
    with serving() as server:
        client = connected(server)
        assert client.ask(2) == ACK
        assert client.is_over()
    with serving(NbdMode.TLS) as server:
        client = connected(server)
        client.option(2)
        assert client.is_over()


def test_an_option_may_bring_more_data_than_anybody_needs() -> None:
    with serving() as server:
        client = connected(server)
        assert client.ask(3, bytes(300_000)) == ERR_POLICY
        assert client.ask(99, bytes(65_537)) == ERR_UNSUP
        assert len(client.open()) == 134


def test_flags_of_a_command_make_it_an_unknown_one() -> None:
    with serving() as server:
        client = opened(server)
        client.command(READ | 1 << 16, 0, 512)
        assert client.answer() == (EINVAL, 1)
        assert client.is_over()


def test_of_a_read_over_the_end_come_the_pieces_that_lie_inside() -> None:
    with serving() as server:
        client = opened(server)
        start = len(CONTENT) - 1024 * 1024 - 512
        client.command(READ, start, 2 * MIB)
        assert client.answer() == (0, 1)
        assert client.take(MIB) == CONTENT[start : start + MIB]
        assert client.is_over()


def test_a_read_longer_than_the_host_can_count_is_promised_and_cut() -> None:
    with serving() as server:
        client = opened(server)
        client.command(READ, 0, 1 << 31)
        assert client.answer() == (0, 1)
        assert client.is_over()


@pytest.mark.parametrize(
    "name",
    ["", "/", NAME[1:], f"/{UUID}", f"/nope?session_id={SESSION}", f"/{UUID}?session_id=OpaqueRef:bad", "\ud7ff[::"],
)
def test_a_name_that_means_nothing_gets_no_answer(name: str) -> None:
    with serving() as server:
        assert connected(server).open(name) == b""


@pytest.mark.parametrize(
    "garbage", [bytes(16), b"IHAVENOP" + bytes(8), b"IHAVEOPT" + struct.pack(">II", 3, 1 << 30), b"IHAVEOPT\0\0"]
)
def test_garbage_ends_only_its_own_connection(garbage: bytes) -> None:
    with serving() as server:
        good, bad = opened(server), connected(server)
        bad.send(garbage)
        bad.socket.shutdown(socket.SHUT_WR)
        assert bad.is_over()
        good.command(READ, 0, 512)
        assert good.answer() == (0, 1)


def test_a_request_without_its_magic_ends_the_connection() -> None:
    with serving() as server:
        client = opened(server)
        client.send(bytes(28))
        assert client.is_over()


def test_before_encryption_nothing_is_told() -> None:
    with serving(NbdMode.TLS) as server:
        client = connected(server)
        for option in (3, 6, 7, 8, 99):
            assert client.ask(option) == ERR_TLS_REQD
        assert client.open() == b""


def test_after_encryption_reads_are_served_and_the_certificate_is_the_hosts() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificate_pem()[0].decode())
    with serving(NbdMode.TLS) as server:
        client = connected(server)
        client.start_tls(context, server_name="lab-host.example")
        assert client.ask(3) == ERR_POLICY
        assert client.ask(5) == ERR_INVALID
        assert len(client.open()) == 134
        client.command(READ, MIB - 512, 3 * MIB)
        assert client.answer() == (0, 1)
        assert client.take(3 * MIB) == CONTENT[MIB - 512 : 4 * MIB - 512]


def test_a_client_of_the_old_style_is_not_offered_encryption() -> None:
    with serving(NbdMode.TLS) as server:
        client = Client(server.address)
        client.greet(flags=0)
        assert client.is_over()


def test_without_a_purpose_every_connection_is_dropped_and_the_next_is_asked_anew() -> None:
    modes = [NbdMode.CLOSED, NbdMode.CLOSED, NbdMode.PLAIN]
    with serving(lambda: modes.pop(0)) as server:
        assert Client(server.address).is_over()
        assert Client(server.address).is_over()
        opened(server)


def test_the_seventeenth_connection_is_closed_until_one_ends() -> None:
    pool = Pool()
    with serving(pool=pool) as server:
        clients = [opened(server) for _ in range(NBD_CONNECTIONS_MAX)]
        assert Client(server.address).is_over()
        clients[3].command(DISC, 0, 0)
        assert clients[3].is_over()
        wait_until_connections(server, NBD_CONNECTIONS_MAX - 1)
        opened(server)


def test_an_export_is_closed_once_however_the_connection_ends() -> None:
    pool = Pool()
    with serving(pool=pool) as server:
        polite, rude, broken = opened(server), opened(server), opened(server)
        polite.command(DISC, 0, 0)
        rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        rude.socket.close()
        broken.send(bytes(28))
        assert all(export.closed.wait(10) for export in pool.exports)
        opened(server)
    assert [export.closes for export in pool.exports] == [1, 1, 1, 1]


def test_a_disk_that_fails_ends_the_connection_without_an_answer() -> None:
    pool = Pool(fails=True)
    with serving(pool=pool) as server:
        client = opened(server)
        client.command(READ, 0, 512)
        assert client.is_over()
        assert pool.exports[0].closed.wait(10)


def test_closing_the_server_ends_open_connections_and_frees_the_port() -> None:
    pool = Pool()
    with serving(pool=pool) as server:
        client, silent = opened(server), Client(server.address)
        silent.take(18)
        address = server.address
    assert client.is_over() and silent.is_over()
    assert pool.exports[0].closes == 1
    assert server.connections == 0
    server.close()
    socket.create_server(address).close()


def test_concurrent_clients_get_their_own_bytes() -> None:
    wrong: list[int] = []

    def read_all(server: NbdServer, step: int) -> None:
        client = opened(server)
        for offset in range(0, len(CONTENT), step):
            client.command(READ, offset, step)
            client.answer()
            if client.take(step) != CONTENT[offset : offset + step]:
                wrong.append(offset)

    with serving() as server:
        threads = [threading.Thread(target=read_all, args=(server, MIB >> shift)) for shift in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


class Trouble:
    """Hooks that do one thing."""

    def __init__(self, *, admits: bool = True, at_bytes: int = 0, fault: NbdFault | None = None) -> None:
        self.is_admitting, self.at_bytes, self.planned = admits, at_bytes, fault

    def admits(self) -> bool:
        return self.is_admitting

    def fault(self, *, sent_bytes: int, length_bytes: int) -> NbdFault | None:
        return self.planned if sent_bytes <= self.at_bytes < sent_bytes + length_bytes else None


def test_a_busy_server_closes_new_connections_on_demand() -> None:
    hooks = Trouble(admits=False)
    with serving(hooks=hooks) as server:
        assert Client(server.address).is_over()
        hooks.is_admitting = True
        opened(server)


def test_a_connection_ends_in_the_middle_of_data_on_demand() -> None:
    hooks = Trouble(at_bytes=4096, fault=NbdFault(sent_first_bytes=100, disconnects=True))
    with serving(hooks=hooks) as server:
        client = opened(server)
        client.command(READ, 0, 4096)
        client.command(READ, 4096, 4096)
        assert client.answer() == (0, 1)
        assert client.take(4096) == CONTENT[:4096]
        assert client.answer() == (0, 1)
        assert client.take(4096) == CONTENT[4096:4196]


def test_a_pause_delays_data_and_loses_none() -> None:
    hooks = Trouble(fault=NbdFault(sent_first_bytes=512, stall_s=0.01))
    with serving(hooks=hooks) as server:
        client = opened(server)
        client.command(READ, 0, 4096)
        assert client.answer() == (0, 1)
        assert client.take(4096) == CONTENT[:4096]


def test_closing_does_not_wait_for_a_pause() -> None:
    pool = Pool()
    hooks = Trouble(fault=NbdFault(sent_first_bytes=0, stall_s=3600))
    with serving(pool=pool, hooks=hooks) as server:
        client = opened(server)
        client.command(READ, 0, 4096)
        assert client.answer() == (0, 1)
    assert pool.exports[0].closes == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (NAME, (UUID, SESSION)),
        (f"/{UUID}?a=b&session_id={SESSION}&session_id=other", (UUID, SESSION)),
        (f"x{UUID}?session_id={SESSION}", (UUID, SESSION)),
        (f"nbd://h/{UUID}?session_id={SESSION}", (UUID, SESSION)),
        (f"/{UUID}?session_id=OpaqueRef%3Ax", (UUID, "OpaqueRef:x")),
        (f"/{UUID}/x?session_id={SESSION}", (f"{UUID}/x", SESSION)),
        (f"/?session_id={SESSION}", ("", SESSION)),
        (f"/{UUID}?session_id=", None),
        (f"/{UUID}", None),
        ("//[", None),
    ],
)
def test_an_export_name_is_taken_apart_as_a_host_does(name: str, expected: tuple[str, str] | None) -> None:
    assert parse_export_name(name) == expected


def wait_until_connections(server: NbdServer, count: int) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if server.connections == count:
            return
        pause.wait(0.005)
    raise AssertionError(f"{server.connections} connections are open, expected {count}")


def test_a_connection_whose_thread_cannot_start_takes_no_place_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            if self.name == "lab-nbd-client":
                raise RuntimeError("can't start new thread")
            super().start()

    with serving() as server:
        with monkeypatch.context() as patched:
            patched.setattr(threading, "Thread", Refused)
            for _ in range(NBD_CONNECTIONS_MAX):
                assert Client(server.address).is_over()
        assert server.connections == 0
        opened(server)
