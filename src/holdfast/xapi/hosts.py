"""How the pool's other hosts are recognised: by the certificates that the trusted master names for them.

Transfers are redirected to the host that sees the disk, by its bare address; each host has a certificate of its own.
Invariant: a host is trusted no further than the master's word, which came over a connection that was checked.
"""

from __future__ import annotations

import hashlib
import ssl

from holdfast.core import get_log
from holdfast.xapi.calls import Calls
from holdfast.xapi.errors import PoolFailure
from holdfast.xapi.records import as_text, text
from holdfast.xapi.tls import NoTls, PinnedCertificate, TlsTrust

__all__ = ["host_fingerprints", "trust_in_host"]

_log = get_log(__name__)


def trust_in_host(calls: Calls, address: str) -> TlsTrust:
    """Return how to recognise the host at that address; as the master itself where the pool does not say."""
    trust = calls.session.trust
    if isinstance(trust, NoTls) or address == calls.session.address.host:
        return trust
    fingerprint = host_fingerprints(calls).get(address)
    return PinnedCertificate(fingerprint) if fingerprint else trust


def host_fingerprints(calls: Calls) -> dict[str, str]:
    """Return the certificate's SHA-256 by host address, for those hosts whose certificate the pool can show."""
    found: dict[str, str] = {}
    for ref, record in calls.table("host").items():
        try:
            pem = as_text(calls.call("host.get_server_certificate", ref), what="host.get_server_certificate")
            found[text(record, "address")] = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        except (PoolFailure, ValueError) as failure:
            # An older pool has no such call, and a host that is down cannot answer it.
            _log.info("pool.certificate-unknown", host=text(record, "name_label"), why=str(failure))
    return found
