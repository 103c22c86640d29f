"""Where a pool is and who asks: a URL parsed once, and credentials that never print their password."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from holdfast.core import ExitStatus, HoldfastError, Secret

__all__ = ["AddressInvalid", "Credentials", "PoolAddress"]

_DEFAULT_PORTS = {"https": 443, "http": 80}


class AddressInvalid(HoldfastError):
    """The text given as a pool's address is none."""

    code = "pool.address-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was contacted."
    advice = "Give the pool master's address as https://host or https://host:port."

    def __init__(self, *, text: str, why: str) -> None:
        super().__init__(f"{text!r} is not the address of a pool: {why}")
        self.text, self.why = text, why


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolAddress:
    """Scheme, host and port of a pool's API. IPv6 hosts are kept without brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> PoolAddress:
        """Return the address in ``https://host[:port]``; a bare host means https. ``AddressInvalid`` otherwise."""
        url = text.strip()
        if "://" not in url:
            url = f"https://{url}"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as cause:
            raise AddressInvalid(text=text, why=str(cause)) from cause
        if parts.scheme not in _DEFAULT_PORTS:
            raise AddressInvalid(text=text, why=f"the scheme is {parts.scheme!r}, not https or http")
        if not parts.hostname or any(each.isspace() for each in parts.hostname):
            raise AddressInvalid(text=text, why="it names no host")
        if parts.username is not None or parts.password is not None:
            # The text is not repeated: it may hold a password.
            raise AddressInvalid(text=f"{parts.scheme}://…@{parts.hostname}", why="it must not contain credentials")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise AddressInvalid(text=text, why="there is something after the host")
        return cls(scheme=parts.scheme, host=parts.hostname, port=port or _DEFAULT_PORTS[parts.scheme])

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """``host`` or ``host:port`` as it stands in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as a URL without a trailing slash; ``parse`` takes it back."""
        return f"{self.scheme}://{self.authority}"

    def at_host(self, host: str) -> PoolAddress:
        """Return the same scheme and port on another host of the pool; XAPI names hosts by bare address."""
        return PoolAddress(scheme=self.scheme, host=host.strip("[]"), port=self.port)

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user of the pool. Role ``vm-power-admin`` suffices for everything that Holdfast calls."""

    user: str
    password: Secret
