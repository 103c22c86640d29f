"""Calls of blobs: small files that clients keep beside an object.

A blob's bytes are not kept by the lab, only its record.
"""

from __future__ import annotations

from holdfast.lab.context import CallSet, Context
from holdfast.lab.datamodel import EPOCH
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

_PLAIN = "application/octet-stream"


@calls.on("blob.create")
def create(context: Context, mime_type: str, public: bool = False) -> str:
    """Make an empty blob that belongs to nobody."""
    values = {"mime_type": mime_type or _PLAIN, "public": public, "last_updated": EPOCH}
    return context.db.create("blob", values)


@calls.on("blob.destroy")
def destroy(context: Context, blob: str) -> str:
    """Remove a blob; whatever has it goes on naming it."""
    context.db.destroy("blob", blob)
    return ""


def _new_blob(context: Context, cls: str, owner: str, name: str, mime_type: str, is_public: bool) -> str:
    db = context.db
    with db.transaction():
        blobs = db.mapping(cls, owner, "blobs")
        blob = create(context, mime_type, is_public)
        if name not in blobs:
            db.put_key(cls, owner, "blobs", key=name, value=blob)
            return blob
    raise ApiFailure("MAP_DUPLICATE_KEY", cls, "blobs", owner, name)


@calls.on("network.create_new_blob")
def create_network_blob(context: Context, network: str, name: str, mime_type: str, public: bool = False) -> str:
    """Give a network a place for a small file; the blob exists even where the name is taken."""
    return _new_blob(context, "network", network, name, mime_type, public)


@calls.on("host.create_new_blob")
def create_host_blob(context: Context, host: str, name: str, mime_type: str, public: bool = False) -> str:
    """Give a host a place for a small file; the blob exists even where the name is taken."""
    return _new_blob(context, "host", host, name, mime_type, public)


@calls.on("pool.create_new_blob")
def create_pool_blob(context: Context, pool: str, name: str, mime_type: str, public: bool = False) -> str:
    """Give the pool a place for a small file; the blob exists even where the name is taken."""
    return _new_blob(context, "pool", pool, name, mime_type, public)


@calls.on("SR.create_new_blob")
def create_sr_blob(context: Context, sr: str, name: str, mime_type: str, public: bool = False) -> str:
    """Give a repository a place for a small file; the blob exists even where the name is taken."""
    return _new_blob(context, "SR", sr, name, mime_type, public)
