"""A pool's other hosts are recognised by what its master says, and by nothing else."""

from __future__ import annotations

import pytest

from holdfast.core import Cancellation, ManualClock, SeededEntropy
from holdfast.xapi import NoTls, PinnedCertificate, TlsTrust
from holdfast.xapi.calls import Calls
from holdfast.xapi.hosts import host_fingerprints, trust_in_host
from holdfast.xapi.session import PoolSession
from tests.unit.xapi.fake_pool import CREDENTIALS, FakePool, Refusal, fake_pool, logged_in
from tests.unit.xapi.test_tls import Identity, make_identity


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("hosts"))


def _two_hosts(pool: FakePool, identity: Identity) -> None:
    def certificate(_session: str, ref: str) -> str:
        if ref != "OpaqueRef:member":
            raise Refusal("MESSAGE_METHOD_UNKNOWN", "host.get_server_certificate")
        return identity.pem

    pool.methods["host.get_server_certificate"] = certificate
    pool.methods["host.get_all_records"] = lambda _session: {
        "OpaqueRef:master": {"address": "10.0.0.1", "name_label": "one"},
        "OpaqueRef:member": {"address": "10.0.0.2", "name_label": "two"},
    }


class _Trusting(PoolSession):
    """A session that was made over plain http and claims to have been made otherwise."""

    @property
    def trust(self) -> TlsTrust:
        return PinnedCertificate("00" * 32)


def test_a_member_is_recognised_by_the_certificate_that_the_master_names(identity: Identity) -> None:
    with fake_pool() as pool:
        _two_hosts(pool, identity)
        session = _Trusting(pool.address, CREDENTIALS, NoTls())
        session.login(cancel=Cancellation())
        calls = Calls(session, clock=ManualClock(), entropy=SeededEntropy(1), cancel=Cancellation())
        assert trust_in_host(calls, "10.0.0.2") == PinnedCertificate(identity.fingerprint)
        assert trust_in_host(calls, "127.0.0.1") == PinnedCertificate("00" * 32)
        assert trust_in_host(calls, "10.0.0.9") == PinnedCertificate("00" * 32), "a stranger gains nothing"


def test_a_host_whose_certificate_the_pool_cannot_show_is_left_out(identity: Identity) -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        _two_hosts(pool, identity)
        assert host_fingerprints(calls) == {"10.0.0.2": identity.fingerprint}


def test_a_plain_pool_stays_plain(identity: Identity) -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        assert trust_in_host(calls, "10.0.0.2") == NoTls()
        assert "host.get_server_certificate" not in pool.names()
