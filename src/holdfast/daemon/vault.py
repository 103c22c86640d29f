"""The vault as files: each secret is an age file that only this machine's identity opens.

Invariant: nothing in the folder is readable without ``machine.key`` (mode 0600), which never leaves the machine. Losing
it costs the stored pool passwords, never a restore point: repositories have other holders.
"""

from __future__ import annotations

from pathlib import Path

import pyrage

from holdfast.core import HoldfastError, Secret
from holdfast.daemon.registry import write_private_file
from holdfast.service import SecretMissing

__all__ = ["FileVault", "MachineKeyDamaged"]


class MachineKeyDamaged(HoldfastError):
    """The machine's own key file is not an age identity."""

    code = "config.machine-key-damaged"
    effect = "Stored passwords cannot be opened; repositories can still be opened with a passphrase or recovery key."

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not an age identity that can be read")
        self.path = str(path)

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Restore {self.path} from a copy, or delete it and add pools and connect repositories again."


class FileVault:
    """See ``holdfast.service.Vault``; kept in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def identity(self) -> Secret:
        """See ``Vault.identity``."""
        return Secret(str(self._identity()))

    @property
    def public_key(self) -> str:
        """See ``Vault.public_key``."""
        return str(self._identity().to_public())

    def store(self, name: str, secret: Secret) -> None:
        """See ``Vault.store``."""
        sealed = pyrage.encrypt(secret.reveal().encode(), [self._identity().to_public()])
        write_private_file(self._path(name), sealed)

    def load(self, name: str) -> Secret:
        """See ``Vault.load``."""
        try:
            sealed = self._path(name).read_bytes()
            return Secret(pyrage.decrypt(sealed, [self._identity()]).decode())
        except (OSError, pyrage.DecryptError) as cause:
            raise SecretMissing(what=name) from cause

    def forget(self, name: str) -> None:
        """See ``Vault.forget``."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name.replace('/', '-')}.age"

    def _identity(self) -> pyrage.x25519.Identity:
        path = self._folder / "machine.key"
        if not path.exists():
            write_private_file(path, f"{pyrage.x25519.Identity.generate()}\n".encode(), replace=False)
        try:
            return pyrage.x25519.Identity.from_str(path.read_text().strip())
        except (pyrage.IdentityError, UnicodeDecodeError, OSError) as cause:
            raise MachineKeyDamaged(path) from cause
