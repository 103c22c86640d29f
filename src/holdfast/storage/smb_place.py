"""Where an SMB share is: the spellings that people use, brought to one.

``smb://[domain;]user@server[:port]/share/folder``, ``\\\\server\\share\\folder`` and ``//server/share/folder`` name the
same place. Invariant: a place holds no password and no name that would lead out of its share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from holdfast.storage.errors import LocationRefused

__all__ = ["SMB_PORT", "SMB_SCHEME", "SmbPlace", "is_smb_location", "parse_smb_location"]

SMB_SCHEME = "smb"
SMB_PORT = 445

_SERVER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%a-z]*")
_NEVER_IN_A_NAME = re.compile(r'[\x00-\x1f<>:"|?*]')
_ENCRYPTION = "encryption"
_REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmbPlace:
    """A folder in a share, and who we are there."""

    server: str
    share: str
    folder: tuple[str, ...] = ()
    user: str = ""
    """Without its domain; empty when the location does not say."""
    domain: str = ""
    port: int = SMB_PORT
    encrypted: bool = False
    """Whether to refuse a server that cannot encrypt the connection. One that can is always asked to."""

    @property
    def share_path(self) -> str:
        """The share as the protocol names it."""
        return rf"\\{self.server}\{self.share}"

    @property
    def login(self) -> str:
        """The user as the server knows it, with the domain where one was named."""
        return rf"{self.domain}\{self.user}" if self.domain else self.user

    @property
    def location(self) -> str:
        """The one spelling that is remembered."""
        domain = f"{quote(self.domain, safe='')};" if self.domain else ""
        user = f"{domain}{quote(self.user, safe='')}@" if self.user else ""
        server = f"[{self.server}]" if ":" in self.server else self.server
        port = "" if self.port == SMB_PORT else f":{self.port}"
        path = "/".join(quote(name, safe="") for name in (self.share, *self.folder))
        return f"{SMB_SCHEME}://{user}{server}{port}/{path}{f'?{_ENCRYPTION}={_REQUIRED}' if self.encrypted else ''}"

    def describe(self) -> str:
        """Return where this is, for people."""
        port = "" if self.port == SMB_PORT else f", port {self.port}"
        return f"share {'/'.join(['//' + self.server, self.share, *self.folder])} (SMB{port})"


def is_smb_location(location: str) -> bool:
    """Return whether the text means a share, in any of its spellings. A path may not begin with two slashes."""
    return location.lower().startswith(f"{SMB_SCHEME}://") or re.match(r"(\\\\|//)[^/\\]", location) is not None


def parse_smb_location(location: str) -> SmbPlace:
    """Return the place that the text names; ``LocationRefused`` when it names none."""
    if location.lower().startswith(f"{SMB_SCHEME}://"):
        return _from_url(location)
    words = location.replace("\\", "/").removeprefix("//")
    server, _, path = words.partition("/")
    return _place(location, server=server, path=path.split("/"))


def _from_url(location: str) -> SmbPlace:
    url = urlsplit(location)
    hidden = re.sub(r"//[^/@]*@", "//***@", location)
    if url.password is not None:
        # Refused without being repeated: what is refused is printed and logged.
        raise LocationRefused(location=hidden, reason="a password does not belong in it; give it as --credentials")
    try:
        port = url.port or SMB_PORT
    except ValueError:
        raise LocationRefused(location=hidden, reason="the port is not a number up to 65535") from None
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if url.fragment or options not in ({}, {_ENCRYPTION: _REQUIRED}):
        raise LocationRefused(location=hidden, reason=f"after the folder only ?{_ENCRYPTION}={_REQUIRED} may follow")
    domain, user = _login(unquote(url.username or ""))
    return _place(
        hidden,
        server=url.hostname or "",
        path=[unquote(name) for name in url.path.split("/")],
        port=port,
        user=user,
        domain=domain,
        encrypted=bool(options),
    )


def _login(text: str) -> tuple[str, str]:
    r"""Return domain and user of ``DOMAIN;user``, ``DOMAIN\user`` or ``user``; ``user@domain`` stays as it is."""
    domain, separator, user = text.replace("\\", ";").partition(";")
    return (domain, user) if separator else ("", text)


def _place(
    location: str,
    *,
    server: str,
    path: list[str],
    port: int = SMB_PORT,
    user: str = "",
    domain: str = "",
    encrypted: bool = False,
) -> SmbPlace:
    """Return the place; duplicate slashes and one at the end mean nothing."""
    names = [name for name in path if name]
    if not _SERVER.fullmatch(server):
        raise LocationRefused(location=location, reason="it does not name a server: write smb://server/share/folder")
    if not names:
        raise LocationRefused(location=location, reason="it does not name a share: write smb://server/share/folder")
    for name in names:
        if name in (".", "..") or "\\" in name or "/" in name or _NEVER_IN_A_NAME.search(name):
            raise LocationRefused(location=location, reason=f"{name!r} cannot be the name of a share or folder")
        if name != name.strip() or name.endswith("."):
            raise LocationRefused(
                location=location, reason=f"servers change the name {name!r}: no space or dot at its end"
            )
    return SmbPlace(
        server=server,
        share=names[0],
        folder=tuple(names[1:]),
        user=user,
        domain=domain,
        port=port,
        encrypted=encrypted,
    )
