"""Calls of update repositories: which the pool knows and uses. The lab fetches nothing from any of them."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from holdfast.lab.calls.common import check_licence
from holdfast.lab.calls.pool import pool_operation
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.hosts import check_alive

__all__ = ["calls"]

calls = CallSet()

_KEY_NAME = re.compile(r"[A-Za-z0-9_-]*")
_REMOTE_PATH = "/repository/enabled"
"""Where a pool offers what it has to other pools."""

_WEEKDAYS = range(7)


# -- known


def _check_new(context: Context, label: str, *, url: str | None = None) -> None:
    for row in context.db.rows("Repository"):
        if row.fields["name_label"] == label or (url is not None and row.fields["binary_url"] == url):
            raise ApiFailure("REPOSITORY_ALREADY_EXISTS", row.ref)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ApiFailure("INVALID_BASE_URL", url)


def _check_remote_url(url: str) -> None:
    """Another pool is named by the address of its master."""
    parts = urlsplit(url)
    try:
        ipaddress.ip_address(parts.hostname or "")
    except ValueError as cause:
        raise ApiFailure("INVALID_BASE_URL", url) from cause
    if parts.scheme != "https" or parts.path != _REMOTE_PATH:
        raise ApiFailure("INVALID_BASE_URL", url)


def _check_key(name: str) -> None:
    if not _KEY_NAME.fullmatch(name):
        raise ApiFailure("INVALID_GPGKEY_PATH", name)


@calls.on("Repository.introduce")
def introduce(
    context: Context,
    label: str,
    description: str,
    binary_url: str,
    source_url: str,
    update: bool,
    gpgkey_path: str = "",
) -> str:
    """Make a repository on the network known."""
    _check_url(binary_url)
    _check_url(source_url)
    _check_key(gpgkey_path)
    with context.db.transaction():
        _check_new(context, label, url=binary_url)
        values: Fields = {"name_label": label, "name_description": description, "binary_url": binary_url}
        values |= {"source_url": source_url, "update": update, "gpgkey_path": gpgkey_path, "origin": "remote"}
        return context.db.create("Repository", values)


@calls.on("Repository.introduce_bundle")
def introduce_bundle(context: Context, label: str, description: str) -> str:
    """Make a repository known that is filled from an uploaded bundle; there can be one."""
    with context.db.transaction():
        _check_new(context, label)
        for row in context.db.rows("Repository"):
            if row.fields["origin"] == "bundle":
                raise ApiFailure("BUNDLE_REPOSITORY_ALREADY_EXISTS", row.ref)
        values: Fields = {"name_label": label, "name_description": description, "update": True, "origin": "bundle"}
        return context.db.create("Repository", values)


@calls.on("Repository.introduce_remote_pool")
def introduce_remote_pool(context: Context, label: str, description: str, url: str, certificate: str) -> str:
    """Make the repository of another pool known."""
    _check_remote_url(url)
    with context.db.transaction():
        _check_new(context, label, url=url)
        values: Fields = {"name_label": label, "name_description": description, "binary_url": url, "update": True}
        return context.db.create("Repository", {**values, "origin": "remote_pool", "certificate": certificate})


@calls.on("Repository.forget")
def forget(context: Context, repository: str) -> str:
    """Forget a repository that the pool does not use."""
    if repository in context.db.texts("pool", context.pool.pool_ref, "repositories"):
        raise ApiFailure("REPOSITORY_IS_IN_USE")
    context.db.destroy("Repository", repository)
    return ""


@calls.on("pool_patch.clean")
def clean_patch(context: Context, patch: str) -> str:
    """Nothing to do since updates are no patches any more."""
    return ""


@calls.on("pool_update.apply", "pool_update.precheck")
def check_update(context: Context, update: str, host: str) -> str:
    """Refused: no update was ever introduced. The host that should do it must be alive all the same."""
    check_alive(context.pool, host)
    context.db.row("pool_update", update)
    raise ApiFailure("CANNOT_FIND_UPDATE", update)


@calls.on("Repository.set_gpgkey_path")
def set_gpgkey_path(context: Context, repository: str, value: str) -> str:
    """Say which key signs the repository."""
    _check_key(value)
    context.db.set("Repository", repository, "gpgkey_path", value)
    return ""


# -- used


def _use(context: Context, pool: str, repositories: list[str]) -> None:
    db = context.db
    origins = [db.text("Repository", each, "origin") for each in repositories]
    if len(origins) > 1 and set(origins) != {"remote"}:
        raise ApiFailure("REPO_SHOULD_BE_SINGLE_ONE_ENABLED")
    with db.transaction():
        before = db.texts("pool", pool, "repositories")
        for repository in set(repositories) - set(before):
            db.set("Repository", repository, "hash", "")
        values: Fields = {"repositories": repositories}
        if not repositories or set(repositories) - set(before):
            values["last_update_sync"] = EPOCH
        if any(origin != "remote" for origin in origins):
            values["update_sync_enabled"] = False
        db.update("pool", pool, values)


@calls.on("pool.set_repositories")
def set_repositories(context: Context, pool: str, repositories: list[str]) -> str:
    """Say where updates come from."""
    context.db.row("pool", pool)
    with pool_operation(context, "configure_repositories"):
        _use(context, pool, repositories)
    return ""


@calls.on("pool.add_repository")
def add_repository(context: Context, pool: str, repository: str) -> str:
    """Take updates from one more repository."""
    with pool_operation(context, "configure_repositories"):
        before = context.db.texts("pool", pool, "repositories")
        if repository not in before:
            _use(context, pool, [*before, repository])
    return ""


@calls.on("pool.remove_repository")
def remove_repository(context: Context, pool: str, repository: str) -> str:
    """Take no updates from a repository any more."""
    with pool_operation(context, "configure_repositories"):
        before = context.db.texts("pool", pool, "repositories")
        _use(context, pool, [each for each in before if each != repository])
    return ""


@calls.on("pool.sync_updates")
def sync_updates(context: Context, pool: str, force: bool, *credentials: str) -> str:
    """Look for updates; the lab finds none, and cannot look without a repository."""
    db = context.db
    check_licence(context, "updates", "Updates")
    with pool_operation(context, "sync_updates"):
        repositories = db.texts("pool", pool, "repositories")
        if not repositories:
            raise ApiFailure("NO_REPOSITORY_ENABLED")
        if any(db.text("Repository", each, "origin") == "bundle" for each in repositories):
            raise ApiFailure("CAN_NOT_SYNC_UPDATES")
        raise ApiFailure("REPOSYNC_FAILED", repositories[0])


@calls.on("pool.configure_update_sync")
def configure_update_sync(context: Context, pool: str, frequency: str, day: int) -> str:
    """Say how often updates are looked for."""
    if frequency == "weekly" and day not in _WEEKDAYS:
        raise ApiFailure("INVALID_UPDATE_SYNC_DAY", str(day))
    values: Fields = {"update_sync_frequency": frequency, "update_sync_day": day if frequency == "weekly" else 0}
    context.db.update("pool", pool, values)
    return ""


@calls.on("pool.set_update_sync_enabled")
def set_update_sync_enabled(context: Context, pool: str, value: bool) -> str:
    """Look for updates regularly, or not; only where there is somewhere to look."""
    db = context.db
    repositories = db.texts("pool", pool, "repositories")
    if value and not repositories:
        raise ApiFailure("NO_REPOSITORIES_CONFIGURED")
    if value and any(db.text("Repository", each, "origin") != "remote" for each in repositories):
        raise ApiFailure("CAN_NOT_PERIODIC_SYNC_UPDATES")
    db.set("pool", pool, "update_sync_enabled", value)
    return ""


@calls.on("pool.configure_repository_proxy")
def configure_repository_proxy(context: Context, pool: str, url: str, user: str, password: str) -> str:
    """Fetch updates through a proxy; its password becomes a secret."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ApiFailure("INVALID_REPOSITORY_PROXY_URL", url)
    if bool(user) != bool(password) or "\n" in user + password:
        raise ApiFailure("INVALID_REPOSITORY_PROXY_CREDENTIAL")
    with context.db.transaction():
        secret = context.db.create("secret", {"value": password}) if password else NULL_REF
        _set_proxy(context, pool, url, user, secret)
    return ""


@calls.on("pool.disable_repository_proxy")
def disable_repository_proxy(context: Context, pool: str) -> str:
    """Fetch updates directly."""
    _set_proxy(context, pool, "", "", NULL_REF)
    return ""


def _set_proxy(context: Context, pool: str, url: str, user: str, secret: str) -> None:
    db = context.db
    with db.transaction():
        old = db.text("pool", pool, "repository_proxy_password")
        values: Fields = {"repository_proxy_url": url, "repository_proxy_username": user}
        db.update("pool", pool, {**values, "repository_proxy_password": secret})
        if db.exists("secret", old):
            db.destroy("secret", old)
