"""Calls of trusted platform modules: at most one for each VM, made and removed while the VM does not run."""

from __future__ import annotations

from holdfast.lab.calls.common import vm_operation
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import check_power_state
from holdfast.lab.vtpm import forget_vtpm_contents, set_vtpm_contents, vtpm_contents

__all__ = ["calls", "copy_vtpm", "drop_vtpm"]

calls = CallSet()


@calls.on("VTPM.create")
def create_vtpm(context: Context, vm: str, is_unique: bool = False) -> str:
    """Give a halted VM its trusted platform module."""
    with vm_operation(context, vm, "create_vtpm"):
        if context.pool.is_restricted("vtpm"):
            raise ApiFailure("FEATURE_RESTRICTED", "restrict_vtpm")
        fields: Fields = {"VM": vm, "is_unique": is_unique, "is_protected": False, "persistence_backend": "xapi"}
        return context.db.create("VTPM", fields)


@calls.on("VTPM.destroy")
def destroy_vtpm(context: Context, vtpm: str) -> str:
    """Remove the module of a VM that does not run."""
    check_power_state(context.db, context.db.text("VTPM", vtpm, "VM"), "Halted", "Suspended")
    drop_vtpm(context, vtpm)
    return ""


def drop_vtpm(context: Context, vtpm: str) -> None:
    """Remove the module with its contents."""
    with context.db.transaction():
        forget_vtpm_contents(context.pool, vtpm)
        context.db.destroy("VTPM", vtpm)


def copy_vtpm(context: Context, vtpm: str, vm: str) -> str:
    """Give another VM a module like this one. The contents of one that must stay unique are not copied."""
    fields = context.db.row("VTPM", vtpm).fields
    with context.db.transaction():
        made = context.db.create("VTPM", {**fields, "uuid": context.pool.new_uuid(), "VM": vm})
        contents = vtpm_contents(context.pool, vtpm)
        if contents and not fields["is_unique"]:
            set_vtpm_contents(context.pool, made, contents)
        return made
