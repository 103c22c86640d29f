"""A real SQLite database of a wanted size: 8 KiB pages, documents and orders, an index.

Invariant: ``PRAGMA integrity_check`` says ok, until a guest's page writes turn it into something only database-like.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from holdfast.core import KIB, MIB
from holdfast.lab.images.text import Prose, noise

__all__ = ["DATABASE_PAGE_BYTES", "write_database"]

DATABASE_PAGE_BYTES = 8 * KIB
_BATCH_BYTES = 8 * MIB
_ORDERS_PER_DOCUMENT = 4

_SCHEMA = f"""
    pragma page_size = {DATABASE_PAGE_BYTES};
    pragma journal_mode = off;
    pragma synchronous = off;
    create table documents(id integer primary key, title text, body text, token blob);
    create table orders(id integer primary key, document integer, customer text, price real, quantity integer);
    create index orders_by_customer on orders(customer);
"""

_Document = tuple[str, str, bytes]
_Order = tuple[int, str, float, int]


def write_database(path: Path, size_bytes: int, *, generator: np.random.Generator, prose: Prose | None = None) -> None:
    """Write a new database of about that size, never larger unless that is too small for a schema (64 KiB).

    Its texts are cut from ``prose`` where that is given.
    """
    prose = prose or Prose(generator, corpus_bytes=max(size_bytes // 8, 64 * KIB))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(_SCHEMA)
        while (left_bytes := size_bytes - path.stat().st_size) > 8 * DATABASE_PAGE_BYTES:
            # A batch lands somewhat above its text's size: aim below, and come back for the rest.
            batch_bytes = min(_BATCH_BYTES, left_bytes // 2 if left_bytes > MIB else left_bytes // 4)
            documents = list(_documents(prose, generator, batch_bytes))
            connection.execute("begin")
            connection.executemany("insert into documents(title, body, token) values(?, ?, ?)", documents)
            connection.executemany(
                "insert into orders(document, customer, price, quantity) values(?, ?, ?, ?)",
                _orders(prose, generator, len(documents) * _ORDERS_PER_DOCUMENT),
            )
            connection.execute("commit")


def _documents(prose: Prose, generator: np.random.Generator, total_bytes: int) -> Iterator[_Document]:
    while total_bytes > 0:
        length = int(generator.integers(500, 6000))
        yield prose.text(40), prose.text(length), noise(generator, 40)
        total_bytes -= length + 400


def _orders(prose: Prose, generator: np.random.Generator, count: int) -> Iterator[_Order]:
    prices, quantities = generator.uniform(1, 900, count), generator.integers(1, 20, count)
    documents = generator.integers(1, 1 << 20, count)
    for row in range(count):
        yield int(documents[row]), prose.text(24), round(float(prices[row]), 2), int(quantities[row])
