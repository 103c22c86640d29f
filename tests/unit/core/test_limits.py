"""Every bound is a positive number with its reason beside it."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from holdfast.core import BLOCK_BYTES, limits


def test_every_bound_is_exported_positive_and_says_why() -> None:
    body = ast.parse(inspect.getsource(limits)).body
    bounds: list[str] = []
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name = node.targets[0].id
        if name.startswith("_"):
            continue
        bounds.append(name)
        value = getattr(limits, name)
        assert value > 0, name
        reason = (
            following.value.value
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            else ""
        )
        assert isinstance(reason, str), name
        assert len(reason.split()) >= 4, f"{name} does not say why"
    assert sorted(bounds) == sorted(limits.__all__)


@pytest.mark.slow(reason="reads the whole source")
def test_every_bound_bounds_something() -> None:
    package = Path(inspect.getfile(limits)).parent.parent
    source = "\n".join(path.read_text() for path in package.rglob("*.py"))
    used = set(re.findall(r"\blimits\.([A-Z0-9_]+)\b", source))
    assert sorted(set(limits.__all__) - used) == []


def test_transfer_sizes_are_whole_blocks() -> None:
    for length_bytes in (limits.RUN_BYTES_MAX, limits.NBD_READ_BYTES, limits.PACK_BYTES_MAX):
        assert length_bytes % BLOCK_BYTES == 0
