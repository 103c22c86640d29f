"""A lab pool for a test: tiny, on real sockets, gone at the end of the block.

``tiny_lab`` gives two VMs: *alpha* with one disk, *beta* with two, 64 MiB of noise each, change tracking on, NBD over
TLS. ``tiny_lab(scenario="tiny")`` takes a second longer and gives *web* and *db* with real file systems and guests.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import XenAPI

from holdfast.core import Secret
from holdfast.lab import LabDelays, LabOptions, RunningLab, start_lab

__all__ = ["PASSWORD", "QUICK", "logged_in", "tiny_lab"]

PASSWORD = "labpass"

QUICK = LabDelays(unplug_s=0.0, linger_s=0.02, data_destroy_wait_s=0.5)
"""Nothing in a test waits for a simulated host."""


@contextlib.contextmanager
def tiny_lab(folder: Path | None = None, **changes: Any) -> Iterator[RunningLab]:
    """Yield a running lab; ``changes`` are fields of ``LabOptions``. Without a folder its state is thrown away."""
    with contextlib.ExitStack() as stack:
        state_dir = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-lab-")))
        fields: dict[str, Any] = {"scenario": "bare", "password": Secret(PASSWORD), "delays": QUICK, **changes}
        yield stack.enter_context(start_lab(LabOptions(state_dir=state_dir, **fields)))


@contextlib.contextmanager
def logged_in(lab: RunningLab) -> Iterator[Any]:
    """Yield a session of the vendor's own client, over plain HTTP."""
    session = XenAPI.Session(lab.plain_url)
    session.xenapi.login_with_password(lab.user, lab.password.reveal(), "1.0", "test")
    try:
        yield session
    finally:
        with contextlib.suppress(XenAPI.Failure):
            session.xenapi.session.logout()
