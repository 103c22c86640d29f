"""From JSON, MessagePack and plain values to types, by msgspec, safely from several threads.

msgspec 0.22 learns what a type looks like when it is first decoded and lets other threads see what it has not finished:
two that decode a type at once for the first time end the process. Here one thread at a time learns a type.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

__all__ = ["from_builtins", "from_json", "from_msgpack"]

_T = TypeVar("_T")

_lock = threading.Lock()
_json: dict[object, msgspec.json.Decoder[Any]] = {}
_msgpack: dict[object, msgspec.msgpack.Decoder[Any]] = {}


def from_json(content: bytes | str, kind: type[_T]) -> _T:
    """Return the value that a JSON text says; ``msgspec.DecodeError`` when it says none of that type."""
    value: _T = (_json.get(kind) or _json_decoder(kind)).decode(content)
    return value


def from_msgpack(content: bytes | memoryview, kind: type[_T]) -> _T:
    """Return the value that MessagePack bytes say; ``msgspec.DecodeError`` when they say none of that type."""
    decoder = _msgpack.get(kind)
    if decoder is None:
        with _lock:
            decoder = _msgpack[kind] = msgspec.msgpack.Decoder(kind)
    value: _T = decoder.decode(content)
    return value


def from_builtins(value: object, kind: type[_T]) -> _T:
    """Return a value made of dictionaries, lists and text as its type; ``msgspec.ValidationError``."""
    if kind not in _json:
        _json_decoder(kind)
    return msgspec.convert(value, kind)


def _json_decoder(kind: object) -> msgspec.json.Decoder[Any]:
    with _lock:
        decoder = _json[kind] = msgspec.json.Decoder(kind)
    return decoder
