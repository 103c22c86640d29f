"""List prices of object stores, as data: what a GB, a request and a restore cost, from where and from when.

They are the public list prices of one large region of each provider, without tax, discounts and free tiers of new
accounts; whoever has a contract knows better. Invariant: every list names its source and its month, and both are shown
with every figure that is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["PRICE_LISTS", "PriceList", "find_price_list"]

_GB = 10**9
_GIB = 2**30
_TIB = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """The prices of one kind of storage, in US dollars."""

    name: str
    title: str
    source: str
    """The provider's own page."""
    as_of: str
    """Year and month."""
    gb_bytes: int
    """What the provider means by a GB."""
    storage_usd_per_gb_month: float
    put_usd_per_1000: float
    get_usd_per_1000: float
    list_usd_per_1000: float
    egress_usd_per_gb: float
    """For what leaves the provider's network; nothing within one region of the same provider."""
    retrieval_usd_per_gb: float = 0.0
    """For reading, wherever it goes."""
    egress_free_of_stored: float = 0.0
    """How much may leave each month without charge, as a share of what is stored."""
    storage_bytes_min: int = 0
    """Less than this is charged as this."""
    object_bytes_min: int = 0
    """A shorter object is charged as one of this length."""
    days_min: int = 0
    """An object that is deleted earlier is charged as if it had stayed."""


PRICE_LISTS: Mapping[str, PriceList] = MappingProxyType(
    {
        each.name: each
        for each in (
            PriceList(
                name="aws-s3",
                title="Amazon S3 Standard, us-east-1",
                source="https://aws.amazon.com/s3/pricing/",
                as_of="2025-06",
                gb_bytes=_GIB,
                storage_usd_per_gb_month=0.023,
                put_usd_per_1000=0.005,
                get_usd_per_1000=0.0004,
                list_usd_per_1000=0.005,
                egress_usd_per_gb=0.09,
            ),
            PriceList(
                name="aws-s3-ia",
                title="Amazon S3 Standard-Infrequent Access, us-east-1",
                source="https://aws.amazon.com/s3/pricing/",
                as_of="2025-06",
                gb_bytes=_GIB,
                storage_usd_per_gb_month=0.0125,
                put_usd_per_1000=0.01,
                get_usd_per_1000=0.001,
                list_usd_per_1000=0.005,
                egress_usd_per_gb=0.09,
                retrieval_usd_per_gb=0.01,
                object_bytes_min=128 * 1024,
                days_min=30,
            ),
            PriceList(
                name="azure-hot",
                title="Azure Blob Storage, hot, locally redundant, East US",
                source="https://azure.microsoft.com/pricing/details/storage/blobs/",
                as_of="2025-06",
                gb_bytes=_GIB,
                storage_usd_per_gb_month=0.018,
                put_usd_per_1000=0.005,
                get_usd_per_1000=0.0004,
                list_usd_per_1000=0.005,
                egress_usd_per_gb=0.087,
            ),
            PriceList(
                name="backblaze-b2",
                title="Backblaze B2",
                source="https://www.backblaze.com/cloud-storage/pricing",
                as_of="2025-06",
                gb_bytes=_GB,
                storage_usd_per_gb_month=0.006,
                put_usd_per_1000=0.0,
                get_usd_per_1000=0.0004,
                list_usd_per_1000=0.004,
                egress_usd_per_gb=0.01,
                egress_free_of_stored=3.0,
            ),
            PriceList(
                name="wasabi",
                title="Wasabi, pay as you go",
                source="https://wasabi.com/pricing",
                as_of="2025-06",
                gb_bytes=_GIB,
                storage_usd_per_gb_month=6.99 / 1024,
                put_usd_per_1000=0.0,
                get_usd_per_1000=0.0,
                list_usd_per_1000=0.0,
                egress_usd_per_gb=0.0,
                storage_bytes_min=_TIB,
                days_min=90,
            ),
            PriceList(
                name="none",
                title="no charge by use: a store of your own",
                source="you",
                as_of="always",
                gb_bytes=_GB,
                storage_usd_per_gb_month=0.0,
                put_usd_per_1000=0.0,
                get_usd_per_1000=0.0,
                list_usd_per_1000=0.0,
                egress_usd_per_gb=0.0,
            ),
        )
    }
)

_HOSTS = (("backblazeb2.com", "backblaze-b2"), ("wasabisys.com", "wasabi"), ("amazonaws.com", "aws-s3"))


def find_price_list(*, scheme: str, endpoint: str) -> PriceList:
    """Return the list that suits a place; that of a store of one's own where none is known to."""
    if scheme == "azure" and not endpoint:
        return PRICE_LISTS["azure-hot"]
    if scheme == "s3":
        host = endpoint.partition("://")[2].partition("/")[0].partition(":")[0]
        name = next((name for ending, name in _HOSTS if host.endswith(ending)), "none")
        return PRICE_LISTS["aws-s3" if not endpoint else name]
    return PRICE_LISTS["none"]
