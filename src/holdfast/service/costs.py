"""What the place of a repository will charge."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core import Cancellation, ExitStatus, HoldfastError
from holdfast.service.workspace import Workspace
from holdfast.storage import PRICE_LISTS, CostEstimate, estimate_costs, find_price_list, scheme_of

__all__ = ["PricesUnknown", "RepositoryCosts", "estimate_repository_costs"]


class PricesUnknown(HoldfastError):
    """There is no price list of that name."""

    code = "cost.prices-unknown"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was estimated."

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no price list named {name!r}")
        self.name = name

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Known: {', '.join(sorted(PRICE_LISTS))}."


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryCosts:
    """An estimate, and what it rests on."""

    repository: str
    stored_bytes: int
    objects: int
    estimate: CostEstimate


def estimate_repository_costs(
    workspace: Workspace, name: str, *, prices: str | None = None, cancel: Cancellation
) -> RepositoryCosts:
    """Return what a month and a restore will cost by a list of prices; without one, by that of the place.

    The place is listed, not opened: no key is needed. ``PricesUnknown``.
    """
    place = workspace.registry.repository(name).place
    if prices is not None and prices not in PRICE_LISTS:
        raise PricesUnknown(prices)
    chosen = (
        PRICE_LISTS[prices]
        if prices is not None
        else find_price_list(scheme=scheme_of(place.location), endpoint=place.options.endpoint)
    )
    stored_bytes = objects = small_objects = 0
    for info in workspace.open_store(place, False, cancel).list(""):
        stored_bytes += info.length_bytes
        objects += 1
        small_objects += info.length_bytes < chosen.object_bytes_min
    estimate = estimate_costs(
        chosen,
        stored_bytes=stored_bytes,
        objects=objects,
        small_objects=small_objects,
        requests=workspace.counted_requests(place),
    )
    return RepositoryCosts(repository=name, stored_bytes=stored_bytes, objects=objects, estimate=estimate)
