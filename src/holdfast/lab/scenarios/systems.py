"""The operating systems of a scenario's VMs: what the guest says of itself, and which template made its VM.

Invariant: a system and the record of a VM that runs it agree, as they do where people install what a template names.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.lab.images import GuestSystem

__all__ = ["DEBIAN", "LEAP", "ROCKY", "SERVER_2016", "SERVER_2022", "UBUNTU", "WINDOWS_11", "System", "without_tools"]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """An operating system and the template that its VMs were made from."""

    guest: GuestSystem
    template: str
    reference_label: str
    filesystem: str
    """The committed file system that its root is; see ``holdfast.lab.images.PREPARED``."""

    @property
    def is_windows(self) -> bool:
        """Whether it is one of Microsoft's."""
        return self.guest.distro == "windows"


DEBIAN = System(
    guest=GuestSystem(
        name="Debian GNU/Linux 13 (trixie)", distro="debian", major="13", minor="1", kernel="6.12.48+deb13-amd64"
    ),
    template="Debian Trixie 13",
    reference_label="debian-13",
    filesystem="ext4-server",
)
UBUNTU = System(
    guest=GuestSystem(name="Ubuntu 24.04.3 LTS", distro="ubuntu", major="24", minor="04", kernel="6.8.0-85-generic"),
    template="Ubuntu Noble Numbat 24.04",
    reference_label="ubuntu-24.04",
    filesystem="ext4-server",
)
ROCKY = System(
    guest=GuestSystem(
        name="Rocky Linux 9.6 (Blue Onyx)", distro="rocky", major="9", minor="6", kernel="5.14.0-570.el9.x86_64"
    ),
    template="Rocky Linux 9",
    reference_label="rocky-9",
    filesystem="xfs-server",
)
LEAP = System(
    guest=GuestSystem(
        name="openSUSE Leap 15.6", distro="opensuse-leap", major="15", minor="6", kernel="6.4.0-150600.23-default"
    ),
    template="SUSE Linux Enterprise 15 (64-bit)",
    reference_label="sle-15-64bit",
    filesystem="btrfs-server",
)
SERVER_2022 = System(
    guest=GuestSystem(
        name="Microsoft Windows Server 2022 Standard", distro="windows", major="10", minor="0", kernel="20348"
    ),
    template="Windows Server 2022 (64-bit)",
    reference_label="windows-server-2022-64bit",
    filesystem="ntfs-windows",
)
SERVER_2016 = System(
    guest=GuestSystem(
        name="Microsoft Windows Server 2016 Standard", distro="windows", major="10", minor="0", kernel="14393"
    ),
    template="Windows Server 2016 (64-bit)",
    reference_label="windows-server-2016-64bit",
    filesystem="ntfs-windows",
)
WINDOWS_11 = System(
    guest=GuestSystem(name="Microsoft Windows 11 Pro", distro="windows", major="10", minor="0", kernel="26100"),
    template="Windows 11 (64-bit)",
    reference_label="windows-11-64bit",
    filesystem="ntfs-windows",
)


def without_tools(system: System) -> System:
    """Return the same system as somebody left it who never installed the guest tools."""
    guest = GuestSystem(
        name=system.guest.name,
        distro=system.guest.distro,
        major=system.guest.major,
        minor=system.guest.minor,
        kernel=system.guest.kernel,
        has_tools=False,
    )
    return System(
        guest=guest,
        template=system.template,
        reference_label=system.reference_label,
        filesystem=system.filesystem,
    )
