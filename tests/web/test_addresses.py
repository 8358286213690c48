"""Addresses without the ports that proxies add, and the networks that count as one client."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from fakes import fake_classifier
from flask.testing import FlaskClient

from app import create_app
from app.settings import Settings
from app.web.addresses import counted_as, without_port

WITH_PORT = [
    ("203.0.113.7:4711", "203.0.113.7"),
    ("[2001:db8::1]:4711", "2001:db8::1"),
    ("[2001:db8::1]", "2001:db8::1"),
    (" 203.0.113.7:4711 ", "203.0.113.7"),
]


@pytest.mark.parametrize(("text", "address"), WITH_PORT)
def test_a_port_is_left_out(text: str, address: str) -> None:
    assert without_port(text) == address


@pytest.mark.parametrize(
    "text",
    ["203.0.113.7", "2001:db8::1", "2001:db8::1:4711", "::ffff:192.0.2.1", "", "local", "unknown", "1.2:3", "[x]:1"]
    + ["203.0.113.7:", "203.0.113.7:4711x", "999.0.113.7:1", "[203.0.113.7", "_hidden:1"],
)
def test_an_address_without_a_port_is_unchanged(text: str) -> None:
    assert without_port(text) == text


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("local", "local"),
    ],
)
def test_an_ipv6_network_counts_as_one(text: str, client: str) -> None:
    assert counted_as(text) == client


@pytest.fixture
def client(make_settings: Callable[..., Settings]) -> FlaskClient:
    """A client behind a trusted proxy, whose addresses are logged and may ask once an hour."""
    settings = make_settings(
        trusted_proxies=1, rate_limit_per_address="1/hour", access_log="on", log_addresses="on", log_format="json"
    )
    return create_app(settings, fake_classifier()).test_client()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("203.0.113.7:4711", "203.0.113.7:4712"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2001:db8::1]:4711", "[2001:db8::2]:4711"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
    ],
)
def test_limits_count_the_address_without_its_port(client: FlaskClient, first: str, second: str) -> None:
    forwarded = [first, second]
    answers = [client.get("/api/v1/model", headers={"X-Forwarded-For": value}) for value in forwarded]
    assert [answer.status_code for answer in answers] == [200, 429]


@pytest.mark.parametrize(("text", "address"), WITH_PORT)
def test_the_log_has_the_address_without_its_port(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, text: str, address: str
) -> None:
    caplog.set_level(logging.INFO)
    client.get("/api/v1/model", headers={"X-Forwarded-For": text})
    assert [record.address for record in caplog.records if hasattr(record, "address")] == [address]


def test_without_a_trusted_proxy_the_header_is_not_read(make_settings: Callable[..., Settings]) -> None:
    client = create_app(make_settings(rate_limit_per_address="1/hour"), fake_classifier()).test_client()
    answers = [client.get("/api/v1/model", headers={"X-Forwarded-For": f"203.0.113.7:{port}"}) for port in (1, 2)]
    assert [answer.status_code for answer in answers] == [200, 429]
