"""Hosts and the pool as a whole: their life, settings with rules, high availability, updates, schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.lab import RunningLab
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import json_call, refusal, vm_named

NOWHERE = "OpaqueRef:nope"


@pytest.fixture
def host(api: Any) -> str:
    """The only host."""
    found: str = api.host.get_all()[0]
    return found


@pytest.fixture
def pool(api: Any) -> str:
    """The pool."""
    found: str = api.pool.get_all()[0]
    return found


@pytest.fixture(scope="module")
def pair() -> Iterator[RunningLab]:
    """A pool of two hosts."""
    with tiny_lab(hosts=2, nbd="none") as running:
        yield running


# -- hosts


def test_a_host_offers_what_it_would_do(api: Any, host: str) -> None:
    assert {"shutdown", "reboot"} & set(api.host.get_allowed_operations(host)) == set()
    assert refusal(lambda: api.host.reboot(host)) == ["HOST_NOT_DISABLED"]
    for attempt in (api.host.power_on, api.host.destroy, api.host.declare_dead):
        assert refusal(lambda attempt=attempt: attempt(host)) == ["HOST_IS_LIVE", host]  # type: ignore[misc]
    api.host.disable(host)
    assert {"shutdown", "reboot"} <= set(api.host.get_allowed_operations(host))
    api.host.enable(host)


@pytest.mark.parametrize(
    ("call", "refused"),
    [
        (lambda api, host: api.host.set_hostname_live(host, ""), ["HOST_NAME_INVALID", "hostname empty"]),
        (lambda api, host: api.host.set_hostname_live(host, "a" * 256), ["HOST_NAME_INVALID", "hostname is too long"]),
        (
            lambda api, host: api.host.set_hostname_live(host, "-a"),
            ["HOST_NAME_INVALID", "hostname contains invalid characters"],
        ),
        (lambda api, host: api.host.set_iscsi_iqn(host, ""), ["INVALID_VALUE", "value", ""]),
        (lambda api, host: api.host.set_max_cstate(host, "deep"), ["INVALID_VALUE", "max_cstate", "deep"]),
        (lambda api, host: api.host.set_timezone(host, "Moon/Base"), ["INVALID_VALUE", "timezone", "Moon/Base"]),
        (
            lambda api, host: api.host.set_ssh_enabled_timeout(host, "172801"),
            ["INVALID_VALUE", "ssh_enabled_timeout", "172801"],
        ),
        (lambda api, host: api.host.set_console_idle_timeout(host, "-1"), ["INVALID_VALUE", "console_timeout", "-1"]),
        (lambda api, host: api.host.dmesg_clear(host), ["NOT_IMPLEMENTED", "dmesg_clear"]),
        (lambda api, host: api.host.get_log(host), ["NOT_IMPLEMENTED", "get_log"]),
        (lambda api, host: api.host.call_plugin(host, "p", "f", {}), ["XENAPI_MISSING_PLUGIN", "p"]),
        (
            lambda api, host: api.host.call_extension(host, '{"id": 1, "method": "x.y", "params": []}'),
            ["MESSAGE_METHOD_UNKNOWN", "x.y"],
        ),
        (lambda api, host: api.host.license_add(host, "?"), ["LICENSE_PROCESSING_ERROR"]),
        (lambda api, host: api.host.enable_local_storage_caching(host, NOWHERE), ["HOST_NOT_DISABLED"]),
        (lambda api, host: api.host.local_management_reconfigure("xenbr0"), ["POOL_NOT_IN_EMERGENCY_MODE"]),
        (lambda api, host: api.host.dmesg(NOWHERE), ["HOST_OFFLINE", NOWHERE]),
        (lambda api, host: api.host.get_data_sources(NOWHERE), ["HOST_OFFLINE", NOWHERE]),
    ],
)
def test_hosts_refuse_in_the_pools_words(
    api: Any, host: str, call: Callable[[Any, str], Any], refused: list[str]
) -> None:
    assert refusal(lambda: call(api, host)) == refused


def test_whoever_asks_for_emergencies_needs_no_session(lab: RunningLab) -> None:
    assert json_call(lab, "host.is_in_emergency_mode")["result"] is False


def test_shell_access_ends_by_itself(api: Any, host: str, lab: RunningLab) -> None:
    api.host.set_ssh_enabled_timeout(host, "600")
    api.host.enable_ssh(host)
    assert api.host.get_ssh_enabled(host) is True
    lab.pool.chores.advance(601)
    assert api.host.get_ssh_enabled(host) is False
    api.host.set_ssh_enabled_timeout(host, "0")
    api.host.enable_ssh(host)


def test_fields_that_older_clients_read_are_kept_twice(api: Any, host: str) -> None:
    api.host.set_iscsi_iqn(host, "iqn.2026-01.example:lab")
    api.host.set_multipathing(host, True)
    config = api.host.get_other_config(host)
    assert config["iscsi_iqn"] == "iqn.2026-01.example:lab"
    assert config["multipathing"] == "true"


@pytest.mark.slow(reason="A pool of two hosts starts with machines on it")
def test_a_host_is_emptied_and_started_anew(pair: RunningLab) -> None:
    with logged_in(pair) as session:
        api = session.xenapi
        master = api.pool.get_master(api.pool.get_all()[0])
        member = next(host for host in api.host.get_all() if host != master)
        vm = vm_named(api, "alpha")
        api.VM.pool_migrate(vm, member, {"live": "true"})
        api.host.assert_can_evacuate(member)
        api.host.disable(member)
        api.host.evacuate(member)
        assert api.VM.get_resident_on(vm) == master
        api.host.reboot(member)
        metrics = api.host.get_metrics(member)
        assert api.host_metrics.get_live(metrics) is False
        pair.pool.chores.advance(200)
        assert api.host_metrics.get_live(metrics) is True
        assert api.host.get_enabled(member) is True


def test_a_vm_without_another_host_prevents_evacuation(api: Any, host: str) -> None:
    stuck = api.host.get_vms_which_prevent_evacuation(host)
    assert stuck[vm_named(api, "alpha")] == ["NO_HOSTS_AVAILABLE", vm_named(api, "alpha")]
    refused = refusal(lambda: api.host.assert_can_evacuate(host))
    assert refused[0] == "CANNOT_EVACUATE_HOST"
    assert sorted(refused[1].split("|")) == sorted(f"NO_HOSTS_AVAILABLE,{vm}" for vm in stuck)


def test_another_host_becomes_master_on_demand(pair: RunningLab) -> None:
    with logged_in(pair) as session:
        member = next(h for h in session.xenapi.host.get_all() if h != pair.pool.master_ref)
        old = pair.pool.master_ref
        session.xenapi.pool.designate_new_master(member)
        assert pair.pool.master_ref == member
        assert refusal(lambda: session.xenapi.VM.get_all())[0] in ("SESSION_INVALID", "HOST_IS_SLAVE")
    db = pair.pool.db
    db.set("pool", pair.pool.pool_ref, "master", old)


# -- the pool


def test_a_pool_offers_what_it_would_do(api: Any, pool: str) -> None:
    offered = api.pool.get_allowed_operations(pool)
    assert offered[:3] == ["ha_enable", "cluster_create", "designate_new_master"]
    assert "ha_disable" not in offered


@pytest.mark.parametrize(
    ("call", "refused"),
    [
        (lambda api, pool: api.pool.disable_ha(), ["HA_NOT_ENABLED"]),
        (lambda api, pool: api.pool.set_ext_auth_cache_size(pool, "-1"), ["INVALID_VALUE", "size", "-1"]),
        (lambda api, pool: api.pool.set_ext_auth_cache_expiry(pool, "0"), ["INVALID_VALUE", "expiry", "0"]),
        (
            lambda api, pool: api.pool.set_ha_host_failures_to_tolerate(pool, "-1"),
            ["INVALID_VALUE", "ha_host_failures_to_tolerate", "-1"],
        ),
        (
            lambda api, pool: api.pool.add_to_guest_agent_config(pool, "auto_update_url", "ftp://x"),
            ["INVALID_VALUE", "guest_agent_config", "auto_update_url = ftp://x"],
        ),
        (
            lambda api, pool: api.pool.configure_repository_proxy(pool, "nowhere", "", ""),
            ["INVALID_REPOSITORY_PROXY_URL", "nowhere"],
        ),
        (
            lambda api, pool: api.pool.configure_repository_proxy(pool, "http://p", "u", ""),
            ["INVALID_REPOSITORY_PROXY_CREDENTIAL"],
        ),
        (lambda api, pool: api.pool.set_update_sync_enabled(pool, True), ["NO_REPOSITORIES_CONFIGURED"]),
        (
            lambda api, pool: api.pool.configure_update_sync(pool, "weekly", "7"),
            ["INVALID_UPDATE_SYNC_DAY", "7"],
        ),
        (lambda api, pool: api.pool.test_archive_target(pool, {}), ["MESSAGE_REMOVED"]),
        (lambda api, pool: api.pool.crl_uninstall("c.pem"), ["CRL_DOES_NOT_EXIST", "c.pem"]),
        (
            lambda api, pool: api.pool.eject(api.host.get_all()[0]),
            ["INTERNAL_ERROR", "Xapi_pool.Cannot_eject_master"],
        ),
    ],
)
def test_a_pool_refuses_in_its_own_words(
    api: Any, pool: str, call: Callable[[Any, str], Any], refused: list[str]
) -> None:
    assert refusal(lambda: call(api, pool)) == refused


def test_high_availability_has_disks_of_its_own(api: Any, pool: str) -> None:
    sr = api.pool.get_default_SR(pool)
    before = set(api.SR.get_VDIs(sr))
    api.pool.enable_ha([sr], {})
    assert api.pool.get_ha_enabled(pool) is True
    assert refusal(lambda: api.pool.enable_ha([sr], {})) == ["HA_IS_ENABLED"]
    made = set(api.SR.get_VDIs(sr)) - before
    assert {api.VDI.get_type(vdi) for vdi in made} == {"ha_statefile", "redo_log"}
    assert api.pool.get_ha_statefiles(pool)[0] in made
    assert "ha_disable" in api.pool.get_allowed_operations(pool)
    api.pool.disable_ha()
    for vdi in made:
        api.VDI.destroy(vdi)


def test_a_members_disks_are_counted_among_no_failures(api: Any) -> None:
    assert api.pool.ha_compute_max_host_failures_to_tolerate() == "1"
    assert api.pool.ha_failover_plan_exists("5") is False
    refused = refusal(lambda: api.pool.ha_compute_hypothetical_max_host_failures_to_tolerate({"x": "often"}))
    assert refused == ["INVALID_VALUE", "ha_restart_priority", "often"]


def test_the_licence_is_that_of_the_lowest_edition(api: Any, pool: str, host: str) -> None:
    assert api.pool.get_license_state(pool)["edition"] == api.host.get_edition(host)


def test_repositories_are_known_once_and_used_by_one_kind(api: Any, pool: str) -> None:
    remote = api.Repository.introduce("base", "", "https://u.example/b", "https://u.example/s", True)
    again = refusal(lambda: api.Repository.introduce("base", "", "https://v.example", "https://v.example", True))
    assert again == ["REPOSITORY_ALREADY_EXISTS", remote]
    bundle = api.Repository.introduce_bundle("bundle", "")
    api.pool.add_repository(pool, remote)
    assert refusal(lambda: api.pool.add_repository(pool, bundle)) == ["REPO_SHOULD_BE_SINGLE_ONE_ENABLED"]
    assert refusal(lambda: api.Repository.forget(remote)) == ["REPOSITORY_IS_IN_USE"]
    api.pool.set_repositories(pool, [])
    api.Repository.forget(remote)
    api.Repository.forget(bundle)


def test_a_secret_can_come_with_its_identity(api: Any) -> None:
    uuid = "11111111-2222-3333-4444-555555555555"
    secret = api.secret.introduce(uuid, "hush")
    assert api.secret.get_by_uuid(uuid) == secret
    api.secret.destroy(secret)


# -- snapshot schedules


def test_a_schedule_says_what_its_frequency_needs(api: Any) -> None:
    record = {"name_label": "nightly", "type": "snapshot", "frequency": "daily", "schedule": {"hour": "2"}}
    vmss = api.VMSS.create({**record, "name_description": "", "enabled": True, "retained_snapshots": "3"})
    assert api.VMSS.get_schedule(vmss) == {"hour": "2", "min": "0"}
    api.VMSS.set_frequency(vmss, "weekly")
    assert api.VMSS.get_schedule(vmss) == {"hour": "2", "min": "0", "days": "Monday"}
    assert refusal(lambda: api.VMSS.set_schedule(vmss, {"hour": "24"})) == ["INVALID_VALUE", "schedule:hour", "24"]
    assert refusal(lambda: api.VMSS.set_retained_snapshots(vmss, "11")) == [
        "INVALID_VALUE",
        "retained_snapshots",
        "11",
    ]
    vm = vm_named(api, "alpha")
    api.VM.set_snapshot_schedule(vm, vmss)
    assert refusal(lambda: api.VMSS.destroy(vmss)) == ["VMSS_HAS_VM"]
    api.VMSS.snapshot_now(vmss)
    [snapshot] = [one for one in api.VM.get_snapshots(vm) if api.VM.get_is_vmss_snapshot(one)]
    api.VM.set_snapshot_schedule(vm, "OpaqueRef:NULL")
    api.VMSS.destroy(vmss)
    api.VM.destroy(snapshot)
