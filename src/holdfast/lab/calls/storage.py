"""Calls of storage repositories."""

from __future__ import annotations

from holdfast.core import MIB, TIB
from holdfast.lab.calls.pbd import add_pbd, as_storage_error, check_one_way, drop_pbd, plug, with_secrets
from holdfast.lab.calls.storage_lock import repository_operation
from holdfast.lab.collector import collect_later, stop_collection
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.driver_faults import meet_sr_fault
from holdfast.lab.drivers import driver_of
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import driver_features
from holdfast.lab.shelf import drop_volumes, find_repositories, shelve, shelve_repository, take_up_all
from holdfast.lab.volumes import check_sr_attached, drop_bytes, refresh_sr, tell_sizes

__all__ = ["calls"]

calls = CallSet()

_DEVICE_BYTES = TIB
"""What a device or share holds when its creator does not say."""

_HA_BYTES_MIN = 260 * MIB
"""A heartbeat of one volume extent and a log of 256 MiB."""

_CONFIG_TEXTS = {
    "90": "The request is missing the device parameter",
    "94": "The request is missing the location parameter",
    "95": "The request is missing the target parameter",
    "96": "The request is missing or has an incorrect target IQN parameter",
    "101": "The request is missing the serverpath parameter",
    "102": "The request is missing the server parameter",
    "107": "The SCSIid parameter is missing or incorrect",
    "220": "'Location' parameter must be specified in Device Configuration",
}


@calls.on("SR.scan")
def scan(context: Context, sr: str) -> str:
    """Look at every disk anew, and find those that nobody has a record of."""
    with repository_operation(context, sr, "scan"):
        check_sr_attached(context.pool, sr)
        with as_storage_error():
            check_one_way(context.db, sr)
        meet_sr_fault(context.pool, sr, "scan")
        take_up_all(context.pool, sr)
        refresh_sr(context.pool, sr)
        context.db.drop_key("SR", sr, "other_config", key="dirty")
    collect_later(context.pool, sr)
    return ""


@calls.on("SR.update")
def update(context: Context, sr: str) -> str:
    """Tell the repository's size and use."""
    context.db.row("SR", sr)
    check_sr_attached(context.pool, sr)
    tell_sizes(context.pool, sr)
    return ""


@calls.on("SR.set_virtual_allocation", "SR.set_physical_size")
def refuse_internal(context: Context, sr: str, value: object) -> str:
    """Only the session of the repository's driver may set these; the repository is not looked at."""
    raise ApiFailure("PERMISSION_DENIED", "")


@calls.on("SR.set_name_label")
def set_name_label(context: Context, sr: str, value: str) -> str:
    """Name the repository; its driver keeps the name as well, so it must be attached."""
    return _set_text(context, sr, "name_label", value)


@calls.on("SR.set_name_description")
def set_name_description(context: Context, sr: str, value: str) -> str:
    """Describe the repository."""
    return _set_text(context, sr, "name_description", value)


def _set_text(context: Context, sr: str, name: str, value: str) -> str:
    context.db.row("SR", sr)
    check_sr_attached(context.pool, sr)
    context.db.set("SR", sr, name, value)
    return ""


@calls.on("SR.set_shared")
def set_shared(context: Context, sr: str, value: bool) -> str:
    """Say whether several hosts may have it; one that several hosts do have cannot become local."""
    pbds = [row.ref for row in context.db.rows("PBD") if row.fields["SR"] == sr]
    if not value and len(pbds) > 1:
        raise ApiFailure("SR_HAS_MULTIPLE_PBDS", *pbds)
    context.db.set("SR", sr, "shared", value)
    return ""


# -- which there are


@calls.on("SR.get_supported_types")
def get_supported_types(context: Context) -> list[str]:
    """Return the drivers' names."""
    return [str(row.fields["type"]) for row in context.db.rows("SM")]


def _check_host(context: Context, host: str) -> None:
    if not context.db.exists("host", host):
        raise ApiFailure("HOST_OFFLINE", host)


def _check_driver(context: Context, kind: str) -> None:
    if not any(row.fields["type"] == kind for row in context.db.rows("SM")):
        raise ApiFailure("SR_UNKNOWN_DRIVER", kind)


