"""A pool's address is parsed once, prints as what it was parsed from, and never holds a password."""

from __future__ import annotations

import pytest

from holdfast.xapi import AddressInvalid, PoolAddress


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://pool.example", "https://pool.example"),
        ("pool.example", "https://pool.example"),
        ("https://pool.example:8443/", "https://pool.example:8443"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("https://[2001:db8::1]:443", "https://[2001:db8::1]"),
        ("  https://Pool.Example ", "https://pool.example"),
    ],
)
def test_an_address_is_parsed_and_prints_as_a_url_that_parses_back(text: str, url: str) -> None:
    address = PoolAddress.parse(text)
    assert address.url == url
    assert PoolAddress.parse(address.url) == address


@pytest.mark.parametrize(
    "text", ["ftp://pool", "https://", "https://pool/path", "https://pool:port", "", "https://a b"]
)
def test_nonsense_is_refused_with_the_text_that_was_given(text: str) -> None:
    with pytest.raises(AddressInvalid) as caught:
        PoolAddress.parse(text)
    assert repr(text) in str(caught.value)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(AddressInvalid) as caught:
        PoolAddress.parse("https://root:hunter2@pool.example")
    assert "hunter2" not in str(caught.value)


def test_another_host_keeps_scheme_and_port_and_takes_bare_ipv6() -> None:
    address = PoolAddress.parse("https://pool.example:8443").at_host("2001:db8::2")
    assert address.url == "https://[2001:db8::2]:8443"
