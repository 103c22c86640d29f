"""What a share promises beyond the contract, judged by a real Samba: one layout with a folder, errors by their cause,
connections that come and go."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core import Cancellation, ExitStatus, ManualClock, Retry, Secret, SeededEntropy, limits
from holdfast.model import Extent
from holdfast.storage import (
    KeyRefused,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    PosixStore,
    RetryStore,
    StoreEmpty,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreMissing,
    StoreNotAFolder,
    StoreNotWritable,
    StorePlace,
    StoreUnreachable,
    open_store,
)
from holdfast.storage.errors import error_of_os
from holdfast.storage.place import StoreCredentials
from holdfast.storage.smb import SmbStore
from holdfast.storage.smb_errors import SmbLoginRefused, SmbShareMissing, SmbUserMissing, failure_of_status
from holdfast.storage.smb_file import SmbFile
from holdfast.storage.smb_place import parse_smb_location
from tests.support.smb_server import PASSWORD, SmbServer, new_smb_store, running_smb_server, shared_smb_server

pytestmark = [pytest.mark.judge, pytest.mark.slow(reason="a real Samba answers")]


@pytest.fixture
def server() -> SmbServer:
    return shared_smb_server()


@pytest.fixture
def store(server: SmbServer) -> Iterator[SmbStore]:
    store = new_smb_store()
    yield store
    store.close()


def folder_of(server: SmbServer, store: SmbStore) -> Path:
    """Return where the store's files lie on this machine."""
    return server.folder() / store.describe().split("/backup/")[1].split(" ")[0]


class TestLayout:
    def test_a_share_and_its_folder_hold_the_same_objects(self, server: SmbServer, store: SmbStore) -> None:
        mounted = PosixStore(folder_of(server, store))
        store.put("packs/3f/3f9a", b"by network" * 300_000)
        mounted.put("packs/3f/3f9b", b"by file system")
        for each in (store, mounted):
            assert each.get("packs/3f/3f9a") == b"by network" * 300_000
            assert each.get("packs/3f/3f9b") == b"by file system"
            assert list(each.list("packs/")) == [
                ObjectInfo("packs/3f/3f9a", 3_000_000),
                ObjectInfo("packs/3f/3f9b", 14),
            ]
            with pytest.raises(ObjectExists):
                each.put("packs/3f/3f9a", b"again")
        mounted.delete("packs/3f/3f9a")
        store.delete("packs/3f/3f9b")
        assert list(mounted.list("")) == list(store.list("")) == []

    def test_nothing_is_left_in_the_folder_for_temporaries(self, server: SmbServer, store: SmbStore) -> None:
        store.put("a/b", b"x")
        with pytest.raises(ObjectExists):
            store.put("a/b", b"y")
        with pytest.raises(KeyRefused):
            store.put("a", b"y")
        assert list((folder_of(server, store) / "tmp").iterdir()) == []

    def test_a_punched_range_takes_no_space(self, server: SmbServer, store: SmbStore) -> None:
        store.put("a", os.urandom(1 << 20))
        file = folder_of(server, store) / "a"
        before = file.stat().st_blocks
        assert store.try_punch("a", [Extent(offset_bytes=0, length_bytes=1 << 19)]) == 1 << 19
        assert file.stat().st_blocks <= before - 1000
        assert file.stat().st_size == 1 << 20

    def test_what_dead_writers_left_is_swept_by_the_servers_clock(self, server: SmbServer, store: SmbStore) -> None:
        folder = folder_of(server, store) / "tmp"
        (folder / "put-old").write_bytes(b"x" * 100)
        (folder / "put-new").write_bytes(b"x" * 100)
        os.utime(folder / "put-old", (1_000_000_000, 1_000_000_000))
        assert store.sweep_temporaries() == 100
        assert [each.name for each in folder.iterdir()] == ["put-new"]

    def test_free_space_is_what_the_server_says(self, server: SmbServer, store: SmbStore) -> None:
        facts = os.statvfs(server.folder())
        told = store.free_bytes()
        assert told is not None
        assert abs(told - facts.f_bavail * facts.f_frsize) < 1 << 30

    def test_a_large_folder_is_listed_whole(self, server: SmbServer, store: SmbStore) -> None:
        store.put("packs/aa/0000", b"x")
        folder = folder_of(server, store) / "packs" / "aa"
        for number in range(1, 3000):
            (folder / f"{number:04}").write_bytes(b"")
        assert [each.key for each in store.list("packs/aa/")] == [f"packs/aa/{number:04}" for number in range(3000)]

    @pytest.mark.parametrize("key", ["a/con", "NUL.txt", "com1", "a./b", "lpt9.x"])
    def test_names_that_windows_keeps_for_itself_are_refused(self, store: SmbStore, key: str) -> None:
        with pytest.raises(KeyRefused):
            store.put(key, b"x")

    def test_a_share_that_ignores_case_never_replaces_an_object(self, server: SmbServer) -> None:
        store = new_smb_store(share="plain")
        store.put("keys/one", b"first")
        with pytest.raises(ObjectExists):
            store.put("keys/ONE", b"second")
        assert store.get("keys/one") == b"first"


