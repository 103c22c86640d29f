"""What an object store will charge for a month of a repository, and for a restore of all of it.

From what is stored now, the requests that were counted, and a list of prices. Invariant: an estimate is a range, says
what it rests on, and its parts add up to its total.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.storage.prices import PriceList

__all__ = ["CostEstimate", "CostLine", "CountedRequests", "estimate_costs"]

_MONTH_DAYS = 30
_NAMES_PER_LIST = 1000
_SURE_DAYS = 7
_SPREAD_SURE = 0.25
_SPREAD_UNSURE = 0.6
"""A week of counting has every weekday in it; less may have missed the large run, or seen nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedRequests:
    """What was asked of a place by this machine over some days."""

    days: float = 0.0
    puts: int = 0
    gets: int = 0
    """Sizes and locks count as gets: providers charge them so."""
    lists: int = 0
    put_bytes: int = 0
    get_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """One part of a bill, in US dollars."""

    what: str
    usd_low: float
    usd_high: float
    why: str
    """What it was made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """A month, and a restore of everything."""

    prices: PriceList
    month: Sequence[CostLine]
    restore: Sequence[CostLine]
    notes: Sequence[str]

    @property
    def month_usd(self) -> tuple[float, float]:
        """The month's total, at least and at most."""
        return _total(self.month)

    @property
    def restore_usd(self) -> tuple[float, float]:
        """What reading everything once costs, at least and at most."""
        return _total(self.restore)


def estimate_costs(
    prices: PriceList, *, stored_bytes: int, objects: int, small_objects: int, requests: CountedRequests
) -> CostEstimate:
    """Return what the month and a restore will cost. ``small_objects`` are those below ``prices.object_bytes_min``."""
    return CostEstimate(
        prices=prices,
        month=[
            _storage(prices, stored_bytes, small_objects),
            _requests("writing", prices.put_usd_per_1000, requests.puts, "puts", requests.days, guess=objects),
            _requests("reading", prices.get_usd_per_1000, requests.gets, "gets", requests.days, guess=objects),
            _listing(prices, objects, requests),
            _leaving(prices, stored_bytes, requests),
        ],
        restore=_restore(prices, stored_bytes=stored_bytes, objects=objects),
        notes=list(_notes(prices, requests)),
    )


def _storage(prices: PriceList, stored_bytes: int, small_objects: int) -> CostLine:
    charged_bytes = max(stored_bytes, prices.storage_bytes_min)
    usd = charged_bytes / prices.gb_bytes * prices.storage_usd_per_gb_month
    padding = small_objects * prices.object_bytes_min / prices.gb_bytes * prices.storage_usd_per_gb_month
    why = f"{stored_bytes / prices.gb_bytes:,.1f} GB now"
    if charged_bytes > stored_bytes:
        why += f", charged as {charged_bytes / prices.gb_bytes:,.0f} GB, the least"
    return CostLine(what="storage", usd_low=usd, usd_high=usd + padding, why=why)


def _requests(what: str, usd_per_1000: float, counted: int, noun: str, days: float, *, guess: int) -> CostLine:
    if days <= 0:
        # Nothing was counted: between nothing and all objects anew each month.
        return CostLine(
            what=what,
            usd_low=0.0,
            usd_high=guess * usd_per_1000 / 1000,
            why=f"not counted yet; at most {guess:,} {noun}",
        )
    month = counted * _MONTH_DAYS / max(days, 1.0)
    spread = _spread(days)
    return CostLine(
        what=what,
        usd_low=month * (1 - spread) * usd_per_1000 / 1000,
        usd_high=month * (1 + spread) * usd_per_1000 / 1000,
        why=f"{counted:,} {noun} counted in {max(days, 1.0):.0f} days",
    )


def _listing(prices: PriceList, objects: int, requests: CountedRequests) -> CostLine:
    """A listing is a request for each thousand names: one when it asks for a few, many when it asks for all."""
    pages = -(-objects // _NAMES_PER_LIST)
    guess = pages * _MONTH_DAYS
    line = _requests("listing", prices.list_usd_per_1000, requests.lists, "lists", requests.days, guess=guess)
    return replace(line, usd_high=line.usd_high * max(1, pages)) if requests.days > 0 else line


def _leaving(prices: PriceList, stored_bytes: int, requests: CountedRequests) -> CostLine:
    month_bytes = requests.get_bytes * _MONTH_DAYS / max(requests.days, 1.0)
    spread = _spread(requests.days)
    low, high = (_egress(prices, month_bytes * factor, stored_bytes) for factor in (1 - spread, 1 + spread))
    read = f"{requests.get_bytes / prices.gb_bytes:,.1f} GB read in {max(requests.days, 1.0):.0f} days"
    return CostLine(
        what="data read",
        # Within the provider's own network only the retrieval is charged.
        usd_low=month_bytes * (1 - spread) / prices.gb_bytes * prices.retrieval_usd_per_gb,
        usd_high=max(low, high),
        why=read if requests.days > 0 else "not counted yet",
    )


def _restore(prices: PriceList, *, stored_bytes: int, objects: int) -> Sequence[CostLine]:
    retrieval = stored_bytes / prices.gb_bytes * prices.retrieval_usd_per_gb
    # Each pack is read once, in one request or a few.
    requests = objects * prices.get_usd_per_1000 / 1000
    return [
        CostLine(
            what="data read",
            usd_low=retrieval,
            usd_high=_egress(prices, stored_bytes, stored_bytes),
            why=f"{stored_bytes / prices.gb_bytes:,.1f} GB, each pack once; nothing but retrieval within the region",
        ),
        CostLine(
            what="reading", usd_low=requests, usd_high=requests * 4, why=f"{objects:,} objects, one to four gets each"
        ),
    ]


def _egress(prices: PriceList, read_bytes: float, stored_bytes: int) -> float:
    charged_bytes = max(0.0, read_bytes - prices.egress_free_of_stored * stored_bytes)
    return charged_bytes / prices.gb_bytes * prices.egress_usd_per_gb + (
        read_bytes / prices.gb_bytes * prices.retrieval_usd_per_gb
    )


def _notes(prices: PriceList, requests: CountedRequests) -> Sequence[str]:
    notes = []
    if prices.days_min:
        notes.append(
            f"What is deleted before {prices.days_min} days is charged as if it had stayed: "
            "keep restore points at least that long, and collect garbage rarely."
        )
    if prices.storage_usd_per_gb_month and requests.days < _SURE_DAYS:
        notes.append("Requests were counted for less than a week; the range narrows with time.")
    return notes


def _spread(days: float) -> float:
    return _SPREAD_SURE if days >= _SURE_DAYS else _SPREAD_UNSURE


def _total(lines: Sequence[CostLine]) -> tuple[float, float]:
    return sum(each.usd_low for each in lines), sum(each.usd_high for each in lines)
