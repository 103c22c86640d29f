"""The dump of the pool's database: one XML document of every row of every table, as a host streams and restores it."""

from holdfast.lab.dump.layout import SCHEMA_MAJOR, SCHEMA_MINOR
from holdfast.lab.dump.read import Dump, DumpMalformed, DumpReader
from holdfast.lab.dump.write import write_dump

__all__ = ["SCHEMA_MAJOR", "SCHEMA_MINOR", "Dump", "DumpMalformed", "DumpReader", "write_dump"]
