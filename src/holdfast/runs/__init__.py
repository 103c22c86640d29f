"""Durable runs: executions that survive kill -9, their records, and the ledger of what we created elsewhere."""
