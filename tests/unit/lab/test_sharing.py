"""The control domain shares disks with itself: a trial upload that still detaches is in nobody's way."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from holdfast.core import MIB
from holdfast.lab import LabDelays
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import new_disk, put_raw, wait_until


@pytest.mark.slow(reason="a disk that detaches slowly")
def test_an_upload_may_begin_while_the_one_before_still_detaches(tmp_path: Path) -> None:
    slow = LabDelays(unplug_s=0.5, linger_s=0.02)
    content = bytes(range(256)) * (MIB // 256)
    with tiny_lab(tmp_path, delays=slow) as lab, logged_in(lab) as session:
        api = session.xenapi
        disk = new_disk(api, 2 * MIB)
        trial = threading.Thread(target=put_raw, args=(lab, session, disk, b""))
        trial.start()
        wait_until(lab, lambda: bool(lab.pool.db.texts("VDI", disk, "VBDs")))
        told = put_raw(lab, session, disk, content, format="raw")
        trial.join()
        assert b"VDI_IN_USE" not in told
        kept = hashlib.sha256(content + bytes(MIB)).hexdigest()
        assert lab.control.sha256(api.VDI.get_uuid(disk)) == kept
        assert lab.control.attachments() == []
