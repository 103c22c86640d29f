"""VHD files on disk, alone and in chains, are one complete disk that can be read anywhere."""

from __future__ import annotations

import io
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, limits
from holdfast.formats.vhd import (
    VhdChainBroken,
    VhdDamaged,
    VhdError,
    VhdFile,
    VhdTruncated,
    VhdUnsupported,
    open_chain,
)
from holdfast.model import DiskSource, Extent
from tests.support.vhd import KIB64, BlockSpec, VhdSpec, pattern

BASE, MIDDLE, LEAF = (uuid.UUID(int=number) for number in (1, 2, 3))
SECTORS = KIB64 // 512


@st.composite
def claimed_blocks(draw: st.DrawFn, *, blocks: int) -> dict[int, tuple[int, list[bool]]]:
    """Some blocks of one file: index -> (seed of its data, a flag for each sector)."""
    indexes = draw(st.sets(st.integers(0, blocks - 1), max_size=blocks))
    whole = [True] * SECTORS
    partly = st.integers(0, 2**32).map(lambda seed: (np.random.default_rng(seed).random(SECTORS) < 0.3).tolist())
    return {index: (draw(st.integers(0, 2**32)), draw(st.one_of(st.just(whole), partly))) for index in indexes}


def packed(spec: VhdSpec, claimed: dict[int, tuple[int, list[bool]]]) -> io.BytesIO:
    spec.blocks = [
        BlockSpec(index=index, data=pattern(KIB64, seed=seed), claims=claims)
        for index, (seed, claims) in sorted(claimed.items(), reverse=True)
    ]
    return io.BytesIO(spec.pack())


def laid_over(disk: np.ndarray, claimed: dict[int, tuple[int, list[bool]]]) -> None:
    """Write one file's sectors over a disk that is (sectors, 512)."""
    for index, (seed, claims) in claimed.items():
        data = np.frombuffer(pattern(KIB64, seed=seed), dtype=np.uint8).reshape(SECTORS, 512)
        window = disk[index * SECTORS : (index + 1) * SECTORS]
        take = np.array(claims)[: len(window)]
        window[take] = data[: len(window)][take]


@pytest.mark.slow(reason="a property over sixty chains of three files")
@given(
    base=claimed_blocks(blocks=3),
    middle=claimed_blocks(blocks=4),
    leaf=claimed_blocks(blocks=4),
    sectors=st.integers(3 * SECTORS + 1, 4 * SECTORS),
    ranges=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6),
)
def test_a_chain_reads_each_sector_from_the_newest_file_that_claims_it(
    base: dict[int, tuple[int, list[bool]]],
    middle: dict[int, tuple[int, list[bool]]],
    leaf: dict[int, tuple[int, list[bool]]],
    sectors: int,
    ranges: list[tuple[float, float]],
) -> None:
    size_bytes = sectors * 512
    expected = np.zeros((sectors, 512), dtype=np.uint8)
    for layer in (base, middle, leaf):
        laid_over(expected, layer)
    flat = expected.tobytes()
    chain = open_chain(
        [
            packed(VhdSpec(size_bytes=size_bytes, disk_type=4, identity=LEAF, parent=MIDDLE), leaf),
            packed(VhdSpec(size_bytes=size_bytes, disk_type=4, identity=MIDDLE, parent=BASE, gap_bytes=512), middle),
            packed(VhdSpec(size_bytes=3 * KIB64, identity=BASE, table_offset=8192), base),
        ]
    )
    assert chain.size_bytes == size_bytes
    assert chain.read(0, size_bytes) == flat
    for first, second in ranges:
        start, end = sorted((int(first * size_bytes), int(second * size_bytes)))
        assert chain.read(start, end - start) == flat[start:end]
    extents = list(chain.data_extents())
    assert extents == merged_granules(expected, [base, middle, leaf])
    covered = bytearray(size_bytes)
    for run in chain.runs():
        covered[run.offset_bytes : run.offset_bytes + run.length_bytes] = run.data
    assert bytes(covered) == flat


