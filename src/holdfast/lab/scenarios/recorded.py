"""The very host of the recordings: what it says of itself, table by table.

Programs that were recorded against it find here what they found there. Whatever follows from a rule is not written here
but left to the rule. Invariant: only facts that any administrator could have set, or hardware could have had, differ
from those of other scenarios.
"""

from __future__ import annotations

from holdfast.core import TIB
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.scenarios.world import World

__all__ = ["build_recorded"]

_NO_FIRMWARE = (
    "bios-vendor bios-version system-manufacturer system-product-name system-version system-serial-number "
    "baseboard-manufacturer baseboard-product-name baseboard-version baseboard-serial-number"
).split()

_NO_PROCESSOR = (
    "cpu_count socket_count threads_per_core nr_nodes vendor speed modelname family model stepping flags "
    "features_pv features_hvm features_hvm_host features_pv_host"
).split()

_COUNTS = dict.fromkeys(_NO_PROCESSOR[:4], "0")

_HOST: Fields = {
    "name_label": "vm",
    "name_description": "Default install",
    "hostname": "vm",
    "API_version_minor": 23,
    "bios_strings": {
        **dict.fromkeys(_NO_FIRMWARE, ""),
        "oem-1": "Xen",
        "oem-2": "MS_VM_CERT/SHA1/bdbeb6e0a816d43fa6d3fe8aaef04c2bad9d3e3d",
        "hp-rombios": "",
    },
    "capabilities": [""],
    "chipset_info": {"iommu": "false"},
    "cpu_info": {**dict.fromkeys(_NO_PROCESSOR, ""), **_COUNTS, "vendor": "unknown"},
    "https_only": True,
    "ssh_auto_mode": True,
    "timezone": "Etc/UTC",
}

_SOFTWARE = {
    "product_version_text_short": "8.3",
    "xapi": "0.0",
    "git_id": "dev",
    "xen": "",
    "xencenter_min": "2.23",
    "xencenter_max": "2.23",
    "network_backend": "bridge",
    "db_schema": "5.909",
    "date": "20261120T08:42:34Z",
}

_POOL: Fields = {
    "cpu_info": {
        "features_pv_host": "",
        "features_hvm_host": "",
        "vendor": "unknown",
        **dict(list(_COUNTS.items())[:2]),
    },
    "suspend_image_SR": NULL_REF,
    "crash_dump_SR": NULL_REF,
    "tls_verification_enabled": False,
    "ext_auth_cache_enabled": False,
}

# The card that is plugged in keeps the address that the lab listens on; the one that manages the host is unplugged.
_INTERFACES: tuple[Fields, ...] = (
    {
        "device": "eth1",
        "MAC": "aa:bb:cc:dd:ee:02",
        "currently_attached": True,
        "management": False,
        "igmp_snooping_status": "disabled",
    },
    {
        "device": "eth0",
        "MAC": "aa:bb:cc:dd:ee:01",
        "currently_attached": False,
        "management": True,
        "ip_configuration_mode": "Static",
        "IP": "192.0.2.2",
        "netmask": "255.255.255.0",
    },
)

_STORAGE: Fields = {"name_label": "lab", "name_description": "lab sr", "physical_size": TIB}

_DRIVER: Fields = {
    "name_label": "file",
    "name_description": "lab",
    "vendor": "lab",
    "version": "1.0",
    "configuration": {"location": "x"},
    "supported_image_formats": [],
}

_DOMAIN_MEMORY_BYTES = 25276514304
_DOMAIN: Fields = {
    "name_label": "Control domain on host: vm",
    **dict.fromkeys(
        ("memory_target", "memory_static_max", "memory_static_min", "memory_dynamic_max", "memory_dynamic_min"),
        _DOMAIN_MEMORY_BYTES,
    ),
    "memory_overhead": 202375168,
    "VCPUs_max": 2,
    "VCPUs_at_startup": 2,
}


def build_recorded(world: World) -> None:
    """Let the pool say what the recorded one said."""
    db = world.context.db
    inventory = world.inventory
    [host] = inventory.hosts
    software = {**db.mapping("host", host, "software_version"), **_SOFTWARE}
    del software["dbv"]  # of builds that people get, which this one was not
    db.update("host", host, {**_HOST, "software_version": software})
    db.update("host_metrics", db.text("host", host, "metrics"), {"memory_total": TIB})
    db.update("pool", inventory.pool, _POOL)
    db.update("network", inventory.network, {"name_label": "nbdnet", "bridge": "xapi0", "other_config": {}})
    for row, values in zip(db.rows("PIF"), _INTERFACES, strict=True):
        db.update("PIF", row.ref, values)
        no_card: Fields = {"carrier": False, "vendor_name": "", "device_name": "", "last_updated": EPOCH}
        db.update("PIF_metrics", str(row.fields["metrics"]), no_card)
    db.update("SR", inventory.sr, _STORAGE)
    for pbd in db.texts("SR", inventory.sr, "PBDs"):
        db.set("PBD", pbd, "device_config", {"location": "/srv/sr/a"})
    for row in db.rows("SM"):
        _say_driver(world, row.ref)
    domain = db.text("host", host, "control_domain")
    db.update("VM", domain, _DOMAIN)
    metrics: Fields = {
        "memory_actual": _DOMAIN_MEMORY_BYTES,
        "VCPUs_number": 2,
        "VCPUs_utilisation": {"1": 0.0, "2": 0.0},
    }
    times: Fields = {"start_time": EPOCH, "last_updated": EPOCH}
    db.update("VM_metrics", db.text("VM", domain, "metrics"), {**metrics, **times})


def _say_driver(world: World, driver: str) -> None:
    db = world.context.db
    features = {name: number for name, number in db.mapping("SM", driver, "features").items() if name != "ATOMIC_PAUSE"}
    db.update("SM", driver, {**_DRIVER, "features": features, "capabilities": list(features)})
