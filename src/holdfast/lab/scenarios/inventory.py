"""The pool that every scenario stands on: hosts, network, storage repositories, control domain.

Objects are made in the order that a real pool's history would have given them generations.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from holdfast.core import GIB, TIB
from holdfast.lab.certificate import certificate_fields
from holdfast.lab.context import PoolCore
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.drivers import DRIVERS, add_drivers
from holdfast.lab.hosts import host_address

__all__ = ["UNLICENSED", "Inventory", "build_inventory"]

_TEST_DRIVERS = frozenset({"dummy", "file"})
"""Drivers of plain images: of the recorded pool, which had nothing else, and no pool that people use."""

_CPU_INFO = {
    "cpu_count": "8",
    "socket_count": "1",
    "threads_per_core": "2",
    "nr_nodes": "1",
    "vendor": "GenuineIntel",
    "speed": "2400.000",
    "modelname": "Lab CPU",
    "family": "6",
    "model": "85",
    "stepping": "7",
    "flags": "fpu vme de pse tsc msr pae",
    "features_pv": "1fc9cbf5-f6f83203-2991cbf5-00000123-00000001-00000329",
    "features_hvm": "1fcbfbff-f7fa3223-2d93fbff-00000523-00000001-001c0fbb",
    "features_hvm_host": "1fcbfbff-f7fa3223-2c100800-00000121-00000001-001c0fbb",
    "features_pv_host": "1fc9cbf5-f6f83203-28100800-00000121-00000001-001c0329",
}
_RESTRICTIONS = tuple(
    """
    restrict_vlan restrict_qos restrict_pool_attached_storage restrict_netapp restrict_equalogic restrict_pooling
    enable_xha restrict_marathon restrict_email_alerting restrict_historical_performance restrict_wlb restrict_rbac
    restrict_dmc restrict_checkpoint restrict_cpu_masking restrict_connection platform_filter regular_nag_dialog
    restrict_vmpr restrict_vmss restrict_intellicache restrict_gpu restrict_dr restrict_vif_locking
    restrict_storage_xen_motion restrict_vgpu restrict_integrated_gpu_passthrough restrict_vss
    restrict_guest_agent_auto_update restrict_pci_device_for_auto_update restrict_xen_motion restrict_guest_ip_setting
    restrict_ad restrict_nested_virt restrict_live_patching restrict_set_vcpus_number_live restrict_pvs_proxy
    restrict_igmp_snooping restrict_rpu restrict_pool_size restrict_cbt restrict_usb_passthrough
    restrict_network_sriov restrict_corosync restrict_cluster_address restrict_zstd_export
    restrict_pool_secret_rotation restrict_certificate_verification restrict_updates restrict_internal_repo_access
    restrict_vtpm restrict_vm_groups restrict_vm_start restrict_vm_appliance_start
    """.split()
)
_SOFTWARE_VERSION = {
    "product_version": "8.3.0",
    "product_version_text": "8.3",
    "product_brand": "XCP-ng",
    "build_number": "lab",
    "platform_name": "XCP",
    "platform_version": "3.4.0",
    "xapi": "26.1",
    "xapi_build": "26.1.3",
    "xen": "4.17.5",
    "linux": "4.19.0+1",
    "hostname": "lab",
    "date": "2026-01-01",
    "dbv": "0.0.1",
}


_IDLE_NETWORK: Fields = {"name_label": "Pool-wide network associated with eth1", "bridge": "xenbr1", "MTU": 1500}

_INTERNAL_NETWORK: Fields = {
    "name_label": "Host internal management network",
    "name_description": "Network on which guests will be assigned a private link-local IP address "
    "which can be used to talk XenAPI",
    "bridge": "xenapi",
    "MTU": 1500,
    "managed": True,
    "other_config": {
        "is_guest_installer_network": "true",
        "is_host_internal_management_network": "true",
        "ip_begin": "169.254.0.1",
        "ip_end": "169.254.255.254",
        "netmask": "255.255.0.0",
    },
}

UNLICENSED = frozenset(
    """
    restrict_vlan restrict_qos restrict_netapp restrict_equalogic restrict_pooling restrict_marathon
    restrict_historical_performance restrict_checkpoint restrict_cpu_masking restrict_connection platform_filter
    regular_nag_dialog restrict_vmpr restrict_vmss restrict_intellicache restrict_vif_locking restrict_vgpu
    restrict_integrated_gpu_passthrough restrict_vss restrict_guest_agent_auto_update restrict_guest_ip_setting
    restrict_nested_virt restrict_live_patching restrict_set_vcpus_number_live restrict_pvs_proxy restrict_igmp_snooping
    restrict_rpu restrict_pool_size restrict_usb_passthrough restrict_network_sriov restrict_corosync
    restrict_cluster_address restrict_zstd_export restrict_pool_secret_rotation restrict_certificate_verification
    restrict_internal_repo_access restrict_vtpm restrict_vm_groups enable_xha
    """.split()
)
"""What a host without any licence forbids, as recorded from a real one."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """References of what a scenario's VMs are built with."""

    pool: str
    hosts: tuple[str, ...]
    """The master is the first."""
    network: str
    sr: str


