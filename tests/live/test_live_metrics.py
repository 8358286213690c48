"""Metrics and logs of the real service: two workers that count together, one address for operators alone."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fakes import colour_png
from prometheus_client.parser import text_string_to_metric_families
from servers import PATIENCE_SECONDS, Server, free_port, serving
from workers import POST, read_answer

from app.settings import Settings

pytestmark = pytest.mark.live

PREDICT = "/api/v1/predict"
ALL = {"route": PREDICT, "method": "POST"}


@contextmanager
def watching(settings: Settings, folder: Path) -> Iterator[tuple[Server, str]]:
    """Run a ready server of two workers that keeps no answers, and the address of its metrics."""
    address = f"127.0.0.1:{free_port()}"
    options = {"workers": 2, "metrics_address": address, "log_format": "json", "access_log": "on"}
    options |= {"model": settings.model, "labels": settings.labels}
    with serving(settings.cache, folder / "log", result_cache_bytes=0, **options) as server:
        server.wait_until_ready()
        yield server, f"http://{address}"


@pytest.fixture
def watched(small_settings: Settings, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server that has counted nothing yet, and the address of its metrics."""
    with watching(small_settings, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shared(small_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server for all tests that count nothing, and the address of its metrics."""
    with watching(small_settings, tmp_path_factory.mktemp("shared")) as found:
        yield found


def samples(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Read the metrics at an address; each sample's value by its name and labels."""
    text = httpx.get(f"{url}/metrics", timeout=PATIENCE_SECONDS).raise_for_status().text
    found = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in found for s in family.samples}


def value(url: str, name: str, **labels: str) -> float:
    """Read one sample."""
    return samples(url)[f"topthree_{name}", frozenset(labels.items())]


def send(server: Server, count: int) -> None:
    """Send `count` different photos, each over a connection of its own, so that both workers get some."""

    def once(number: int) -> int:
        photo = colour_png(number) if number % 10 else b"not a photo: %d" % number
        return httpx.post(f"{server.url}{PREDICT}", content=photo, headers={"Content-Type": "image/png"}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert {*pool.map(once, range(count))} == {200, 415}


def test_two_workers_count_every_request_once(watched: tuple[Server, str]) -> None:
    server, metrics = watched
    send(server, 200)
    pids = {record["process"] for record in requests_logged(server)}
    assert len(pids) == 2, "one worker had all requests, so nothing was added up"
    for _ in range(6):  # whichever worker answers
        assert value(metrics, "requests_total", **ALL, status="200") == 180
    assert value(metrics, "requests_total", **ALL, status="415") == 20
    assert value(metrics, "request_seconds_count", route=PREDICT) == 200
    assert value(metrics, "stage_seconds_count", stage="infer") == 180
    assert value(metrics, "decode_failures_total", reason="unsupported-image") == 20
    assert value(metrics, "cache_lookups_total", source="miss") == 200
    assert (value(metrics, "ready_workers"), value(metrics, "planned_workers")) == (2, 2)
    assert value(metrics, "photos_in_flight") == value(metrics, "upload_bytes") == 0


def test_counts_outlive_a_worker_that_was_killed(watched: tuple[Server, str]) -> None:
    server, metrics = watched
    send(server, 50)
    killed = server.workers[0]
    os.kill(killed, signal.SIGKILL)
    server.wait_for_log("Booting worker with pid", times=3)
    server.wait_until_ready()
    send(server, 50)
    assert value(metrics, "requests_total", **ALL, status="200") == 90
    assert value(metrics, "worker_restarts_total") == 1
    assert value(metrics, "requests_in_progress") == 1  # the one that asks


def test_each_address_serves_its_own(shared: tuple[Server, str]) -> None:
    server, metrics = shared
    for path, here, there in (("/metrics", 404, 200), ("/healthz", 200, 200), ("/", 200, 404), (PREDICT, 405, 404)):
        forged = {"Host": metrics.removeprefix("http://"), "X-Forwarded-Port": metrics.rpartition(":")[2]}
        assert httpx.get(server.url + path, headers=forged).status_code == here
        assert httpx.get(metrics + path).status_code == there


def test_no_large_body_is_taken_at_the_address_of_metrics(shared: tuple[Server, str]) -> None:
    _, metrics = shared
    address = httpx.URL(metrics)
    with socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(POST % (1_000_000, b""))  # and nothing of the body
        assert read_answer(connection)[0] == 404


def test_every_line_is_json_and_says_whose_it_is(shared: tuple[Server, str]) -> None:
    server, _ = shared
    answer = httpx.get(f"{server.url}/none", headers={"X-Request-ID": "mine-7"})
    assert answer.headers["X-Request-ID"] == "mine-7"
    server.wait_for_log("mine-7")
    records = [json.loads(line) for line in server.log.splitlines()]
    assert {"gunicorn.error", "app.requests"} <= {record["logger"] for record in records}
    assert all(record["time"].endswith("+00:00") for record in records)
    line = next(record for record in records if record.get("request_id") == "mine-7")
    assert (line["route"], line["status"], line["bytes_out"]) == (
        "unmatched",
        404,
        int(answer.headers["Content-Length"]),
    )
    assert "127.0.0.1" not in json.dumps(line)


def test_folder_of_the_counts_ends_with_the_service(small_settings: Settings, tmp_path: Path) -> None:
    with watching(small_settings, tmp_path) as (server, _):
        environment = Path(f"/proc/{server.workers[0]}/maps").read_text(encoding="utf-8")
        folder = next(Path(word).parent for word in environment.split() if "/topthree-metrics-" in word)
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def requests_logged(server: Server) -> list[dict[str, object]]:
    """Read the lines of answered requests for a prediction."""
    records = [json.loads(line) for line in server.log.splitlines()]
    return [record for record in records if record.get("route") == PREDICT]
