"""The S3 benchmark tells medians, and requests for a TB only of steps that a disk's size decides."""

from __future__ import annotations

from bench.s3 import Figure, s3_table

from holdfast.core import MIB
from holdfast.storage import Verb


def _figure(step: str, *, length_bytes: int, wall_s: float, puts: int) -> Figure:
    requests = {verb: puts if verb is Verb.PUT else 0 for verb in Verb}
    return Figure(step=step, length_bytes=length_bytes, wall_s=wall_s, cpu_s=wall_s / 2, requests=requests)


def test_a_table_has_medians_and_requests_for_a_tb() -> None:
    disk_bytes = 1000 * MIB
    figures = [_figure("first backup", length_bytes=disk_bytes, wall_s=wall_s, puts=20) for wall_s in (1.0, 9.0, 2.0)]
    figures.append(_figure("increment", length_bytes=MIB, wall_s=1.0, puts=5))
    lines = s3_table(figures, disk_bytes=disk_bytes).splitlines()
    first, increment = lines[-2].split(), lines[-1].split()
    assert first[:5] == ["first", "backup", "524", "1.02", "20"]
    assert first[-1] == f"{20 / disk_bytes * 10**12:,.0f}"
    assert increment[:2] == ["increment", "1"]
    assert increment[-1] == "0"
