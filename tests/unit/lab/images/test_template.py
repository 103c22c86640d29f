"""The committed file systems, and making them anew."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from holdfast.core import GIB, KIB, MIB
from holdfast.lab.images import DATABASE_PATH, LOG_PATH, E2fsprogs
from holdfast.lab.images.template import TEMPLATES, Template, pack_template, read_template
from holdfast.lab.images.template_maker import make_template

MKE2FS = E2fsprogs.find().mke2fs


@pytest.mark.parametrize("name", TEMPLATES)
def test_committed_templates_are_small_and_stay_inside_their_file_system(name: str) -> None:
    data = resources.files("holdfast.lab.images").joinpath(name).read_bytes()
    template = read_template(data)
    assert len(data) < 100 * KIB
    assert template.filesystem_bytes <= (2 * GIB if "large" in name else 64 * MIB)
    indexes = [index for index, _ in template.blocks]
    assert indexes == sorted(set(indexes))
    assert (indexes[-1] + 1) * template.block_bytes <= template.filesystem_bytes


def test_a_template_survives_packing() -> None:
    template = Template(filesystem_bytes=8192, block_bytes=512, blocks=((0, b"a" * 512), (9, b"b" * 512)))
    assert read_template(pack_template(template)) == template


@pytest.mark.slow(reason="makes a file system")
@pytest.mark.skipif(MKE2FS is None, reason="mke2fs is not installed (Debian: e2fsprogs)")
def test_a_new_template_carries_structures_and_no_contents() -> None:
    assert MKE2FS is not None
    sizes: dict[str, int] = {DATABASE_PATH: MIB, LOG_PATH: 64 * KIB, "etc/fstab": 4 * KIB}
    template = make_template(disk_bytes=16 * MIB, sizes_bytes=sizes, mke2fs=Path(MKE2FS))
    packed = pack_template(template)
    assert len(packed) < 8 * KIB
    assert not any(b"\xa5" * 64 in block for _, block in template.blocks)
    assert any(b"fstab" in block for _, block in template.blocks)
    assert read_template(packed) == template
