"""Where Holdfast keeps its own files. The only reader of the environment besides the command line itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings", "read_settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The folders of one installation. All of them are private to the user (mode 0700)."""

    home: Path

    @property
    def config_folder(self) -> Path:
        """Pools and repositories that were added, one JSON file each."""
        return self.home / "config"

    @property
    def secrets_folder(self) -> Path:
        """Secrets sealed for this machine, and the machine's own key."""
        return self.home / "secrets"

    @property
    def runs_folder(self) -> Path:
        """Durable runs and the ledger."""
        return self.home / "runs"

    @property
    def cache_folder(self) -> Path:
        """Copies of small objects of repositories that are far away; may be deleted at any time."""
        return self.home / "cache"

    @property
    def requests_folder(self) -> Path:
        """What was asked of stores that charge for it, for estimates of their costs."""
        return self.home / "requests"

    @property
    def lab_folder(self) -> Path:
        """The default place of the lab pool's state."""
        return self.home / "lab"


def read_settings(*, home: Path | None = None) -> Settings:
    """Return the settings: ``home``, else ``$HOLDFAST_HOME``, else ``$XDG_DATA_HOME/holdfast``, else
    ``~/.local/share/holdfast``."""
    if home is None:
        named = os.environ.get("HOLDFAST_HOME")
        data = os.environ.get("XDG_DATA_HOME")
        home = Path(named) if named else Path(data or "~/.local/share") / "holdfast"
    return Settings(home=home.expanduser().absolute())