class TestWithoutHardLinks:
    @pytest.fixture(autouse=True)
    def _no_links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: SmbFile, path: str) -> None:
            raise OSError(errno.EOPNOTSUPP, "no hard links here", path)

        monkeypatch.setattr(SmbFile, "link_to", refuse)

    def test_objects_are_renamed_into_place(self, server: SmbServer, store: SmbStore) -> None:
        store.put("a/b", b"first")
        with pytest.raises(ObjectExists):
            store.put("a/b", b"second")
        assert store.get("a/b") == b"first"
        assert list((folder_of(server, store) / "tmp").iterdir()) == []

    def test_of_many_writers_of_one_key_exactly_one_wins(self, store: SmbStore) -> None:
        patient = RetryStore(store, clock=ManualClock(), entropy=SeededEntropy(1), cancel=Cancellation())
        for number in range(10):
            outcomes: list[str] = []

            def write(content: bytes, key: str = f"leases/{number}", told: list[str] = outcomes) -> None:
                try:
                    patient.put(key, content)
                    told.append("won")
                except ObjectExists:
                    told.append("lost")

            threads = [threading.Thread(target=write, args=(bytes([n]) * 1000,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(outcomes) == ["lost", "lost", "lost", "won"]


class TestCauses:
    def failure(self, location: str, *, password: Secret = PASSWORD, create: bool = False) -> StoreError:
        with pytest.raises(StoreError) as refusal:
            SmbStore(parse_smb_location(location), password=password, create=create)
        assert PASSWORD.reveal() not in str(refusal.value)
        return refusal.value

    def test_a_wrong_password_is_told_as_such(self, server: SmbServer) -> None:
        failure = self.failure(server.location(), password=Secret("wrong"))
        assert isinstance(failure, SmbLoginRefused)
        assert failure.exit_status is ExitStatus.REFUSED
        assert failure.retry is Retry.NEVER
        assert "password" in str(failure)

    def test_an_unknown_user_is_told_as_such(self, server: SmbServer) -> None:
        assert isinstance(self.failure(server.location().replace("keeper@", "nobody-here@")), SmbLoginRefused)

    def test_a_server_that_takes_strangers_for_guests_is_refused(self, tmp_path: Path) -> None:
        with running_smb_server(tmp_path, guests="bad user") as open_house:
            failure = self.failure(open_house.location().replace("keeper@", "nobody-here@"))
        assert isinstance(failure, SmbLoginRefused)
        assert "guest" in str(failure)

    def test_a_share_needs_a_user(self, server: SmbServer) -> None:
        assert isinstance(self.failure(server.location().replace("keeper@", "")), SmbUserMissing)

    def test_a_missing_share_is_named(self, server: SmbServer) -> None:
        failure = self.failure(server.location(share="nothing"))
        assert isinstance(failure, SmbShareMissing)
        assert "'nothing'" in str(failure)

    def test_a_missing_folder_is_not_made_unasked(self, server: SmbServer) -> None:
        assert isinstance(self.failure(server.location("not-there")), StoreMissing)
        assert not (server.folder() / "not-there").exists()

    def test_parents_are_never_made(self, server: SmbServer) -> None:
        assert isinstance(self.failure(server.location("not-there/below"), create=True), StoreMissing)

    def test_an_empty_folder_and_a_file_are_told_apart(self, server: SmbServer) -> None:
        (server.folder() / "empty").mkdir(exist_ok=True)
        (server.folder() / "file").write_bytes(b"x")
        assert isinstance(self.failure(server.location("empty")), StoreEmpty)
        assert isinstance(self.failure(server.location("file")), StoreNotAFolder)
        assert isinstance(self.failure(server.location("file"), create=True), StoreNotAFolder)

    def test_a_share_for_reading_can_be_read(self, server: SmbServer, store: SmbStore) -> None:
        store.put("a", b"x")
        name = folder_of(server, store).name
        reading = SmbStore(parse_smb_location(server.location(name, share="readonly")), password=PASSWORD)
        assert reading.get("a") == b"x"
        with pytest.raises(StoreNotWritable):
            reading.put("b", b"x")
        with pytest.raises(StoreNotWritable):
            reading.delete("a")
        reading.close()

    def test_nobody_at_the_port_is_unreachable(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            failure = self.failure(f"smb://keeper@127.0.0.1:{taken.getsockname()[1]}/b/x")
        assert isinstance(failure, StoreUnreachable)
        assert failure.retry is Retry.LATER
        assert "refused" in str(failure)

    def test_a_peer_that_is_no_smb_server_is_unreachable(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def answer() -> None:
                with listener.accept()[0] as client:
                    client.recv(100)
                    client.sendall(b"\0\0\0\x08HTTP/1.1")

            thread = threading.Thread(target=answer)
            thread.start()
            failure = self.failure(f"smb://keeper@127.0.0.1:{listener.getsockname()[1]}/b/x")
            thread.join()
        assert isinstance(failure, StoreUnreachable)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (0xC000007F, StoreFull),
            (0xC0000044, StoreFull),
            (0xC00000A2, StoreNotWritable),
            (0xC0000022, StoreNotWritable),
            (0xC0000203, StoreUnreachable),
            (0xC0000043, StoreUnreachable),
            (0xC0000185, StoreFailed),
        ],
    )
    def test_what_a_server_says_becomes_what_a_disk_would_mean(self, status: int, kind: type[StoreError]) -> None:
        failure = error_of_os(failure_of_status(status), store="share", key="a", writing=True)
        assert isinstance(failure, kind)

    def test_a_status_that_nobody_knows_is_told_by_its_number(self) -> None:
        assert "0xC0001234" in str(failure_of_status(0xC0001234))
        assert "DFS" in str(failure_of_status(0xC0000257))


class TestConnections:
    def test_after_a_restart_of_the_server_the_next_call_connects_anew(
        self, server: SmbServer, store: SmbStore
    ) -> None:
        store.put("a", b"x")
        server.cut_connections()
        patient = RetryStore(store, clock=ManualClock(), entropy=SeededEntropy(1), cancel=Cancellation())
        assert patient.get("a") == b"x"
        patient.put("b", b"y")
        assert [each.key for each in store.list("")] == ["a", "b"]

    def test_a_connection_lost_in_the_middle_of_a_put_is_unreachable_and_leaves_no_object(
        self, server: SmbServer, store: SmbStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flush = SmbFile.flush

        def cut_and_flush(opened: SmbFile) -> None:
            server.cut_connections()
            flush(opened)

        with monkeypatch.context() as patch:
            patch.setattr(SmbFile, "flush", cut_and_flush)
            with pytest.raises(StoreUnreachable) as refusal:
                store.put("a", b"x" * 3_000_000)
        assert refusal.value.key == "a"
        with pytest.raises(ObjectMissing):
            store.get("a")
        store.put("a", b"x" * 3_000_000)
        assert store.size("a") == 3_000_000

    def test_a_put_whose_answer_got_lost_succeeds_when_it_is_repeated(
        self, server: SmbServer, store: SmbStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link_to = SmbFile.link_to
        cuts: list[str] = []

        def link_and_cut(opened: SmbFile, path: str) -> None:
            link_to(opened, path)
            if not cuts:
                cuts.append(path)
                server.cut_connections()

        monkeypatch.setattr(SmbFile, "link_to", link_and_cut)
        patient = RetryStore(store, clock=ManualClock(), entropy=SeededEntropy(1), cancel=Cancellation())
        patient.put("a", b"x" * 3_000_000)
        assert len(cuts) == 1
        assert store.get("a") == b"x" * 3_000_000
        with pytest.raises(ObjectExists):
            patient.put("a", b"y")

    def test_a_server_that_no_longer_answers_is_unreachable_and_asked_anew_by_the_next_call(
        self, server: SmbServer, store: SmbStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.put("a", b"x")
        monkeypatch.setattr(limits, "SMB_ANSWER_TIMEOUT_S", 1.0)
        with server.frozen(), pytest.raises(StoreUnreachable) as refusal:
            store.get("a")
        assert "timeout" in str(refusal.value)
        # What the frozen server says in the end is heard by nobody.
        assert store.get_range("a", offset_bytes=0, length_bytes=1) == b"x"
        assert store.size("a") == 1

    def test_a_frozen_server_does_not_hold_up_the_end(
        self, server: SmbServer, store: SmbStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "SMB_GOODBYE_TIMEOUT_S", 0.1)
        store.put("a", b"x")
        with server.frozen():
            begin_s = time.monotonic()
            store.close()
            assert time.monotonic() - begin_s < 10

    def test_a_server_that_never_says_a_word_is_unreachable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "SMB_CONNECT_TIMEOUT_S", 1)
        with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(StoreUnreachable):
            SmbStore(parse_smb_location(f"smb://keeper@127.0.0.1:{silent.getsockname()[1]}/b/x"), password=PASSWORD)

    def test_closing_logs_out(self, server: SmbServer, store: SmbStore) -> None:
        store.put("a", b"x")
        with store._links.link() as link:
            assert link.is_usable
        store.close()
        store.close()
        assert not link.is_usable

    def test_a_connection_is_encrypted_where_the_server_can(self, store: SmbStore) -> None:
        with store._links.link() as link:
            assert link.is_encrypted


class TestLocation:
    def test_a_location_with_credentials_opens_a_share(self, server: SmbServer) -> None:
        user = {"SMB_USER": Secret("keeper"), "SMB_DOMAIN": Secret("LAB")}
        for location, secrets in [
            (server.location("by-location"), {}),
            (server.location("by-location").replace("keeper@", ""), user),
        ]:
            credentials = StoreCredentials({**secrets, "SMB_PASSWORD": PASSWORD})
            store = open_store(StorePlace(location=location, credentials=credentials), create=True)
            assert "by-location" in store.describe()
            assert list(store.list("")) == []