def _check_config(kind: str, device_config: Fields) -> None:
    for key, code in driver_of(kind).required:
        if not device_config.get(key):
            raise ApiFailure(f"SR_BACKEND_FAILURE_{code}", "", _CONFIG_TEXTS[code], "")


@calls.on("SR.probe")
def probe(context: Context, host: str, device_config: Fields, kind: str, sm_config: Fields | None = None) -> str:
    """Return the repositories of that type at that place which the pool has forgotten, as the drivers spell it."""
    kind = kind.lower()
    _check_host(context, host)
    _check_driver(context, kind)
    _check_config(kind, device_config)
    found = find_repositories(context.pool, kind, device_config)
    each = (f"<SR><UUID>{uuid}</UUID><size>{size_bytes}</size></SR>" for uuid, size_bytes in found)
    return f'<?xml version="1.0" ?>\n<SRlist>{"".join(each)}</SRlist>\n'


@calls.on("SR.probe_ext")
def probe_ext(
    context: Context, host: str, device_config: Fields, kind: str, sm_config: Fields | None = None
) -> list[object]:
    """Refuse: the lab's drivers are of the kind that only answers the older call."""
    _check_host(context, host)
    _check_driver(context, kind.lower())
    _check_config(kind.lower(), device_config)
    raise ApiFailure("SR_OPERATION_NOT_SUPPORTED")


# -- their life


@calls.on("SR.create")
def create(
    context: Context,
    host: str,
    device_config: Fields,
    physical_size: int,
    label: str,
    description: str,
    kind: str,
    content_type: str,
    shared: bool,
    sm_config: Fields | None = None,
) -> str:
    """Make a repository and attach it: to every host when it is shared, then whatever host was named."""
    db, pool = context.db, context.pool
    device_config = with_secrets(context, device_config)
    if not shared:
        _check_host(context, host)
    kind = kind.lower()
    _check_driver(context, kind)
    _check_config(kind, device_config)
    with db.transaction():
        sr = introduce(context, pool.new_uuid(), label, description, kind, content_type, shared, sm_config)
        db.set("SR", sr, "physical_size", physical_size if physical_size > 0 else _DEVICE_BYTES)
        hosts = [row.ref for row in db.rows("host")] if shared else [host]
        hosts.sort(key=lambda each: each != pool.master_ref)
        pbds = [add_pbd(context, each, sr, device_config) for each in hosts]
    for pbd in pbds:
        plug(context, pbd)
    tell_sizes(pool, sr)
    return sr


@calls.on("SR.introduce")
def introduce(
    context: Context,
    uuid: str,
    label: str,
    description: str,
    kind: str,
    content_type: str,
    shared: bool,
    sm_config: Fields | None = None,
) -> str:
    """Make the record of a repository that exists elsewhere; hardly anything is checked, as recorded."""
    db = context.db
    if uuid and db.has_uuid("SR", uuid):
        raise ApiFailure("SR_UUID_EXISTS", uuid)
    return db.create(
        "SR",
        {
            "uuid": uuid or context.pool.new_uuid(),
            "name_label": label,
            "name_description": description,
            "type": kind.lower(),
            "content_type": content_type,
            "shared": shared,
            "sm_config": sm_config or {},
            "physical_size": -1,
            "physical_utilisation": -1,
        },
    )


@calls.on("SR.make")
def make(context: Context, host: str, *ignored: object) -> str:
    """Refuse: nobody makes repositories this way any more."""
    _check_host(context, host)
    raise ApiFailure("MESSAGE_DEPRECATED")


@calls.on("SR.forget")
def forget(context: Context, sr: str) -> str:
    """Remove the records of a repository that no host has attached; what it holds stays there."""
    with repository_operation(context, sr, "forget"):
        shelve_repository(context.pool, sr)
        for vdi in context.db.texts("SR", sr, "VDIs"):
            shelve(context.pool, vdi)
        _remove(context, sr)
    return ""


