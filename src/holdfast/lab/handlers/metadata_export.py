"""``GET /export_metadata``: everything the pool knows about VMs, without their disks' bytes.

The answer is made before its head is sent, so unlike all other exports it has a length, and its errors are answers.
"""

from __future__ import annotations

from contextlib import ExitStack

from holdfast.formats.xva import XvaWriter
from holdfast.lab.errors import ApiFailure, internal_failure
from holdfast.lab.handlers.ova_collect import Collection, Wishes, pool_version
from holdfast.lab.handlers.ova_document import write_ova
from holdfast.lab.handlers.transfer import Refused, Transfer, error_page
from holdfast.lab.handlers.vm_export import archive_head, busy_vm, find_vm
from holdfast.lab.http import pages

__all__ = ["export_metadata"]

_DEVICES = ("vif", "vbd", "vgpu", "vtpm")


def export_metadata(one: Transfer) -> None:
    """Send the description of the VMs asked for."""
    wishes = Wishes(
        vhd_parents=_flag(one, "include_vhd_parents", default=False),
        snapshots=_flag(one, "export_snapshots", default=True),
        excluded=_excluded(one),
        power_state=True,
    )
    vms = _all_vms(one) if _flag(one, "all", default=False) else [_one_vm(one)]
    try:
        body = _description(one, vms, wishes)
    except ApiFailure:
        # Two answers for one request: the handler's own, and the one for the exception behind it.
        one.connection.send(pages.handler_failure())
        raise
    archive = XvaWriter()
    pieces = archive.description(body, time_s=int(one.pool.clock.now().timestamp())) + archive.end()
    one.connection.send(archive_head(one, f"Content-Length: {sum(len(piece) for piece in pieces)}"))
    for piece in pieces:
        one.connection.send(piece)


def _flag(one: Transfer, name: str, *, default: bool) -> bool:
    """Return a boolean of the query; any word but two is the pool's exception."""
    text = one.request.query.get(name)
    if text not in (None, "true", "false"):
        raise ApiFailure("INTERNAL_ERROR", "Invalid argument: bool_of_string")
    return default if text is None else text == "true"


def _excluded(one: Transfer) -> frozenset[str]:
    words = one.request.query.get("excluded_device_types", "")
    if not words:
        return frozenset()
    chosen = [word.lower() for word in words.split(",")]
    for word in chosen:
        if word not in _DEVICES:
            legal = "; ".join(_DEVICES)
            raise internal_failure(f"Importexport.Devicetype.of_string: Type '{word}' not one of [{legal}]")
    return frozenset(chosen)


def _all_vms(one: Transfer) -> list[str]:
    """Return every VM, snapshots included, but for the templates that come with a pool."""
    with_control_domain = _flag(one, "include_dom0", default=True)
    own = {row.fields["control_domain"] for row in one.pool.db.rows("host")}
    found: list[str] = []
    for row in one.pool.db.rows("VM"):
        config = row.fields["other_config"]
        is_marked = isinstance(config, dict) and config.get("default_template") == "true"
        is_default = row.fields["is_default_template"] or (row.fields["is_a_template"] and is_marked)
        if not is_default and (with_control_domain or row.ref not in own):
            found.append(row.ref)
    return found


def _one_vm(one: Transfer) -> str:
    _flag(one, "include_dom0", default=True)
    try:
        return find_vm(one)
    except ApiFailure as failure:
        raise Refused(error_page(failure, version=one.request.version, is_answer=True), failure) from failure


def _description(one: Transfer, vms: list[str], wishes: Wishes) -> bytes:
    pool = one.pool
    if not vms:
        raise internal_failure("need to specify at least one VM")
    with ExitStack() as locks:
        for vm in vms:
            pool.db.row("VM", vm)
            locks.enter_context(busy_vm(one, vm, "metadata_export"))
        with pool.db.lock:
            collection = Collection(pool, wishes)
            for vm in vms:
                collection.add_vm(vm)
            return write_ova(collection.objects(), pool_version(pool))