def build_inventory(
    pool: PoolCore,
    *,
    sr_type: str,
    purpose: str,
    hosts: int,
    name: str,
    host_memory_bytes: int = 64 * GIB,
    storage_bytes: int = 2 * TIB,
    restricted: frozenset[str] = frozenset(),
) -> Inventory:
    """Make the pool's own objects and return those that VMs need."""
    db = pool.db
    with db.transaction():
        network = db.create(
            "network",
            {
                "name_label": "Pool-wide network associated with eth0",
                "bridge": "xenbr0",
                "purpose": [purpose] if purpose else [],
                "other_config": {"is_management": "true"},
            },
        )
        # A pool makes a network for each card; on the recorded host somebody had put both on one.
        idle = network if restricted else db.create("network", _IDLE_NETWORK)
        pool_ref = db.create(
            "pool",
            {
                "name_label": name,
                "restrictions": _flags(restricted),
                "other_config": {"memory-ratio-hvm": "0.25", "memory-ratio-pv": "0.25"},
                "cpu_info": _CPU_INFO,
                "ha_cluster_stack": "xhad",
                "tls_verification_enabled": True,
            },
        )
        refs = [
            _add_host(pool, number, (network, idle), memory_bytes=host_memory_bytes, restricted=restricted)
            for number in range(1, hosts + 1)
        ]
        db.set("pool", pool_ref, "master", refs[0])
        _add_belongings(pool, pool_ref, refs)
        sr = _add_sr(pool, refs, sr_type, size_bytes=storage_bytes)
        db.update("pool", pool_ref, {"default_SR": sr, "suspend_image_SR": sr, "crash_dump_SR": sr})
        db.touch("network", network)
        return Inventory(pool_ref, tuple(refs), network, sr)


def _flags(restricted: frozenset[str]) -> dict[str, str]:
    """Return the settings of a licence's features, most of which are told by what is forbidden."""
    return {name: str((name in restricted) != name.startswith("enable_")).lower() for name in _RESTRICTIONS}


def _add_belongings(pool: PoolCore, pool_ref: str, hosts: list[str]) -> None:
    """What every pool makes for itself: the network between hosts and guests, its identity in statistics,
    and for each host its certificate and its consoles."""
    db = pool.db
    db.create("network", _INTERNAL_NETWORK)
    db.set("pool", pool_ref, "telemetry_uuid", db.create("secret", {"value": pool.new_uuid()}))
    for host in hosts:
        if pool.certificate_pem:
            certificate = x509.load_pem_x509_certificate(pool.certificate_pem.encode())
            db.create("Certificate", {**certificate_fields(certificate), "type": "host", "host": host})
        for protocol in ("vt100", "rfb"):
            console = db.create("console", {"protocol": protocol, "VM": db.text("host", host, "control_domain")})
            location = f"https://{db.text('host', host, 'address')}/console?ref={console}"
            db.set("console", console, "location", location)


def _add_host(
    pool: PoolCore, number: int, networks: tuple[str, str], *, memory_bytes: int, restricted: frozenset[str]
) -> str:
    db = pool.db
    has_no_hypervisor = bool(restricted)
    metrics: Fields = {
        "memory_total": memory_bytes,
        "memory_free": 0 if has_no_hypervisor else memory_bytes // 2,
        "live": True,
        "last_updated": pool.now(),
    }
    host = db.create(
        "host",
        {
            "name_label": f"lab-host-{number}",
            "name_description": "A host of the lab pool",
            "hostname": f"lab-host-{number}",
            "address": host_address(pool.address, number - 1),
            "enabled": True,
            "API_version_major": 2,
            "API_version_minor": 21,
            "API_version_vendor": "XenSource",
            "software_version": _SOFTWARE_VERSION,
            "capabilities": [] if has_no_hypervisor else ["xen-3.0-x86_64", "hvm-3.0-x86_64"],
            "cpu_info": _CPU_INFO,
            "metrics": db.create("host_metrics", metrics),
            "edition": "xcp-ng",
            "editions": ["xcp-ng"],
            "other_config": dict.fromkeys(("agent_start_time", "boot_time"), f"{int(pool.clock.now().timestamp())}."),
            "license_params": _flags(restricted),
            "license_server": {"address": "localhost", "port": "27000"},
            "sched_policy": "credit",
            "ssl_legacy": False,
            "supported_bootloaders": ["pygrub", "eliloader"],
            "virtual_hardware_platform_versions": [0, 1, 2],
            "suspend_image_sr": NULL_REF,
        },
    )
    for device, network in enumerate(networks):
        _add_interface(pool, host, network, number, device=device)
    db.set("host", host, "control_domain", _add_control_domain(pool, host, number))
    return host


