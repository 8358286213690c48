"""Limits: for each key and each address, before a body is read, in memory or in a real Redis."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from fakes import colour_png, fake_classifier
from flask.testing import FlaskClient
from servers import free_port
from shapes import assert_problem, form

from app import create_app
from app.settings import Settings
from app.web.keys import Key, digest_of
from app.web.service import service_of

MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def make_client(make_settings: Callable[..., Settings]) -> MakeClient:
    """Make a client of an application with some settings."""
    return lambda **values: create_app(make_settings(**values), fake_classifier()).test_client()


def ask(client: FlaskClient, address: str = "192.0.2.1", **headers: str) -> int:
    """Ask for the model from an address, and return the status."""
    return client.get("/api/v1/model", environ_overrides={"REMOTE_ADDR": address}, headers=headers).status_code


def test_without_a_limit_no_request_is_counted(make_client: MakeClient) -> None:
    client = make_client()
    assert {ask(client) for _ in range(50)} == {200}
    assert service_of(client.application).limits is None


def test_requests_over_the_limit_are_refused_until_it_renews(make_client: MakeClient) -> None:
    client = make_client(rate_limit="2/hour")
    assert [ask(client) for _ in range(3)] == [200, 200, 429]
    answer = client.post("/api/v1/predict", **form(colour_png(1)), environ_overrides={"REMOTE_ADDR": "192.0.2.1"})
    assert "2 per hour for each address" in assert_problem(answer, 429, "rate-limited")
    assert 0 < int(answer.headers["Retry-After"]) <= 3600
    assert answer.headers["RateLimit-Policy"] == '"caller-3600s";q=2;w=3600'


def test_addresses_are_counted_apart(make_client: MakeClient) -> None:
    client = make_client(rate_limit="1/hour")
    assert [ask(client, "192.0.2.1"), ask(client, "192.0.2.2"), ask(client, "192.0.2.1")] == [200, 200, 429]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_an_ipv6_network_is_one_caller(make_client: MakeClient, first: str, second: str, same: bool) -> None:
    client = make_client(rate_limit="1/hour")
    assert [ask(client, first), ask(client, second)] == [200, 429 if same else 200]


def test_probes_and_pages_are_not_counted(make_client: MakeClient) -> None:
    client = make_client(rate_limit="1/hour")
    assert [client.get(path).status_code for path in ("/", "/healthz", "/", "/healthz")] == [200] * 4


def test_keys_are_counted_apart_wherever_they_are_used(make_client: MakeClient, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("\n".join(Key(name, True, digest_of(f"tt_{name}")).as_line() for name in ("a", "b")))
    client = make_client(rate_limit="1/hour", api_keys_file=path)
    assert ask(client, "192.0.2.1", Authorization="Bearer tt_a") == 200
    assert ask(client, "192.0.2.2", Authorization="Bearer tt_a") == 429
    assert ask(client, "192.0.2.1", Authorization="Bearer tt_b") == 200


def test_guessing_keys_is_counted(make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").touch()
    client = make_client(rate_limit="2/hour", api_keys_file=tmp_path / "keys.txt")
    assert [ask(client, Authorization=f"Bearer tt_{guess}") for guess in range(3)] == [401, 401, 429]


def test_a_spoofed_address_is_not_believed(make_client: MakeClient) -> None:
    client = make_client(rate_limit="1/hour")
    answers = [ask(client, "192.0.2.1", **{"X-Forwarded-For": f"198.51.100.{n}"}) for n in range(2)]
    assert answers == [200, 429]


def test_a_trusted_proxy_names_the_clients_that_are_counted(make_client: MakeClient) -> None:
    client = make_client(rate_limit="1/hour", trusted_proxies=1)
    forwarded = ["198.51.100.1", "198.51.100.2", "203.0.113.9, 198.51.100.1"]
    assert [ask(client, "10.0.0.1", **{"X-Forwarded-For": value}) for value in forwarded] == [200, 200, 429]


def test_a_batch_counts_for_each_photo(make_client: MakeClient) -> None:
    client = make_client(rate_limit="4/hour")
    batch = form(*[colour_png(number) for number in range(4)])
    answer = client.post("/api/v1/predict/batch", **batch, environ_overrides={"REMOTE_ADDR": "192.0.2.1"})
    assert answer.status_code == 200
    assert ask(client) == 429


@contextmanager
def running_redis(port: int) -> Iterator[None]:
    """Run a real Redis that writes nothing to disk."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("needs Debian's package redis-server")
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "Ready to accept connections" in line)
        try:
            yield
        finally:
            process.terminate()


def test_processes_count_together_in_redis(make_client: MakeClient) -> None:
    port = free_port()
    with running_redis(port):
        storage = f"redis://127.0.0.1:{port}/0"
        first, second = (make_client(rate_limit="2/hour", rate_limit_storage=storage) for _ in range(2))
        assert [ask(first), ask(second), ask(first), ask(second)] == [200, 200, 429, 429]
        with redis.Redis(port=port) as connection:
            assert all(key.startswith(b"LIMITS:") for key in connection.scan_iter())


def test_a_redis_that_is_back_counts_again(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.ratecounts.RETRY_SECONDS", 0.0)
    port = free_port()
    first, second = (
        make_client(rate_limit="2/hour", rate_limit_storage=f"redis://127.0.0.1:{port}/0") for _ in range(2)
    )
    assert [ask(first), ask(first), ask(first)] == [200, 200, 429]
    with running_redis(port):
        assert [ask(first), ask(second), ask(first)] == [200, 200, 429]


def test_without_redis_each_process_counts_on_its_own(make_client: MakeClient) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        storage = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
        client = make_client(rate_limit="2/hour", rate_limit_storage=storage)
        assert [ask(client) for _ in range(3)] == [200, 200, 429]
