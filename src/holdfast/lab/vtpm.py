"""What the trusted platform modules of VMs hold: state of the guest that no public call reads or writes.

The contents lie in a secret, as on a real pool, and only exports and copies of a VM carry them along. Invariant: a
module has one secret, from its first contents until it is removed.
"""

from __future__ import annotations

from holdfast.lab.context import PoolCore

__all__ = ["forget_vtpm_contents", "set_vtpm_contents", "vtpm_contents"]

_KEY = "vtpm"


def _secret_of(pool: PoolCore, vtpm: str) -> str | None:
    for row in pool.db.rows("secret"):
        if pool.db.mapping("secret", row.ref, "other_config").get(_KEY) == vtpm:
            return row.ref
    return None


def vtpm_contents(pool: PoolCore, vtpm: str) -> str:
    """Return what the module holds, in base64; empty for one that no guest has used."""
    secret = _secret_of(pool, vtpm)
    return "" if secret is None else pool.db.text("secret", secret, "value")


def set_vtpm_contents(pool: PoolCore, vtpm: str, contents: str) -> None:
    """Let the module hold this."""
    with pool.db.transaction():
        secret = _secret_of(pool, vtpm)
        if secret is None:
            pool.db.create("secret", {"value": contents, "other_config": {_KEY: vtpm}})
        else:
            pool.db.set("secret", secret, "value", contents)


def forget_vtpm_contents(pool: PoolCore, vtpm: str) -> None:
    """Remove what the module holds. Safe to call twice."""
    with pool.db.transaction():
        secret = _secret_of(pool, vtpm)
        if secret is not None:
            pool.db.destroy("secret", secret)
