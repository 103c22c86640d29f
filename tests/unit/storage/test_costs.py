"""An estimate is a range that adds up, rests on what was counted, and names its prices."""

from __future__ import annotations

import re

import pytest

from holdfast.storage import PRICE_LISTS, CostEstimate, CountedRequests, PriceList, estimate_costs, find_price_list

TB = 10**12


def estimate(name: str, *, stored_bytes: int = TB, requests: CountedRequests | None = None) -> CostEstimate:
    return estimate_costs(
        PRICE_LISTS[name],
        stored_bytes=stored_bytes,
        objects=16_000,
        small_objects=1_000,
        requests=requests or CountedRequests(),
    )


def line(found: CostEstimate, what: str) -> tuple[float, float]:
    return next((each.usd_low, each.usd_high) for each in found.month if each.what == what)


@pytest.mark.parametrize("prices", PRICE_LISTS.values(), ids=lambda prices: prices.name)
def test_every_list_names_its_source_and_month(prices: PriceList) -> None:
    assert PRICE_LISTS[prices.name] is prices
    assert prices.source.startswith("https://") or prices.name == "none"
    assert re.fullmatch(r"20\d\d-[01]\d|always", prices.as_of)


@pytest.mark.parametrize("name", PRICE_LISTS)
@pytest.mark.parametrize("days", [0.0, 2.0, 30.0])
def test_parts_add_up_and_no_range_is_upside_down(name: str, days: float) -> None:
    counted = CountedRequests(days=days, puts=9000, gets=5000, lists=60, put_bytes=TB // 2, get_bytes=TB // 10)
    found = estimate(name, requests=counted if days else CountedRequests())
    for lines, total in [(found.month, found.month_usd), (found.restore, found.restore_usd)]:
        assert all(0 <= each.usd_low <= each.usd_high for each in lines)
        assert total == pytest.approx((sum(e.usd_low for e in lines), sum(e.usd_high for e in lines)))


def test_a_terabyte_at_amazon_costs_what_its_list_says() -> None:
    found = estimate("aws-s3")
    gib = TB / 2**30
    assert line(found, "storage") == pytest.approx((gib * 0.023, gib * 0.023))
    assert found.restore_usd[0] == pytest.approx(16 * 0.0004)
    assert found.restore_usd[1] == pytest.approx(gib * 0.09 + 4 * 16 * 0.0004)


def test_counted_requests_are_scaled_to_a_month_and_a_week_of_them_is_surer() -> None:
    week = estimate("aws-s3", requests=CountedRequests(days=10, puts=10_000))
    assert line(week, "writing") == pytest.approx((30 * 0.005 * 0.75, 30 * 0.005 * 1.25))
    day = estimate("aws-s3", requests=CountedRequests(days=1, puts=1_000))
    low, high = line(day, "writing")
    assert high - low > line(week, "writing")[1] - line(week, "writing")[0]
    hour = estimate("aws-s3", requests=CountedRequests(days=0.04, puts=1_000))
    assert line(hour, "writing") == line(day, "writing")
    assert any("less than a week" in note for note in day.notes)
    assert not any("less than a week" in note for note in week.notes)


def test_without_counts_the_range_begins_at_nothing_and_says_so() -> None:
    found = estimate("aws-s3")
    assert line(found, "writing") == pytest.approx((0.0, 16 * 0.005))
    assert "not counted yet" in found.month[1].why


def test_the_least_that_a_provider_charges_is_charged() -> None:
    small = estimate("wasabi", stored_bytes=10**9)
    assert line(small, "storage")[0] == pytest.approx(6.99)
    assert any("90 days" in note for note in small.notes)
    padded = estimate("aws-s3-ia")
    low, high = line(padded, "storage")
    assert high - low == pytest.approx(1000 * 128 * 1024 / 2**30 * 0.0125)


def test_what_leaves_free_is_free() -> None:
    assert estimate("backblaze-b2").restore_usd[1] == pytest.approx(4 * 16 * 0.0004)
    much = estimate("backblaze-b2", requests=CountedRequests(days=30, gets=1, get_bytes=5 * TB))
    assert line(much, "data read")[1] == pytest.approx((5 * 1.25 - 3) * 10)


def test_reading_the_rarely_read_is_charged_within_the_region_too() -> None:
    gib = TB / 2**30
    low, high = estimate("aws-s3-ia").restore_usd
    assert low == pytest.approx(gib * 0.01 + 16 * 0.001)
    assert high == pytest.approx(gib * 0.10 + 4 * 16 * 0.001)


@pytest.mark.parametrize(
    ("scheme", "endpoint", "name"),
    [
        ("s3", "", "aws-s3"),
        ("s3", "https://s3.eu-central-1.amazonaws.com", "aws-s3"),
        ("s3", "https://s3.us-west-004.backblazeb2.com", "backblaze-b2"),
        ("s3", "https://s3.wasabisys.com:443/", "wasabi"),
        ("s3", "http://192.0.2.1:9000", "none"),
        ("s3", "https://wasabisys.com.example.org", "none"),
        ("azure", "", "azure-hot"),
        ("azure", "http://127.0.0.1:10000", "none"),
        ("file", "", "none"),
        ("smb", "", "none"),
    ],
)
def test_a_place_gets_the_list_of_its_provider_or_none(scheme: str, endpoint: str, name: str) -> None:
    assert find_price_list(scheme=scheme, endpoint=endpoint).name == name
