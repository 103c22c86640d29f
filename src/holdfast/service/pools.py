"""Pools: added once with their trust decided, connected by name from then on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from holdfast.core import Cancellation, Secret
from holdfast.model import PoolUuid
from holdfast.service.config import PoolConfig, TrustKind
from holdfast.service.workspace import Workspace
from holdfast.xapi import (
    CertificateAuthority,
    CertificateFacts,
    Credentials,
    Inventory,
    NoTls,
    Patience,
    PinnedCertificate,
    PoolAddress,
    PoolClient,
    TlsTrust,
    open_pool,
    read_certificate,
)

__all__ = ["add_pool", "connect_pool", "forget_pool", "learn_hosts", "list_pools", "probe_pool", "show_pool"]

_PROBE_TIMEOUT_S = 10.0


def probe_pool(url: str) -> CertificateFacts | None:
    """Return the certificate that the pool at ``url`` shows now, for a person to judge; None for plain HTTP."""
    address = PoolAddress.parse(url)
    return read_certificate(address, timeout_s=_PROBE_TIMEOUT_S) if address.is_encrypted else None


def add_pool(
    workspace: Workspace, *, name: str, url: str, user: str, password: Secret, trust: str, cancel: Cancellation
) -> PoolConfig:
    """Return the pool's configuration, stored after a login has worked; the password is sealed for this machine.

    ``trust`` is in the form of ``PoolConfig.trust``.
    """
    address = PoolAddress.parse(url)
    workspace.registry.check_pool_name(name)
    credentials = Credentials(user=user, password=password)
    with open_pool(
        address, credentials, _trust_of(trust, ()), clock=workspace.clock, entropy=workspace.entropy, cancel=cancel
    ) as client:
        config = PoolConfig(
            name=name,
            url=client.address.url,
            user=user,
            trust=trust,
            pool=PoolUuid(client.pool),
            added_at=workspace.clock.now(),
            other_hosts=_other_hosts(trust, client),
        )
    workspace.registry.add_pool(config)
    try:
        workspace.vault.store(_secret_name(name), password)
    except BaseException:
        # A pool that is remembered without its password would fail every run at night.
        workspace.registry.remove_pool(name)
        raise
    return config


def connect_pool(
    workspace: Workspace,
    name: str,
    cancel: Cancellation,
    *,
    patience: Patience = Patience.BRIEF,
    tell: Callable[[str], None] = lambda _: None,
) -> PoolClient:
    """Return a logged-in client for a pool that was added; use it in a ``with`` block. See ``open_pool``."""
    config = workspace.registry.pool(name)
    return open_pool(
        PoolAddress.parse(config.url),
        Credentials(user=config.user, password=workspace.vault.load(_secret_name(name))),
        _trust_of(config.trust, config.other_hosts),
        clock=workspace.clock,
        entropy=workspace.entropy,
        cancel=cancel,
        patience=patience,
        tell=tell,
    )


def learn_hosts(workspace: Workspace, name: str, client: PoolClient) -> None:
    """Remember which hosts the pool has now, so that one which joined may become its master."""
    config = workspace.registry.pool(name)
    hosts = _other_hosts(config.trust, client)
    if hosts and hosts != config.other_hosts:
        workspace.registry.replace_pool(dataclasses.replace(config, other_hosts=hosts))


def list_pools(workspace: Workspace) -> list[PoolConfig]:
    """Return the pools that were added, by name; nothing is contacted."""
    return workspace.registry.pools()


def show_pool(workspace: Workspace, name: str, cancel: Cancellation) -> tuple[PoolConfig, Inventory]:
    """Return a pool's configuration and what it holds now."""
    config = workspace.registry.pool(name)
    with connect_pool(workspace, name, cancel) as client:
        return config, client.inventory()


def forget_pool(workspace: Workspace, name: str) -> None:
    """Forget a pool and its password; nothing else is touched."""
    workspace.registry.remove_pool(name)
    workspace.vault.forget(_secret_name(name))


def _secret_name(pool_name: str) -> str:
    return f"pool-{pool_name}"


def _other_hosts(trust: str, client: PoolClient) -> tuple[str, ...]:
    """Return the certificates that stand beside the pinned one; only a pin needs them."""
    return client.host_fingerprints() if trust.startswith(TrustKind.PINNED) else ()


def _trust_of(text: str, other_hosts: tuple[str, ...]) -> TlsTrust:
    if text == TrustKind.PLAIN:
        return NoTls()
    if text.startswith(TrustKind.PINNED):
        return PinnedCertificate(text.removeprefix(TrustKind.PINNED), others=other_hosts)
    path = text.removeprefix(TrustKind.AUTHORITY)
    return CertificateAuthority(Path(path) if path else None)
