"""Calls of the certificates that a pool trusts, and of the lists of those that it no longer does.

The lab reaches nobody, so it only keeps them. Invariant: a certificate of a name is one record of the class
``Certificate``; those without a name are told apart by their fingerprints.
"""

from __future__ import annotations

import re

from cryptography import x509

from holdfast.lab.certificate import certificate_fields
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields, Row
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

_FILE_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]*\.pem")
"""Names are file names on the hosts."""


def _parse(context: Context, text: str, *, kind: str) -> Fields:
    try:
        certificate = x509.load_pem_x509_certificate(text.encode())
    except ValueError as cause:
        raise ApiFailure(f"{kind}_INVALID") from cause
    now = context.pool.clock.now()
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < starts:
        raise ApiFailure(f"{kind}_NOT_VALID_YET", f"{now:%FT%TZ}", f"{starts:%FT%TZ}")
    if now > ends:
        raise ApiFailure(f"{kind}_EXPIRED", f"{now:%FT%TZ}", f"{ends:%FT%TZ}")
    return certificate_fields(certificate)


def _check_name(name: str, *, kind: str) -> None:
    if not name:
        raise ApiFailure("INTERNAL_ERROR", 'Invalid_argument("index out of bounds")')
    if not _FILE_NAME.fullmatch(name):
        raise ApiFailure(f"{kind}_NAME_INVALID", name)


def _named(context: Context) -> list[Row]:
    """Return the authorities that were installed under a name."""
    return [row for row in context.db.rows("Certificate") if row.fields["type"] == "ca" and row.fields["name"]]


# -- authorities by name


@calls.on("pool.certificate_list")
def list_certificates(context: Context) -> list[str]:
    """Return the names of the authorities."""
    return [str(row.fields["name"]) for row in _named(context)]


@calls.on("pool.certificate_install", "pool.install_ca_certificate")
def install_certificate(context: Context, name: str, text: str) -> str:
    """Trust an authority; a name is taken once."""
    values = _parse(context, text, kind="CA_CERTIFICATE")
    _check_name(name, kind="CERTIFICATE")
    with context.db.transaction():
        if name in list_certificates(context):
            raise ApiFailure("CERTIFICATE_ALREADY_EXISTS", name)
        context.db.create("Certificate", {**values, "name": name, "type": "ca", "host": NULL_REF})
    return ""


@calls.on("pool.certificate_uninstall", "pool.uninstall_ca_certificate")
def uninstall_certificate(context: Context, name: str, force: bool = False) -> str:
    """Trust an authority no more; force only changes how an unknown name is refused."""
    _check_name(name, kind="CERTIFICATE")
    doomed = [row.ref for row in _named(context) if row.fields["name"] == name]
    if not doomed and force:
        raise ApiFailure("INVALID_VALUE", "certificate:name", name)
    if not doomed:
        raise ApiFailure("CERTIFICATE_DOES_NOT_EXIST", name)
    for ref in doomed:
        context.db.destroy("Certificate", ref)
    return ""


@calls.on("pool.certificate_sync")
def sync_certificates(context: Context) -> str:
    """Nothing to spread: the hosts of a lab share everything."""
    return ""


# -- certificates by purpose


@calls.on("pool.install_trusted_certificate")
def install_trusted_certificate(context: Context, pool: str, ca: bool, text: str, purpose: list[str]) -> str:
    """Trust an authority, or one certificate, for some purposes."""
    values = _parse(context, text, kind="TRUSTED_CERTIFICATE")
    if not (ca or purpose):
        raise ApiFailure("CERTIFICATE_LACKS_PURPOSE")
    kind = "ca" if ca else "pinned"
    with context.db.transaction():
        for row in context.db.rows("Certificate"):
            known = row.fields
            if known["type"] != kind or known["fingerprint_sha256"] != values["fingerprint_sha256"]:
                continue
            if set(purpose) == set(known["purpose"]) or set(purpose) & set(known["purpose"]):  # type: ignore[call-overload]
                raise ApiFailure("TRUSTED_CERTIFICATE_ALREADY_EXISTS", str(known["fingerprint_sha256"]))
        context.db.create("Certificate", {**values, "type": kind, "host": NULL_REF, "purpose": purpose})
    return ""


@calls.on("pool.uninstall_trusted_certificate")
def uninstall_trusted_certificate(context: Context, pool: str, certificate: str) -> str:
    """Trust it no more; a host's own certificate is not touched."""
    row = context.db.find("Certificate", certificate)
    if row is None:
        raise ApiFailure("HANDLE_INVALID", "certificate", certificate)
    if row.fields["type"] not in ("ca", "pinned"):
        raise ApiFailure("NOT_TRUSTED_CERTIFICATE", certificate)
    context.db.destroy("Certificate", certificate)
    return ""


# -- revoked ones


@calls.on("pool.crl_list")
def list_revocations(context: Context) -> list[str]:
    """Return the names of the lists of revoked certificates."""
    return list(context.pool.revocation_lists)


@calls.on("pool.crl_install")
def install_revocations(context: Context, name: str, text: str) -> str:
    """Keep a list of revoked certificates; nobody looks into it."""
    _check_name(name, kind="CRL")
    if name in context.pool.revocation_lists:
        raise ApiFailure("CRL_ALREADY_EXISTS", name)
    context.pool.revocation_lists[name] = text
    return ""


@calls.on("pool.crl_uninstall")
def uninstall_revocations(context: Context, name: str) -> str:
    """Forget a list of revoked certificates."""
    _check_name(name, kind="CRL")
    if context.pool.revocation_lists.pop(name, None) is None:
        raise ApiFailure("CRL_DOES_NOT_EXIST", name)
    return ""
