"""The type of values that came as JSON or XML-RPC and are kept whole, unknown fields included."""

from __future__ import annotations

__all__ = ["JsonObject", "JsonValue"]

JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]
JsonObject = dict[str, JsonValue]
