"""A lab for programs that are not ours: as quick as the lab of other tests, but patient where such programs need it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from holdfast.lab import LabDelays, RunningLab
from tests.support.lab import QUICK, tiny_lab

__all__ = ["PATIENT", "SLOW", "patient_lab"]

PATIENT: LabDelays = replace(QUICK, linger_s=0.5, plug_s=0.3, unplug_s=0.5)
"""A host that is quick but not quicker than its clients believe one to be.

Node's HTTP client kills its process when a connection ends while it still hands the last bytes over. The engine decides
by a cache that is a moment old, so with disks attached in no time it would miss its own latest snapshot; and it asks
twice about an attachment that ends while it asks.
"""

SLOW = LabDelays(plug_s=0.5, unplug_s=1.5, snapshot_s=1.0, data_destroy_wait_s=4.0, linger_s=0.5)
"""A pool on ordinary disks: what overlaps here overlaps there."""


@contextlib.contextmanager
def patient_lab(**changes: Any) -> Iterator[RunningLab]:
    """Yield a running lab; ``changes`` are fields of ``LabOptions``."""
    with tiny_lab(**{"delays": PATIENT, **changes}) as lab:
        yield lab
