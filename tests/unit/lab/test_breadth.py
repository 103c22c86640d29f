"""The many small calls of a pool that few programs use: each refuses, or answers, as a real pool does."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.lab import RunningLab
from tests.unit.lab.talk import refusal

NOWHERE = "OpaqueRef:nope"
NULL = "OpaqueRef:NULL"


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("VBD_metrics.get_all", ()),
        ("VBD_metrics.get_record", (NOWHERE,)),
        ("VBD_metrics.add_to_other_config", (7, 7, 7)),
        ("VIF_metrics.get_by_uuid", ("x",)),
        ("PIF_metrics.get_io_read_kbs", (7,)),
        ("VM.get_is_snapshot_from_vmpp", (NOWHERE,)),
        ("VMPP.set_name_label", (NOWHERE, 7)),
        ("VMPP.destroy", (NOWHERE,)),
    ],
)
def test_a_call_on_what_was_removed_says_so_before_it_looks_at_anything(
    api: Any, call: str, arguments: tuple[object, ...]
) -> None:
    assert refusal(lambda: getattr(api, call)(*arguments)) == ["MESSAGE_REMOVED"]


def test_the_value_of_a_removed_field_stays_in_records(api: Any) -> None:
    [metrics] = api.host_metrics.get_all()
    assert api.host_metrics.get_record(metrics)["memory_free"]


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("host.get_servertime", ()),
        ("host.set_multipathing", (True,)),
        ("host.call_plugin", ("x", "x", {})),
        ("PIF.introduce", ("x", "x")),
    ],
)
def test_a_call_that_a_host_must_do_needs_one_that_is_alive(api: Any, call: str, arguments: tuple[object, ...]) -> None:
    for host in (NOWHERE, NULL):
        assert refusal(lambda host=host: getattr(api, call)(host, *arguments)) == ["HOST_OFFLINE", host]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("call", "arguments", "answer"),
    [
        ("pool.has_extension", (NOWHERE, "x"), False),
        ("pool.check_update_readiness", (NOWHERE, False), []),
        ("pool.disable_ssl_legacy", (NOWHERE,), ""),
        ("pool.set_ext_auth_max_threads", (NOWHERE, 1), ""),
        ("host.get_uncooperative_resident_VMs", (NULL,), []),
        ("host.set_ssl_legacy", (NULL, False), ""),
        ("VM.get_cooperative", (NOWHERE,), True),
        ("Caller.query_call_count", (NOWHERE,), "0"),
        ("PGPU.get_remaining_capacity", (NOWHERE, NOWHERE), "0"),
        ("pool_patch.clean", (NOWHERE,), ""),
        ("Cluster.pool_resync", (NOWHERE,), ""),
    ],
)
def test_a_call_that_does_not_need_its_object_does_not_look_for_it(
    api: Any, call: str, arguments: tuple[object, ...], answer: object
) -> None:
    assert getattr(api, call)(*arguments) == answer


@pytest.mark.parametrize(
    ("call", "arguments", "refused"),
    [
        ("VIF.move", (NULL, NOWHERE), ["HANDLE_INVALID", "VIF", NULL]),
        ("VM.pool_migrate", (NULL, NOWHERE, {}), ["HANDLE_INVALID", "VM", NULL]),
        ("VM.resume_on", (NULL, NOWHERE, False, False), ["HANDLE_INVALID", "VM", NULL]),
        ("VM.set_ha_restart_priority", (NULL, "x"), ["INVALID_VALUE", "ha_restart_priority", "x"]),
        ("VM_appliance.recover", (NULL, NOWHERE, False), ["HANDLE_INVALID", "session", NOWHERE]),
        ("host.migrate_receive", (NULL, NOWHERE, {}), ["HANDLE_INVALID", "network", NOWHERE]),
        ("pool.create_VLAN_from_PIF", (NULL, NOWHERE, "1"), ["HANDLE_INVALID", "PIF", NULL]),
        ("pool.set_repositories", (NULL, [NOWHERE]), ["HANDLE_INVALID", "pool", NULL]),
        ("PGPU.set_GPU_group", (NULL, NOWHERE), ["HANDLE_INVALID", "GPU_group", NOWHERE]),
        ("PIF.set_property", (NULL, "x", "x"), ["HANDLE_INVALID", "PIF", NULL]),
        ("Rate_limit.add_caller", (NULL, NOWHERE), ["HANDLE_INVALID", "Caller", NOWHERE]),
        ("Observer.set_hosts", (NULL, [NOWHERE]), ["INVALID_VALUE", "host", NOWHERE]),
        ("Cluster.create", (NULL, "x", False, 1.5, 1.5), ["INVALID_CLUSTER_STACK", "x"]),
        ("Cluster.pool_create", (NULL, "x", 0.5, 1.5), ["INVALID_VALUE", "token_timeout", "0.5"]),
        ("PVS_proxy.create", (NULL, NOWHERE), ["HANDLE_INVALID", "VIF", NOWHERE]),
        ("DR_task.create", ("x", {}, []), ["INTERNAL_ERROR", 'Sm.Unknown_driver("x")']),
        ("Repository.introduce", ("x", "x", "ftp://x", "x", False), ["INVALID_BASE_URL", "ftp://x"]),
        ("Repository.introduce_remote_pool", ("x", "x", "https://x/", "x"), ["INVALID_BASE_URL", "https://x/"]),
        ("pool_update.apply", (NULL, NOWHERE), ["HOST_OFFLINE", NOWHERE]),
        ("pool.eject", (NULL,), ["HOST_OFFLINE", NULL]),
        ("pool.initialize_wlb", ("x", "", "", "", ""), ["WLB_URL_INVALID", "x"]),
        ("pool.external_auth_set_ldaps", (NULL, True), ["AUTH_IS_DISABLED"]),
        ("host.get_management_interface", (NULL,), ["INTERNAL_ERROR", "Not_found"]),
        ("console.destroy", (NULL,), ["NOT_IMPLEMENTED", "Console.destroy"]),
        ("session.create_from_db_file", ("x",), ["INTERNAL_ERROR", 'Sys_error("x: No such file or directory")']),
    ],
)
def test_a_call_looks_at_what_it_is_given_in_the_pools_order(
    api: Any, call: str, arguments: tuple[object, ...], refused: list[str]
) -> None:
    assert refusal(lambda: getattr(api, call)(*arguments)) == refused


def test_the_pool_is_made_with_what_every_pool_makes_for_itself(lab: RunningLab, api: Any) -> None:
    [host] = api.host.get_all()
    [certificate] = api.Certificate.get_all_records().values()
    assert (certificate["type"], certificate["host"]) == ("host", host)
    assert certificate["fingerprint_sha256"].replace(":", "").lower() == lab.fingerprint
    consoles = [api.console.get_record(each) for each in api.VM.get_consoles(api.host.get_control_domain(host))]
    assert {each["protocol"] for each in consoles} == {"rfb", "vt100"}
    assert api.secret.get_all() == [api.pool.get_telemetry_uuid(api.pool.get_all()[0])]
    [internal] = api.network.get_by_name_label("Host internal management network")
    assert api.network.get_PIFs(internal) == []


def test_groups_of_devices_are_made_empty_and_removed(api: Any) -> None:
    for cls in (api.GPU_group, api.USB_group):
        group = cls.create("a", "b", {"c": "d"})
        assert cls.get_by_name_label("a") == [group]
        cls.destroy(group)
    assert refusal(lambda: api.GPU_group.get_remaining_capacity(NULL, NULL)) == ["HANDLE_INVALID", "GPU_group", NULL]


def test_authorities_are_trusted_by_name_and_certificates_by_purpose(lab: RunningLab, api: Any) -> None:
    pem = lab.certificate_pem
    assert refusal(lambda: api.pool.install_ca_certificate("a.pem", "x")) == ["CA_CERTIFICATE_INVALID"]
    assert refusal(lambda: api.pool.install_ca_certificate("a", pem)) == ["CERTIFICATE_NAME_INVALID", "a"]
    api.pool.install_ca_certificate("a.pem", pem)
    assert refusal(lambda: api.pool.certificate_install("a.pem", pem)) == ["CERTIFICATE_ALREADY_EXISTS", "a.pem"]
    assert api.pool.certificate_list() == ["a.pem"]
    api.pool.uninstall_ca_certificate("a.pem")
    again = refusal(lambda: api.pool.uninstall_ca_certificate("a.pem"))
    assert again == ["CERTIFICATE_DOES_NOT_EXIST", "a.pem"]
    forced = refusal(lambda: api.pool.uninstall_ca_certificate("a.pem", True))
    assert forced == ["INVALID_VALUE", "certificate:name", "a.pem"]

    pool = api.pool.get_all()[0]
    assert refusal(lambda: api.pool.install_trusted_certificate(pool, False, pem, [])) == ["CERTIFICATE_LACKS_PURPOSE"]
    api.pool.install_trusted_certificate(pool, True, pem, [])
    twice = refusal(lambda: api.pool.install_trusted_certificate(pool, True, pem, []))
    assert twice[0] == "TRUSTED_CERTIFICATE_ALREADY_EXISTS"
    for certificate, record in api.Certificate.get_all_records().items():
        if record["type"] == "host":
            refused = refusal(lambda each=certificate: api.pool.uninstall_trusted_certificate(pool, each))  # type: ignore[misc]
            assert refused == ["NOT_TRUSTED_CERTIFICATE", certificate]
        else:
            api.pool.uninstall_trusted_certificate(pool, certificate)
    assert len(api.Certificate.get_all()) == 1


def test_lists_of_revoked_certificates_are_kept_by_name(api: Any) -> None:
    assert refusal(lambda: api.pool.crl_install(".pem", "x")) == ["CRL_NAME_INVALID", ".pem"]
    api.pool.crl_install("a.pem", "x")
    assert refusal(lambda: api.pool.crl_install("a.pem", "x")) == ["CRL_ALREADY_EXISTS", "a.pem"]
    assert api.pool.crl_list() == ["a.pem"]
    api.pool.crl_uninstall("a.pem")
    assert refusal(lambda: api.pool.crl_uninstall("a.pem")) == ["CRL_DOES_NOT_EXIST", "a.pem"]


def test_an_asynchronous_call_on_a_task_has_no_task_itself(api: Any) -> None:
    given = getattr(api, "Async.task.cancel")(NOWHERE)
    assert given.startswith("DummyRef:|")
    assert given.endswith("|Async.task.cancel")
    assert refusal(lambda: api.task.get_status(given)) == ["HANDLE_INVALID", "task", given]


def test_an_observer_names_only_what_a_pool_would_take(api: Any) -> None:
    for field, value, refused in (
        ("components", ["x"], ["component", "x"]),
        ("endpoints", ["http://a/b"], ["endpoint", "http://a/b"]),
        ("hosts", [NOWHERE], ["host", NOWHERE]),
        ("attributes", {"a": "b"}, ["attributes", "a:b"]),
    ):
        record = {"name_label": "o", field: value}
        assert refusal(lambda record=record: api.Observer.create(record)) == ["INVALID_VALUE", *refused]  # type: ignore[misc]
    observer = api.Observer.create({"name_label": "o", "attributes": {"ab": "c"}, "endpoints": ["bugtool"]})
    assert refusal(lambda: api.Observer.set_attributes(observer, {"x y": "z"}))[2] == "x y:z"
    api.Observer.set_components(observer, ["xapi"])
    assert api.Observer.get_record(observer)["components"] == ["xapi"]
    api.Observer.destroy(observer)


def test_a_key_that_is_there_is_told_by_the_name_of_its_column(api: Any) -> None:
    vm = api.VM.get_all()[0]
    api.VM.add_to_HVM_boot_params(vm, "k", "v")
    again = refusal(lambda: api.VM.add_to_HVM_boot_params(vm, "k", "v"))
    assert again == ["MAP_DUPLICATE_KEY", "VM", "HVM__boot_params", vm, "k"]
    api.VM.remove_from_HVM_boot_params(vm, "k")


def test_a_blob_that_is_gone_is_still_named_by_what_had_it(api: Any) -> None:
    sr = api.SR.get_all()[0]
    blob = api.SR.create_new_blob(sr, "b", "")
    assert api.blob.get_mime_type(blob) == "application/octet-stream"
    api.blob.destroy(blob)
    assert api.SR.get_blobs(sr) == {"b": blob}


def test_a_secret_is_introduced_under_one_identity_once(api: Any) -> None:
    uuid = "00000000-0000-0000-0000-00000000abcd"
    secret = api.secret.introduce(uuid, "value")
    again = refusal(lambda: api.secret.introduce(uuid, "other"))
    assert again == ["INTERNAL_ERROR", f'Db_exn.Uniqueness_constraint_violation("secret", "uuid", "{uuid}")']
    api.secret.destroy(secret)


def test_an_edition_or_a_licence_changes_nothing(api: Any) -> None:
    [host] = api.host.get_all()
    api.host.apply_edition(host, "nope")
    api.pool.apply_edition(NOWHERE, "nope")
    assert api.host.get_edition(host) == "xcp-ng"
    api.host.license_add(host, "eA==")
    assert refusal(lambda: api.host.license_add(host, "x")) == ["LICENSE_PROCESSING_ERROR"]


def test_threads_for_logins_are_at_least_one(api: Any) -> None:
    refused = refusal(lambda: api.pool.set_ext_auth_max_threads(NOWHERE, "0"))
    assert refused[1].endswith("at least 1 resource available, requested: 0")


def test_the_daemons_own_figures_are_named_and_nothing(api: Any) -> None:
    [host] = api.host.get_all()
    assert set(api.Diagnostics.db_stats()) == {"n", "avgtime", "min", "max"}
    assert api.Diagnostics.gc_stats(host)["compactions"] == "0"
    assert api.Diagnostics.network_stats(host, {}) == []
    assert refusal(lambda: api.Diagnostics.gc_compact(NOWHERE)) == ["HOST_OFFLINE", NOWHERE]


def test_a_host_receives_a_vm_only_over_a_network_that_it_is_on(api: Any) -> None:
    [host] = api.host.get_all()
    network = api.network.create({"name_label": "n", "other_config": {}})
    refused = refusal(lambda: api.host.migrate_receive(host, network, {}))
    assert refused == ["HOST_CANNOT_ATTACH_NETWORK", host, network]
    api.network.destroy(network)