def _add_interface(pool: PoolCore, host: str, network: str, number: int, *, device: int) -> None:
    """The first interface carries everything; the second is plugged in and idle."""
    db = pool.db
    carrier: Fields = {"carrier": device == 0, "vendor_name": "lab", "device_name": "lab", "last_updated": pool.now()}
    db.create(
        "PIF",
        {
            "device": f"eth{device}",
            "network": network,
            "host": host,
            "MAC": f"02:00:00:00:0{device}:{number:02x}",
            "MTU": 1500,
            "VLAN": -1,
            "metrics": db.create("PIF_metrics", carrier),
            "physical": True,
            "currently_attached": device == 0,
            "ip_configuration_mode": "None" if device else "Static",
            "IP": "" if device else host_address(pool.address, number - 1),
            "netmask": "" if device else "255.255.255.0",
            "management": device == 0,
            "managed": True,
            "primary_address_type": "IPv4",
        },
    )


def _add_control_domain(pool: PoolCore, host: str, number: int) -> str:
    db = pool.db
    metrics: Fields = {"start_time": pool.now(), "last_updated": pool.now(), "memory_actual": 4 * GIB}
    metrics |= {"VCPUs_number": 4, "current_domain_type": "pv"}
    return db.create(
        "VM",
        {
            "name_label": f"Control domain on host: lab-host-{number}",
            "name_description": "The domain which manages physical devices and manages other domains",
            "is_control_domain": True,
            "power_state": "Running",
            "resident_on": host,
            "affinity": host,
            "domid": 0,
            "memory_static_max": 4 * GIB,
            "memory_dynamic_max": 4 * GIB,
            "memory_dynamic_min": 4 * GIB,
            "memory_static_min": 4 * GIB,
            "memory_target": 4 * GIB,
            "VCPUs_max": 4,
            "VCPUs_at_startup": 4,
            "actions_after_shutdown": "destroy",
            "actions_after_reboot": "destroy",
            "actions_after_crash": "destroy",
            "HVM_shadow_multiplier": 1.0,
            "domain_type": "pv",
            "domarch": "x64",
            "generation_id": "",
            "has_vendor_device": False,
            "user_version": 1,
            "metrics": db.create("VM_metrics", metrics),
            "snapshot_time": EPOCH,
        },
    )


def _add_sr(pool: PoolCore, hosts: list[str], kind: str, *, size_bytes: int) -> str:
    db = pool.db
    add_drivers(db, [kind] if kind in _TEST_DRIVERS else sorted(set(DRIVERS) - _TEST_DRIVERS))
    sr = db.create(
        "SR",
        {
            "name_label": "Shared storage" if len(hosts) > 1 else "Local storage",
            "name_description": "The lab's disks",
            "type": kind,
            "content_type": "user",
            "shared": len(hosts) > 1,
            "physical_size": size_bytes,
        },
    )
    for host in hosts:
        config = {"device": "/dev/sda3"} if kind == "ext" else {"location": "/sr"}
        db.create("PBD", {"host": host, "SR": sr, "device_config": config, "currently_attached": True})
    if len(hosts) > 1:
        for host in hosts:
            _add_local_sr(pool, host)
    return sr


def _add_local_sr(pool: PoolCore, host: str) -> None:
    """A repository that only this host sees: transfers of its disks are redirected to it."""
    db = pool.db
    sr = db.create(
        "SR",
        {
            "name_label": f"Local storage on {db.text('host', host, 'name_label')}",
            "type": "ext",
            "content_type": "user",
            "physical_size": 2 * TIB,
        },
    )
    config = {"device": "/dev/sdb1"}
    db.create("PBD", {"host": host, "SR": sr, "device_config": config, "currently_attached": True})
