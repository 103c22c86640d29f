"""The pool's datamodel as data: types, classes, fields and calls."""

from holdfast.lab.datamodel.table import Call, ClassTable, Datamodel, Field, Parameter, load_datamodel
from holdfast.lab.datamodel.types import EPOCH, NULL_REF, DateTime, Kind, Type, describe, parse_type

__all__ = [
    "EPOCH",
    "NULL_REF",
    "Call",
    "ClassTable",
    "Datamodel",
    "DateTime",
    "Field",
    "Kind",
    "Parameter",
    "Type",
    "describe",
    "load_datamodel",
    "parse_type",
]
