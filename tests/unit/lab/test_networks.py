"""Networks, interfaces, VLANs, tunnels and bonds: the rules that other programs rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.lab import RunningLab
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import refusal, vm_named

NULL = "OpaqueRef:NULL"


@pytest.fixture
def network(api: Any) -> Iterator[str]:
    """A network of its own."""
    made = api.network.create({"name_label": "net", "name_description": "", "other_config": {}})
    yield made
    if made in api.network.get_all():
        api.network.destroy(made)


@pytest.fixture
def management(api: Any) -> str:
    """The interface that clients talk to."""
    found: str = api.host.get_management_interface(api.host.get_all()[0])
    return found


def _record(**changes: Any) -> dict[str, Any]:
    return {"name_label": "made", "name_description": "", "other_config": {}, **changes}


# -- networks


@pytest.mark.parametrize("bridge", ["xenbr7", "xapi77", "vif1.0", "tap0", "eth9", "a-name-of-16-byt"])
def test_a_bridge_cannot_have_a_name_that_the_host_gives(api: Any, bridge: str) -> None:
    assert refusal(lambda: api.network.create(_record(bridge=bridge))) == ["INVALID_VALUE", "bridge", bridge]


def test_a_bridge_has_one_network(api: Any) -> None:
    made = api.network.create(_record(bridge="mybr0", MTU="0"))
    try:
        assert api.network.get_MTU(made) == "1500"
        assert refusal(lambda: api.network.create(_record(bridge="mybr0"))) == ["BRIDGE_NAME_EXISTS", "mybr0"]
    finally:
        api.network.destroy(made)


def test_the_name_of_a_bridge_is_given_once(api: Any) -> None:
    first = api.network.create(_record())
    name = api.network.get_bridge(first)
    api.network.destroy(first)
    second = api.network.create(_record())
    assert api.network.get_bridge(second) != name
    api.network.destroy(second)


def test_cards_that_are_not_plugged_go_with_their_network(api: Any) -> None:
    made, vm = api.network.create(_record()), vm_named(api, "alpha")
    card = {"VM": vm, "network": made, "device": "3", "MAC": "", "MTU": "0", "other_config": {}}
    vif = api.VIF.create({**card, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    api.network.destroy(made)
    assert refusal(lambda: api.VIF.get_uuid(vif)) == ["HANDLE_INVALID", "VIF", vif]


def test_the_network_of_the_hosts_own_management_stays(api: Any) -> None:
    system = api.network.create(_record(other_config={"is_host_internal_management_network": "true"}))
    assert refusal(lambda: api.network.destroy(system)) == ["CANNOT_DESTROY_SYSTEM_NETWORK", system]
    api.network.set_other_config(system, {})
    api.network.destroy(system)


def test_a_blob_is_named_once_per_object(api: Any, network: str) -> None:
    blob = api.network.create_new_blob(network, "notes", "", False)
    assert api.blob.get_mime_type(blob) == "application/octet-stream"
    again = refusal(lambda: api.network.create_new_blob(network, "notes", "text/plain", False))
    assert again == ["MAP_DUPLICATE_KEY", "network", "blobs", network, "notes"]
    api.blob.destroy(blob)
    assert api.network.get_blobs(network) == {"notes": blob}


# -- interfaces


def test_nobody_can_cut_the_pool_off(api: Any, management: str) -> None:
    refused = ["PIF_IS_MANAGEMENT_INTERFACE", management]
    attempts: list[Callable[[], Any]] = [
        lambda: api.PIF.unplug(management),
        lambda: api.PIF.forget(management),
        lambda: api.PIF.set_primary_address_type(management, "IPv6"),
        lambda: api.PIF.reconfigure_ip(management, "None", "", "", "", ""),
    ]
    for attempt in attempts:
        assert refusal(attempt) == refused


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (("Static", "", "255.0.0.0", "", ""), "IP"),
        (("Static", "10.0.0.1", "", "", ""), "netmask"),
        (("Static", "10.0.0.1", "255.0.0.0", "nowhere", ""), "gateway"),
        (("DHCP", "::1", "", "", ""), "IP"),
    ],
)
def test_addresses_are_looked_at(api: Any, management: str, given: tuple[str, ...], wrong: str) -> None:
    refused = refusal(lambda: api.PIF.reconfigure_ip(management, *given))
    assert refused == ["INVALID_IP_ADDRESS_SPECIFIED", wrong]


def test_name_servers_of_both_kinds_live_side_by_side(api: Any, management: str) -> None:
    before = api.PIF.get_record(management)
    api.PIF.reconfigure_ipv6(management, "Static", "fd00::5/64", "fd00::1", "fd00::53,9.9.9.9")
    api.PIF.reconfigure_ip(management, "Static", "10.0.0.5", "255.0.0.0", "10.0.0.1", "10.0.0.53,fd00::54")
    assert api.PIF.get_DNS(management) == "10.0.0.53,fd00::53"
    assert refusal(lambda: api.PIF.reconfigure_ipv6(management, "Static", "fd00::5", "", "")) == [
        "INVALID_CIDR_ADDRESS_SPECIFIED",
        "IPv6",
    ]
    kept = ("ip_configuration_mode", "IP", "netmask", "gateway", "DNS")
    api.PIF.reconfigure_ip(management, *(before[name] for name in kept))


@pytest.mark.parametrize(
    ("mac", "device", "refused"),
    [
        ("no address", "eth7", ["MAC_INVALID", "no address"]),
        ("", "eth7", ["MAC_INVALID", ""]),
        ("02:00:00:00:00:AA", "eth0", ["DUPLICATE_PIF_DEVICE_NAME", "eth0"]),
        (
            "02:00:00:00:00:AA",
            "eth7",
            [
                "COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS",
                "eth7",
                "02:00:00:00:00:aa",
            ],
        ),
    ],
)
def test_only_interfaces_that_exist_can_be_introduced(api: Any, mac: str, device: str, refused: list[str]) -> None:
    assert refusal(lambda: api.PIF.introduce(api.host.get_all()[0], mac, device)) == refused


def test_a_property_of_an_interface_is_a_known_one(api: Any, management: str) -> None:
    api.PIF.set_property(management, "gro", "off")
    assert api.PIF.get_properties(management) == {"gro": "off"}
    assert refusal(lambda: api.PIF.set_property(management, "gro", "maybe")) == [
        "INVALID_VALUE",
        "properties",
        "gro = maybe",
    ]


# -- VLANs


def test_a_vlan_has_an_interface_that_goes_with_it(api: Any, network: str, management: str) -> None:
    vlan = api.VLAN.create(management, "7", network)
    record = api.PIF.get_record(api.VLAN.get_untagged_PIF(vlan))
    wanted = {"VLAN": "7", "MAC": "fe:ff:ff:ff:ff:ff", "physical": False, "currently_attached": True}
    assert {name: record[name] for name in wanted} == wanted
    assert record["VLAN_master_of"] == vlan
    assert record["metrics"] == api.PIF.get_metrics(management)
    assert api.PIF.get_VLAN_slave_of(management) == [vlan]
    api.VLAN.destroy(vlan)
    assert api.network.get_PIFs(network) == []


def test_vlans_that_cannot_be_are_refused(api: Any, network: str, management: str) -> None:
    host, other = api.host.get_all()[0], api.network.create(_record())
    vlan = api.VLAN.create(management, "8", network)
    upper = api.VLAN.get_untagged_PIF(vlan)
    try:
        attempts: list[tuple[Callable[[], Any], list[str]]] = [
            (lambda: api.VLAN.create(management, "4095", other), ["VLAN_TAG_INVALID", "4095"]),
            (lambda: api.VLAN.create(management, "-1", other), ["VLAN_TAG_INVALID", "-1"]),
            (lambda: api.VLAN.create(management, "8", other), ["PIF_VLAN_EXISTS", "eth0"]),
            (lambda: api.VLAN.create(management, "9", network), ["NETWORK_ALREADY_CONNECTED", host, upper]),
            (lambda: api.VLAN.create(upper, "9", other), ["PIF_IS_VLAN", upper]),
            (lambda: api.VLAN.create(NULL, "9", other), ["HANDLE_INVALID", "PIF", NULL]),
            (lambda: api.PIF.forget(upper), ["PIF_VLAN_STILL_EXISTS", upper]),
            (lambda: api.PIF.destroy(management), ["PIF_IS_PHYSICAL"]),
            (lambda: api.pool.create_VLAN("eth9", other, "9"), ["INVALID_VALUE", "device", "eth9"]),
            (lambda: api.network.destroy(network), ["NETWORK_CONTAINS_PIF", upper]),
        ]
        for attempt, refused in attempts:
            assert refusal(attempt) == refused
    finally:
        api.PIF.destroy(upper)
        api.network.destroy(other)


def test_a_tunnel_needs_open_vswitch(api: Any, network: str, management: str, lab: RunningLab) -> None:
    db, host = lab.pool.db, api.host.get_all()[0]
    before = db.mapping("host", host, "software_version")
    db.set("host", host, "software_version", {**before, "network_backend": "bridge"})
    assert refusal(lambda: api.tunnel.create(management, network, "gre")) == ["OPENVSWITCH_NOT_ACTIVE"]
    db.set("host", host, "software_version", {**before, "network_backend": "openvswitch"})
    tunnel = api.tunnel.create(management, network, "vxlan")
    assert api.tunnel.get_status(tunnel) == {"active": "true"}
    assert api.PIF.get_device(api.tunnel.get_access_PIF(tunnel)) == "tunnel0"
    api.tunnel.destroy(tunnel)
    db.set("host", host, "software_version", before)


# -- bonds


def test_a_bond_carries_what_its_members_carried() -> None:
    with tiny_lab(hosts=1, scenario="empty", nbd="none") as lab, logged_in(lab) as session:
        api = session.xenapi
        host = api.host.get_all()[0]
        first = api.host.get_management_interface(host)
        spare = api.network.create(_record())
        second = lab.pool.db.create(
            "PIF",
            {
                **lab.pool.db.row("PIF", first).fields,
                "uuid": "",
                "device": "eth7",
                "network": spare,
                "management": False,
            }
            | {"ip_configuration_mode": "None", "VLAN_slave_of": [], "bond_master_of": []},
        )
        vlan = api.VLAN.create(first, "5", api.network.create(_record()))
        bond = api.Bond.create(api.network.create(_record()), [first, second], "", "lacp", {})
        master = api.Bond.get_master(bond)
        assert api.host.get_management_interface(host) == master
        assert api.VLAN.get_tagged_PIF(vlan) == master
        assert api.Bond.get_properties(bond)["lacp-time"] == "slow"
        assert sorted(api.Bond.get_slaves(bond)) == sorted([first, second])
        assert refusal(lambda: api.PIF.plug(second)) == ["CANNOT_PLUG_BOND_SLAVE", second]
        assert refusal(lambda: api.Bond.set_property(bond, "lacp-time", "now")) == [
            "INVALID_VALUE",
            "properties",
            "lacp-time = now",
        ]
        api.Bond.destroy(bond)
        assert api.host.get_management_interface(host) == first
        assert api.VLAN.get_tagged_PIF(vlan) == first
