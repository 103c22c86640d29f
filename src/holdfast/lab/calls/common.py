"""What the calls of several domains have in common: licences, and the messages that a pool leaves about its VMs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.lab.context import Context
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import check_vm_operation

__all__ = ["check_licence", "tell", "vm_operation"]

_PRIORITY = 5
"""An ordinary event in a VM's life."""


def check_licence(context: Context, restriction: str, feature: str) -> None:
    """Return when the pool's licence includes the feature; ``LICENCE_RESTRICTION`` otherwise."""
    if context.pool.is_restricted(restriction):
        raise ApiFailure("LICENCE_RESTRICTION", feature)


@contextmanager
def vm_operation(context: Context, vm: str, operation: str, *, is_strict: bool = True) -> Iterator[None]:
    """Have the operation running on the VM while the block runs; waits for a colliding one to end."""
    db = context.db
    db.row("VM", vm)

    def check() -> None:
        check_vm_operation(db, vm, operation, is_strict=is_strict)

    with context.pool.operations.running("VM", vm, operation, task=context.task, check=check):
        context.pool.tasks.seal(context.task)
        try:
            yield
        finally:
            if db.exists("VM", vm):
                db.set("VM", vm, "allowed_operations", [])


def tell(context: Context, vm: str, name: str, body: str) -> None:
    """Leave a message about the VM: ``{vm}`` in the body stands for its name and uuid."""
    db = context.db
    fields = db.row("VM", vm).fields
    about = f"VM '{fields['name_label']}' (uuid: {fields['uuid']})"
    db.create(
        "message",
        {
            "name": name,
            "priority": _PRIORITY,
            "cls": "VM",
            "obj_uuid": fields["uuid"],
            "timestamp": context.pool.now(),
            "body": body.replace("{vm}", about),
        },
    )
