"""The directory of users that the lab's pool trusts besides its own root: one per role, to rehearse rights with.

On a real pool this is an Active Directory. Its users have no rights until they are *subjects* of the pool with a role.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.lab.datamodel import ROLES

__all__ = ["AUTH_TYPE", "SERVICE_NAME", "Account", "Directory"]

AUTH_TYPE = "AD"
SERVICE_NAME = "lab.example"
_DOMAIN = "LAB"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the directory."""

    name: str
    sid: str
    """How the pool identifies him: the subject identifier."""

    @property
    def subject_name(self) -> str:
        """His name with the domain, as the pool shows it."""
        return f"{_DOMAIN}\\{self.name}"

    def information(self) -> dict[str, str]:
        """Return what the directory tells of him."""
        return {
            "subject-name": self.subject_name,
            "subject-upn": f"{self.name}@{SERVICE_NAME}",
            "subject-uid": self.sid.rpartition("-")[2],
            "subject-gid": "513",
            "subject-sid": self.sid,
            "subject-gecos": self.name,
            "subject-displayname": self.name,
            "subject-is-group": "false",
            "subject-account-disabled": "false",
            "subject-account-expired": "false",
            "subject-account-locked": "false",
            "subject-password-expired": "false",
        }


class Directory:
    """The users, by name or identifier. An empty one stands for a pool without a directory."""

    def __init__(self, *, is_joined: bool) -> None:
        names = [role for role in ROLES if role != "client-cert"] if is_joined else []
        self.accounts = [
            Account(name, f"S-1-5-21-397955417-626881126-188441444-{1001 + number}")
            for number, name in enumerate(names)
        ]

    @property
    def is_joined(self) -> bool:
        """Whether the pool has a directory at all."""
        return bool(self.accounts)

    def find(self, name: str) -> Account | None:
        """Return the user of this name, however it is spelled."""
        plain = name.rpartition("\\")[2].partition("@")[0].lower()
        return next((each for each in self.accounts if each.name == plain), None)

    def by_sid(self, sid: str) -> Account | None:
        """Return the user with this identifier."""
        return next((each for each in self.accounts if each.sid == sid), None)
