"""The type of values that came as JSON or XML-RPC and are kept whole, unknown fields included.

Type checkers see the recursive type; at run time it is ``Any``, because decoders cannot follow a type into itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["JsonObject", "JsonValue"]

if TYPE_CHECKING:
    JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]
    JsonObject = dict[str, JsonValue]
else:
    JsonValue = Any
    JsonObject = dict[str, Any]
