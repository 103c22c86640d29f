"""Calls that reach for services outside the pool: balancing, directories of users, another pool. The lab reaches none.

What such a call checks before it reaches out is checked here, too; then it ends as on a pool that gets no answer.
"""

from __future__ import annotations

import re

from holdfast.lab.calls.common import check_licence
from holdfast.lab.calls.host_services import disable_external_auth as disable_host_auth
from holdfast.lab.calls.host_services import enable_external_auth as enable_host_auth
from holdfast.lab.context import CallSet, Context
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

Map = dict[str, str]


@calls.on("pool.deconfigure_wlb")
def deconfigure_wlb(context: Context) -> str:
    """There is no balancing service that could be forgotten."""
    raise ApiFailure("WLB_NOT_INITIALIZED")


@calls.on("pool.initialize_wlb")
def initialize_wlb(context: Context, url: str, *accounts: str) -> str:
    """Refused: what was named is no balancing service."""
    check_licence(context, "wlb", "WLB")
    if not re.fullmatch(r"[^:/]+:\d+(/.*)?", url):
        raise ApiFailure("WLB_URL_INVALID", url)
    raise ApiFailure("WLB_CONNECTION_REFUSED")


@calls.on("pool.send_test_post")
def send_test_post(context: Context, host: str, port: int, body: str) -> str:
    """Refused: the lab calls nobody."""
    raise ApiFailure("INTERNAL_ERROR", "Xmlrpc_client.Connection_reset")


@calls.on("pool.sync_trusted_certificates_from")
def sync_trusted_certificates_from(context: Context, pool: str, address: str, *others: object) -> str:
    """Refused: the lab calls nobody."""
    raise ApiFailure("INTERNAL_ERROR", "Xmlrpc_client.Connection_reset")


@calls.on("pool.detect_nonhomogeneous_external_auth")
def detect_nonhomogeneous_external_auth(context: Context, pool: str) -> str:
    """Nothing to find: the hosts of a lab know no directory but the lab's own."""
    return ""


@calls.on("pool.enable_external_auth")
def enable_external_auth(context: Context, pool: str, config: Map, service: str, kind: str) -> str:
    """Refused as by the first host that is asked."""
    return enable_host_auth(context, context.pool.master_ref, config, service, kind)


@calls.on("pool.disable_external_auth")
def disable_external_auth(context: Context, pool: str, config: Map | None = None) -> str:
    """Disconnect every host from its directory of users."""
    for row in context.db.rows("host"):
        disable_host_auth(context, row.ref)
    return ""


@calls.on("pool.external_auth_set_ldaps")
def external_auth_set_ldaps(context: Context, pool: str, ldaps: bool, force: bool = False) -> str:
    """Refused: no host is connected to a directory."""
    raise ApiFailure("AUTH_IS_DISABLED")


@calls.on("pool.set_custom_uefi_certificates")
def set_custom_uefi_certificates(context: Context, pool: str, value: str) -> str:
    """Refused unless a host's own settings allow it."""
    text = "Setting UEFI certificates is not possible when allow_custom_uefi_certs is false"
    raise ApiFailure("OPERATION_NOT_ALLOWED", text)


@calls.on("pool.retrieve_wlb_configuration", "pool.retrieve_wlb_recommendations")
def retrieve_from_wlb(context: Context) -> Map:
    """There is no balancing service."""
    check_licence(context, "wlb", "WLB")
    raise ApiFailure("WLB_NOT_INITIALIZED")


@calls.on("pool.send_wlb_configuration")
def send_wlb_configuration(context: Context, config: Map) -> str:
    """There is no balancing service."""
    check_licence(context, "wlb", "WLB")
    raise ApiFailure("WLB_NOT_INITIALIZED")


@calls.on("pool.enable_redo_log")
def enable_redo_log(context: Context, sr: str) -> str:
    """Refused: the lab writes no log of its database."""
    text = "failed to create a VDI for the redo log on the SR with the given UUID."
    raise ApiFailure("CANNOT_ENABLE_REDO_LOG", text)