def merged_granules(disk: np.ndarray, layers: list[dict[int, tuple[int, list[bool]]]]) -> list[Extent]:
    """Return what ``data_extents`` must say: 64 KiB blocks in which some file claims a sector."""
    claimed = sorted({index for layer in layers for index, (_, claims) in layer.items() if any(claims)})
    merged: list[Extent] = []
    for index in claimed:
        start, end = index * KIB64, min((index + 1) * KIB64, len(disk) * 512)
        if merged and merged[-1].end_bytes == start:
            start = merged.pop().offset_bytes
        merged.append(Extent(offset_bytes=start, length_bytes=end - start))
    return merged


def test_extents_of_large_blocks_are_as_fine_as_their_bitmaps() -> None:
    claims = np.zeros(4096, dtype=np.bool_)
    claims[[0, 200, 4095]] = True
    spec = VhdSpec(size_bytes=4 << 20, block_bytes=2 << 20)
    spec.blocks = [BlockSpec(index=1, data=pattern(2 << 20, seed=5), claims=claims)]
    disk = VhdFile(io.BytesIO(spec.pack()))
    second = 2 << 20
    assert list(disk.data_extents()) == [
        Extent(offset_bytes=second, length_bytes=2 * BLOCK_BYTES),
        Extent(offset_bytes=second + 31 * BLOCK_BYTES, length_bytes=BLOCK_BYTES),
    ]


def test_files_with_different_block_sizes_make_one_chain() -> None:
    base = VhdSpec(size_bytes=4 << 20, block_bytes=2 << 20, identity=BASE)
    base.blocks = [BlockSpec(index=1, data=pattern(2 << 20, seed=5))]
    leaf = VhdSpec(size_bytes=4 << 20, disk_type=4, identity=LEAF, parent=BASE)
    leaf.blocks = [BlockSpec(index=33, data=pattern(KIB64, seed=6)), BlockSpec(index=2, data=pattern(KIB64, seed=7))]
    chain = open_chain([io.BytesIO(leaf.pack()), io.BytesIO(base.pack())])
    expected = bytearray(bytes(2 << 20) + base.blocks[0].data)
    for block in leaf.blocks:
        expected[block.index * KIB64 : (block.index + 1) * KIB64] = block.data
    assert chain.read(0, 4 << 20) == expected
    assert list(chain.data_extents()) == [
        Extent(offset_bytes=2 * KIB64, length_bytes=KIB64),
        Extent(offset_bytes=2 << 20, length_bytes=2 << 20),
    ]


def test_a_base_larger_than_its_child_is_cut_at_the_childs_end() -> None:
    base = VhdSpec(size_bytes=4 * KIB64, identity=BASE)
    base.blocks = [BlockSpec(index=index, data=pattern(KIB64, seed=index)) for index in (1, 3)]
    leaf = VhdSpec(size_bytes=KIB64 + 1024, disk_type=4, identity=LEAF, parent=BASE)
    chain = open_chain([io.BytesIO(leaf.pack()), io.BytesIO(base.pack())])
    assert chain.read(0, chain.size_bytes) == bytes(KIB64) + base.blocks[0].data[:1024]
    assert list(chain.data_extents()) == [Extent(offset_bytes=KIB64, length_bytes=1024)]


def test_runs_are_never_longer_than_the_limit() -> None:
    spec = VhdSpec(size_bytes=6 << 20, block_bytes=2 << 20)
    spec.blocks = [BlockSpec(index=index, data=pattern(2 << 20, seed=index)) for index in range(3)]
    runs = [(run.offset_bytes, run.length_bytes) for run in VhdFile(io.BytesIO(spec.pack())).runs()]
    assert runs == [(0, limits.RUN_BYTES_MAX), (limits.RUN_BYTES_MAX, 2 << 20)]


def test_a_disk_is_read_from_many_threads_at_once(tmp_path: Path) -> None:
    path, disk = written(tmp_path)
    offsets = [number * 7919 % (4 * KIB64 - 5000) for number in range(200)]
    for source in (path, path.open("rb")):
        with VhdFile(source) as opened, ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda offset, file=opened: file.read(offset, 5000), offsets))
        assert found == [disk[offset : offset + 5000] for offset in offsets]
        if not isinstance(source, Path):
            assert not source.closed, "who opened it closes it"
            source.close()


