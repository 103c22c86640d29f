"""The shape in which a restore point keeps a VM's configuration: XAPI's records whole, cards with their networks named.

Written by the backup flow, read by the restore flow, so it lives beneath both. Invariant: nothing of XAPI's records is
left out, unknown fields included; what is added stands under ``cards``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.model.json import JsonObject, JsonValue
from holdfast.model.pool import Vm

__all__ = ["NicFacts", "nic_facts", "save_vm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NicFacts:
    """A network card as it was saved."""

    position: str
    mac: str
    network_uuid: str
    network_name: str
    record: JsonObject = field(repr=False)


def save_vm(vm: Vm, records: JsonObject) -> JsonObject:
    """Return what a restore point keeps: the pool's ``records`` of the VM and all that belongs to it, by class name,
    and under ``cards`` the network cards with their networks spelled out, because references mean nothing elsewhere."""
    cards: list[JsonValue] = [
        {
            "position": nic.position,
            "mac": nic.mac,
            "network_uuid": nic.network.uuid if nic.network else "",
            "network_name": nic.network.name if nic.network else "",
            "record": nic.record,
        }
        for nic in vm.nics
    ]
    return {**records, "cards": cards}


def nic_facts(saved: JsonObject) -> list[NicFacts]:
    """Return the cards of a saved VM, by position."""
    cards = saved.get("cards")
    found = []
    for card in cards if isinstance(cards, list) else []:
        if isinstance(card, dict):
            record = card.get("record")
            found.append(
                NicFacts(
                    position=str(card.get("position", "")),
                    mac=str(card.get("mac", "")),
                    network_uuid=str(card.get("network_uuid", "")),
                    network_name=str(card.get("network_name", "")),
                    record=record if isinstance(record, dict) else {},
                )
            )
    return sorted(found, key=lambda each: each.position)
