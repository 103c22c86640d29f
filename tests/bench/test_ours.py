"""What is measured of our engine is the real thing: stored, restored and verified through its front door."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench import ours
from holdfast.core import BLOCK_BYTES, MIB


@pytest.mark.slow(reason="derives keys and starts workers five times")
def test_a_disk_and_its_increment_come_back_and_damage_is_noticed(tmp_path: Path) -> None:
    disk, changes, target = tmp_path / "disk.raw", tmp_path / "changes.json", tmp_path / "restored.raw"
    common = [f"--repository={tmp_path / 'repository'}", f"--key={tmp_path / 'key'}"]
    content = bytearray(os.urandom(MIB) + bytes(2 * MIB) + os.urandom(BLOCK_BYTES))
    disk.write_bytes(content)
    assert ours.main(["create", *common]) == 0
    assert ours.main(["back-up", *common, f"--disk={disk}"]) == 0

    content[BLOCK_BYTES : 2 * BLOCK_BYTES] = os.urandom(BLOCK_BYTES)
    disk.write_bytes(content)
    changes.write_text(json.dumps([[BLOCK_BYTES, BLOCK_BYTES]]))
    assert ours.main(["back-up", *common, f"--disk={disk}", f"--changes={changes}"]) == 0
    assert ours.main(["restore", *common, f"--target={target}"]) == 0
    assert target.read_bytes() == content
    assert ours.main(["verify", *common]) == 0

    pack = max((tmp_path / "repository/packs").glob("*/*"), key=lambda path: path.stat().st_size)
    spoiled = bytearray(pack.read_bytes())
    spoiled[1000] ^= 1
    pack.write_bytes(spoiled)
    with pytest.raises(SystemExit, match="damaged"):
        ours.main(["verify", *common])
