"""The nouns of the command line, each with its sentence: known before any of them is loaded."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["NOUNS"]

NOUNS: Mapping[str, str] = {
    "pool": "The pools that Holdfast may log in to.",
    "vm": "The VMs of a pool.",
    "repository": "Where restore points live, and who can open it.",
    "backup": "Make restore points.",
    "point": "Restore points: one VM at one moment, complete in itself.",
    "restore": "Bring a restore point back.",
    "run": "What was executed, and how to continue or close it.",
    "lab": "A simulated pool on this machine, to learn, rehearse and test on.",
    "keeper": "On a file server, as root: hold a repository's objects against deletion.",
}
