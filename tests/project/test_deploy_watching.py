"""The dashboard and the alerts, asked of a real Prometheus that reads a real service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fakes import colour_png
from servers import PATIENCE_SECONDS, POLL_SECONDS, Server, free_port, serving

from app.settings import Settings
from app.telemetry import metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
OPERATIONS = DEPLOY.parent / "docs" / "operations.md"
DASHBOARD = json.loads((DEPLOY / "grafana" / "topthree.json").read_text(encoding="utf-8"))
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
CONFIGURATION = DEPLOY / "prometheus" / "prometheus.yml"
QUERIES = {
    (panel["title"], target["refId"]): target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
}
# What the traffic of this test makes, and so a panel must show.
MOVING = ("Requests", "Time of an answer", "Time of a stage", "Photos computed", "Answers from memory", "Refusals")

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="needs Debian's package prometheus"
)


def test_every_metric_asked_for_is_one_that_there_is() -> None:
    asked = " ".join([*QUERIES.values(), ALERTS.read_text(encoding="utf-8")])
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\btopthree_\w+", asked)}
    assert len(names) > 10
    assert names - set(metrics.names()) == set()


def test_every_alert_is_explained() -> None:
    alerts = re.findall(r"alert: (\w+)", ALERTS.read_text(encoding="utf-8"))
    explained = re.findall(r"^\| `(Topthree\w+)`", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert explained == alerts


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


def test_every_panel_says_what_it_shows() -> None:
    assert [panel["title"] for panel in DASHBOARD["panels"] if not panel["description"].endswith(".")] == []


@needs_prometheus
@pytest.mark.parametrize("command", [["check", "config", str(CONFIGURATION)], ["test", "rules", "alerts_test.yml"]])
def test_promtool_agrees(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=ALERTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def watched(packaged_settings: Settings, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server of two workers, and the address of a Prometheus that reads its metrics."""
    address = f"127.0.0.1:{free_port()}"
    with serving(packaged_settings.cache, tmp_path / "log", workers=2, metrics_address=address) as server:
        server.wait_until_ready()
        with prometheus(tmp_path, address) as url:
            yield server, url


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Run Prometheus with our configuration, except for whom it asks and how often."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    for ours, here in (("app:9100", target), ("15s", "250ms"), ("alerts.yml", str(ALERTS))):
        assert ours in text
        text = text.replace(ours, here)
    (folder / "prometheus.yml").write_text(text, encoding="utf-8")
    port = free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def traffic(server: Server) -> None:
    """Send photos, some of them twice or broken, over connections of their own."""

    def once(number: int) -> int:
        photo = colour_png(number) if number % 5 else b"not a photo"
        return httpx.post(
            f"{server.url}/api/v1/predict", content=photo, headers={"Content-Type": "image/png"}
        ).status_code

    with ThreadPoolExecutor(4) as pool:
        assert {*pool.map(once, range(40))} == {200, 415}


def ask(url: str, query: str) -> list[float]:
    """Return the values of a query, as Grafana would ask it; none where Prometheus does not answer yet."""
    for variable, here in (("$__rate_interval", "30s"), ("$job", ".*")):
        query = query.replace(variable, here)
    try:
        answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=PATIENCE_SECONDS)
    except httpx.TransportError:
        return []
    if answer.status_code == 503:  # it is starting
        return []
    assert answer.status_code == 200, answer.text
    return [float(sample["value"][1]) for sample in answer.json()["data"]["result"]]


def wait_for(url: str, query: str) -> None:
    """Wait until a query finds something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ask(url, query):
        assert time.monotonic() < deadline, f"Prometheus never answered {query}"
        time.sleep(POLL_SECONDS)


@pytest.mark.live
@needs_prometheus
def test_every_panel_has_data_and_no_alert_fires(watched: tuple[Server, str]) -> None:
    server, url = watched
    traffic(server)
    wait_for(url, 'topthree_requests_total{route="/api/v1/predict"}')
    traffic(server)
    counted = 'sum(topthree_requests_total{route="/api/v1/predict"}) == 80'
    wait_for(url, counted)
    wait_for(url, f"count_over_time(({counted})[30s:250ms]) >= 2")
    for (title, target), query in QUERIES.items():
        values = ask(url, query)
        assert [value for value in values if value == value], f"{title} {target} shows nothing"
        assert title not in MOVING or max(values) > 0, f"{title} {target} does not move"
    assert ask(url, "up") == [1]
    assert ask(url, "ALERTS") == []
