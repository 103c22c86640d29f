"""Types that several threads decode at once for the first time, and what is no value of a type."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import msgspec
import pytest

from holdfast.core import from_builtins, from_json, from_msgpack

_AT_ONCE = """
import dataclasses, sys, threading
import msgspec
from holdfast.core import from_builtins, from_json, from_msgpack

sys.setswitchinterval(1e-6)
packed = msgspec.msgpack.encode({"number": 1, "inner": [{"pairs": [[1, "a"]]}]})
text = b'{"number": 1, "inner": [{"pairs": [[1, "a"]]}]}'

def fresh():
    @dataclasses.dataclass
    class Inner:
        pairs: list[tuple[int, str]]
    class Outer(msgspec.Struct):
        number: int
        inner: list[Inner]
        names: dict[str, Inner] | None = None
    Outer.__annotations__ = {"number": int, "inner": list[Inner], "names": dict[str, Inner] | None}
    return Outer

def decode(gate, kind):
    gate.wait()
    plain = {"number": 1, "inner": [{"pairs": [[1, "a"]]}]}
    assert from_msgpack(packed, kind) == from_json(text, kind) == from_builtins(plain, kind)

for _ in range(200):
    kind, gate = fresh(), threading.Barrier(4)
    threads = [threading.Thread(target=decode, args=(gate, kind)) for _ in range(4)]
    [each.start() for each in threads]
    [each.join() for each in threads]
print("alive")
"""


@dataclass
class Pair:
    left: int
    right: str = "none"


def test_a_type_may_be_met_first_by_several_threads_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", _AT_ONCE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-2000:]


def test_values_come_as_their_type() -> None:
    assert from_json('{"left": 1}', Pair) == from_builtins({"left": 1}, Pair) == Pair(1)
    assert from_msgpack(memoryview(msgspec.msgpack.encode({"left": 2, "right": "b"})), Pair) == Pair(2, "b")
    assert from_json(b"[1, 2]", list[int]) == [1, 2]


def test_what_is_no_value_of_the_type_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        from_builtins({"left": "1"}, Pair)
    with pytest.raises(msgspec.DecodeError):
        from_json("{", Pair)
    with pytest.raises(msgspec.DecodeError):
        from_msgpack(b"\xc1", Pair)
