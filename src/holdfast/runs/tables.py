"""The tables of ``runs.db``: what a run did, told to people, and the ledger. The engine's own state is another file.

Times are text (UTC, ISO 8601) and structured values are JSON text, so that any SQLite shell can read the history.
"""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["RUNS_WITH_LEDGER", "findings", "ledger", "metadata", "notes", "runs", "schema", "steps"]

RUNS_WITH_LEDGER = 1
"""The schema's first version."""

metadata = sa.MetaData()

schema = sa.Table("holdfast_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("flow_version", sa.Integer, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("args", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("executor", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("requested", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("progress", sa.Text, nullable=False),
    sa.Column("started", sa.Text, nullable=False),
    sa.Column("updated", sa.Text, nullable=False),
    sa.Column("ended", sa.Text),
    sa.Index("runs_by_start", "started"),
)

steps = sa.Table(
    "steps",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("started", sa.Text, nullable=False),
    sa.Column("duration_s", sa.Float),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("run_id", "name"),
)

findings = sa.Table(
    "findings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("next_step", sa.Text, nullable=False),
    sa.UniqueConstraint("run_id", "severity", "subject", "message"),
)

notes = sa.Table(
    "notes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("told", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.UniqueConstraint("run_id", "message"),
)

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("external_id", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("updated", sa.Text, nullable=False),
    sa.Index("ledger_by_state", "state", "pool"),
    sa.Index("ledger_by_run", "run_id"),
    sqlite_autoincrement=True,
)
"""Line ids are never given out twice: a step may hold one in its recorded result long after the line was pruned."""