@calls.on("SR.destroy")
def destroy(context: Context, sr: str) -> str:
    """Remove an empty repository that no host has attached, for good."""
    db = context.db
    with repository_operation(context, sr, "destroy"):
        if db.mapping("SR", sr, "other_config").get("indestructible") == "true":
            raise ApiFailure("SR_INDESTRUCTIBLE", sr)
        for row in db.rows("host"):
            if row.fields["local_cache_sr"] == sr:
                raise ApiFailure("SR_IS_CACHE_SR", row.ref)
        uuids = [db.text("VDI", vdi, "uuid") for vdi in db.texts("SR", sr, "VDIs")]
        drop_bytes(context.pool, [*uuids, *drop_volumes(context.pool, db.text("SR", sr, "uuid"))])
        _remove(context, sr)
    return ""


def _remove(context: Context, sr: str) -> None:
    db = context.db
    stop_collection(context.pool, sr)
    with db.transaction():
        for pbd in db.texts("SR", sr, "PBDs"):
            drop_pbd(context, pbd)
        for vdi in db.texts("SR", sr, "VDIs"):
            db.destroy("VDI", vdi)
        db.destroy("SR", sr)


# -- what they are good for


def _check_everywhere(context: Context, sr: str) -> None:
    """Return when every host has the repository attached."""
    db = context.db
    pbds = db.texts("SR", sr, "PBDs")
    is_everywhere = len({db.text("PBD", pbd, "host") for pbd in pbds}) >= db.count("host")
    if not is_everywhere or not all(db.flag("PBD", pbd, "currently_attached") for pbd in pbds):
        raise ApiFailure("SR_HAS_NO_PBDS", sr)


@calls.on("SR.assert_can_host_ha_statefile")
def assert_can_host_ha_statefile(context: Context, sr: str) -> str:
    """Return when the repository could hold the pool's heartbeat and the log of its database."""
    db = context.db
    _check_everywhere(context, sr)
    if not driver_features(db, sr) & {"VDI_GENERATE_CONFIG", "VDI_ATTACH_OFFLINE"}:
        raise ApiFailure("SR_OPERATION_NOT_SUPPORTED", sr)
    kinds = {db.text("VDI", vdi, "type") for vdi in db.texts("SR", sr, "VDIs")}
    free_bytes = db.number("SR", sr, "physical_size") - db.number("SR", sr, "physical_utilisation")
    if not kinds >= {"ha_statefile", "redo_log"} and free_bytes < _HA_BYTES_MIN:
        raise ApiFailure("SR_SOURCE_SPACE_INSUFFICIENT", sr)
    return ""


@calls.on("SR.assert_supports_database_replication")
def assert_supports_database_replication(context: Context, sr: str) -> str:
    """Return when every host has the repository attached and its driver can keep a copy of the database."""
    _check_everywhere(context, sr)
    if "SR_METADATA" not in driver_features(context.db, sr):
        raise ApiFailure("SR_OPERATION_NOT_SUPPORTED", sr)
    return ""


@calls.on("SR.enable_database_replication")
def enable_database_replication(context: Context, sr: str) -> str:
    """Refuse where it is not possible; elsewhere accept, though the lab keeps no copy."""
    if context.pool.is_restricted("dr"):
        raise ApiFailure("LICENCE_RESTRICTION", "DR")
    return assert_supports_database_replication(context, sr)


@calls.on("SR.disable_database_replication")
def disable_database_replication(context: Context, sr: str) -> str:
    """There is none to stop, but the repository must exist."""
    context.db.row("SR", sr)
    return ""


@calls.on("SR.get_data_sources")
def get_data_sources(context: Context, sr: str) -> list[object]:
    """Return nothing: the lab keeps no metrics of repositories."""
    context.db.row("SR", sr)
    check_sr_attached(context.pool, sr)
    return []


@calls.on("SR.get_live_hosts")
def get_live_hosts(context: Context, sr: str) -> list[str]:
    """Return the hosts that have the repository attached."""
    db = context.db
    pbds = db.texts("SR", sr, "PBDs")
    return [db.text("PBD", pbd, "host") for pbd in pbds if db.flag("PBD", pbd, "currently_attached")]
