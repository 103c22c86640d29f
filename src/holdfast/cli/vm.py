"""``holdfast vm``: the VMs of a pool."""

from __future__ import annotations

from cyclopts import App

from holdfast import service
from holdfast.cli.nouns import NOUNS
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, format_bytes

__all__ = ["app"]

app = App(name="vm", help=NOUNS["vm"])

_NO_COMMON = Common()


@app.command(name="list")
def list_(pool: str, *, common: Common = _NO_COMMON) -> int:
    """List the VMs of a pool with their disks.

    Example: holdfast vm list prod

    Parameters
    ----------
    pool
        The pool.
    """

    def body(session: Session) -> ExitStatus:
        _, inventory = service.show_pool(session.workspace, pool, session.cancel)
        rows = [
            (
                vm.name,
                vm.power_state.value,
                str(len(vm.disks)),
                format_bytes(vm.provisioned_bytes),
                "yes" if vm.disks and all(each.disk.cbt_enabled for each in vm.disks) else "no",
                ", ".join(vm.tags),
                vm.uuid,
            )
            for vm in inventory.vms
        ]
        columns = ("NAME", "STATE", ">DISKS", ">PROVISIONED", "CHANGE TRACKING", "TAGS", "=UUID")
        session.out.table(columns, rows, empty="This pool has no VMs.")
        session.out.result(
            [
                {
                    "uuid": vm.uuid,
                    "name": vm.name,
                    "power_state": vm.power_state,
                    "tags": vm.tags,
                    "provisioned_bytes": vm.provisioned_bytes,
                    "disks": [
                        {
                            "position": each.position,
                            "uuid": each.disk.uuid,
                            "name": each.disk.name,
                            "size_bytes": each.disk.size_bytes,
                            "cbt_enabled": each.disk.cbt_enabled,
                        }
                        for each in vm.disks
                    ],
                }
                for vm in inventory.vms
            ]
        )
        return ExitStatus.OK

    return run_command(common, body)
