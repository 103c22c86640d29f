"""Operations of repositories and disks while they run: shown on both, one at a time, refused as the pool refuses.

Invariant: an operation on a disk is also one on its repository; while it waits for either, it holds neither.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from holdfast.lab.context import Context
from holdfast.lab.operations import Mark
from holdfast.lab.rules import check_sr_operation, check_vdi_managed, check_vdi_operation
from holdfast.lab.volumes import check_sr_attached

__all__ = ["disk_operation", "repository_operation"]

_ON_REPOSITORY = {
    "destroy": "vdi_destroy",
    "snapshot": "vdi_snapshot",
    "clone": "vdi_clone",
    "resize": "vdi_resize",
    "resize_online": "vdi_resize",
    "enable_cbt": "vdi_enable_cbt",
    "disable_cbt": "vdi_disable_cbt",
    "data_destroy": "vdi_data_destroy",
    "list_changed_blocks": "vdi_list_changed_blocks",
    "set_on_boot": "vdi_set_on_boot",
}
"""What an operation on a disk is on its repository; the others leave the repository alone."""


@contextlib.contextmanager
def disk_operation(
    context: Context, vdi: str, operation: str, *, needs_managed: bool = False, needs_attached: bool = True
) -> Iterator[None]:
    """Have the operation running on the disk and its repository while the block runs."""
    db = context.db
    sr = db.text("VDI", vdi, "SR")
    on_repository = _ON_REPOSITORY.get(operation)

    def check() -> None:
        if on_repository is not None:
            check_sr_operation(db, sr, on_repository)
        check_vdi_operation(db, vdi, operation)

    marks = [Mark("VDI", vdi, operation)]
    if on_repository is not None:
        marks.insert(0, Mark("SR", sr, on_repository))
    with context.pool.operations.running_together(marks, task=context.task, check=check):
        if needs_attached:
            check_sr_attached(context.pool, sr)
        if needs_managed:
            check_vdi_managed(db, vdi)
        yield


@contextlib.contextmanager
def repository_operation(context: Context, sr: str, operation: str) -> Iterator[None]:
    """Have the operation running on the repository while the block runs."""
    db = context.db
    db.row("SR", sr)
    with context.pool.operations.running(
        "SR", sr, operation, task=context.task, check=lambda: check_sr_operation(db, sr, operation)
    ):
        yield