def written(folder: Path) -> tuple[Path, bytes]:
    """Write a small file and return it with the disk in it."""
    blocks = [BlockSpec(index=index, data=pattern(KIB64, seed=index)) for index in (0, 1, 3)]
    path = folder / "disk.vhd"
    path.write_bytes(VhdSpec(blocks=blocks).pack())
    return path, blocks[0].data + blocks[1].data + bytes(KIB64) + blocks[2].data


def test_a_file_is_a_disk_source(tmp_path: Path) -> None:
    path, disk = written(tmp_path)
    with VhdFile(path) as opened:
        source: DiskSource = opened
        assert source.read(0, source.size_bytes) == disk
        assert opened.head.allocated_blocks.tolist() == [0, 1, 3]


def test_a_closed_file_is_not_read_and_closing_twice_is_harmless(tmp_path: Path) -> None:
    opened = VhdFile(written(tmp_path)[0])
    opened.close()
    opened.close()
    with pytest.raises(ValueError, match="closed"):
        opened.read(0, 512)


def test_a_difference_alone_is_not_a_disk() -> None:
    with pytest.raises(VhdChainBroken, match="its parent"):
        VhdFile(io.BytesIO(VhdSpec(disk_type=4, parent=BASE).pack()))


def test_a_chain_with_a_stranger_in_it_is_refused_unless_asked_otherwise() -> None:
    def chain(*, checks_parents: bool) -> VhdFile:
        leaf = io.BytesIO(VhdSpec(disk_type=4, identity=LEAF, parent=MIDDLE).pack())
        return open_chain([leaf, io.BytesIO(VhdSpec(identity=BASE).pack())], checks_parents=checks_parents)

    with pytest.raises(VhdChainBroken, match=str(MIDDLE)):
        chain(checks_parents=True)
    assert chain(checks_parents=False).size_bytes == 4 * KIB64


def test_a_full_file_in_front_of_others_is_refused() -> None:
    with pytest.raises(VhdChainBroken, match="in front"):
        open_chain([io.BytesIO(VhdSpec().pack()), io.BytesIO(VhdSpec().pack())])


@pytest.mark.parametrize(
    ("spec", "error", "match"),
    [
        (VhdSpec(tail=bytes(512)), VhdDamaged, "no VHD footer"),
        (VhdSpec(tail=b""), VhdDamaged, "no VHD footer"),
        (VhdSpec(tail_identity=BASE), VhdDamaged, "different disks"),
        (VhdSpec(disk_type=2), VhdUnsupported, "type 2"),
        (VhdSpec(places={1: 0}), VhdDamaged, "copy of the footer"),
        (VhdSpec(places={1: 1}), VhdDamaged, "the header"),
        (VhdSpec(places={1: 3}), VhdDamaged, "the block table"),
        (VhdSpec(places={1: 4}), VhdDamaged, "behind the file's end"),
        (VhdSpec(places={1: 1 << 30}), VhdDamaged, "behind the file's end"),
    ],
)
def test_a_file_that_lies_is_refused(spec: VhdSpec, error: type[VhdError], match: str) -> None:
    with pytest.raises(error, match=match):
        VhdFile(io.BytesIO(spec.pack()))


@pytest.mark.parametrize("offset", [1 << 40, 0xFFFF_FFFF_FFFF_FFFF])
def test_a_structure_behind_the_file_is_refused(offset: int) -> None:
    honest = VhdSpec()
    for lying in (VhdSpec(header_offset=offset), VhdSpec(table_offset=offset)):
        data = lying.footer() + lying.header() + honest.pack()[1536:-512] + lying.footer()
        with pytest.raises(VhdTruncated):
            VhdFile(io.BytesIO(data))


@pytest.mark.parametrize("length", [0, 100, 512, 1535, 2047, 70_000])
def test_a_file_that_was_cut_is_refused(length: int, tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises((VhdTruncated, VhdDamaged)):
        VhdFile(path)


def test_a_file_that_is_cut_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    path, disk = written(tmp_path)
    with VhdFile(path) as opened:
        assert opened.read(0, 512) == disk[:512]
        with path.open("r+b") as file:
            file.truncate(2048 + 512 + 100)
        with pytest.raises(VhdTruncated):
            opened.read(0, KIB64)
