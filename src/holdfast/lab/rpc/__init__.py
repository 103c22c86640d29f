"""The two call wires of a pool: bytes to a method with parameters, results and failures back to bytes."""

from holdfast.lab.rpc import json as json_rpc
from holdfast.lab.rpc import xml as xml_rpc
from holdfast.lab.rpc.lexer import MalformedCall
from holdfast.lab.rpc.xml import parse_value, position_text, write_value

__all__ = ["MalformedCall", "json_rpc", "parse_value", "position_text", "write_value", "xml_rpc"]
