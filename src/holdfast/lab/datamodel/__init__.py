"""The pool's datamodel as data: types, classes, fields and calls."""

from holdfast.lab.datamodel.access import NOBODY, READ_ONLY, ROLES, Access, Door, load_access
from holdfast.lab.datamodel.table import Call, ClassTable, Datamodel, Field, Parameter, load_datamodel
from holdfast.lab.datamodel.types import (
    EPOCH,
    NULL_REF,
    DateTime,
    Kind,
    SmallInt,
    Type,
    describe,
    parse_float,
    parse_type,
    parse_whole,
)

__all__ = [
    "EPOCH",
    "NOBODY",
    "NULL_REF",
    "READ_ONLY",
    "ROLES",
    "Access",
    "Call",
    "ClassTable",
    "Datamodel",
    "DateTime",
    "Door",
    "Field",
    "Kind",
    "Parameter",
    "SmallInt",
    "Type",
    "describe",
    "load_access",
    "load_datamodel",
    "parse_float",
    "parse_type",
    "parse_whole",
]
