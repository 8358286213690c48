"""A bundle serves where there is no network: a real gunicorn in a namespace without any route."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import GUNICORN, ROOT, free_port, serving

from app.model.artifact import ensure_prepared
from app.model.bundle_writer import write_bundle
from app.model.labels import imagenet_labels
from app.settings import Settings

pytestmark = pytest.mark.live

ASK = """
import json, sys, time, urllib.error, urllib.request
url, photo = sys.argv[1], open(sys.argv[2], "rb").read()
def get(path, data=None):
    request = urllib.request.Request(url + path, data, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)
deadline = time.monotonic() + 120
while True:
    try:
        ready = get("/readyz")
        break
    except (urllib.error.URLError, OSError):
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
lines = [line.split() for line in open("/proc/net/snmp")]
names = {a[0]: dict(zip(a[1:], map(int, b[1:]))) for a, b in zip(lines[::2], lines[1::2])}
print(json.dumps({
    "ready": ready, "answer": get("/api/v1/predict", photo), "model": get("/api/v1/model"),
    "no_routes": names["Ip:"]["OutNoRoutes"], "datagrams": names["Udp:"]["OutDatagrams"],
    "routes": open("/proc/net/route").read().splitlines()[1:],
}))
"""


@pytest.fixture
def without_network() -> Iterator[list[str]]:
    """The prefix of a command that runs it in a network namespace with a loopback device and nothing else."""
    name = f"topthree-{uuid.uuid4().hex[:8]}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("ip, of the package iproute2, is not installed")
    if made.returncode:
        pytest.skip(f"network namespaces are not permitted here: {made.stderr.strip()}")
    inside = ["ip", "netns", "exec", name]
    try:
        if subprocess.run([*inside, "ip", "link", "set", "lo", "up"], capture_output=True).returncode:
            pytest.skip("the loopback device of a network namespace cannot be set up here")
        yield inside
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_a_bundle_serves_without_any_route(
    without_network: list[str], packaged_settings: Settings, real_photos: dict[str, bytes], tmp_path: Path
) -> None:
    bundle = write_bundle(ensure_prepared(packaged_settings), imagenet_labels(), tmp_path / "model.tar").path
    (tmp_path / "cat.jpg").write_bytes(real_photos["cat"])
    cache = tmp_path / "fresh"
    command = [*without_network, *GUNICORN]
    with serving(cache, tmp_path / "log", command=command, bundle=bundle, workers=2, fallback="none") as server:
        ask = [*without_network, sys.executable, "-c", ASK, server.url, str(tmp_path / "cat.jpg")]
        done = subprocess.run(ask, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr + server.log
        torch = [pid for pid in server.workers if "libtorch" in Path(f"/proc/{pid}/maps").read_text("utf-8")]
    found = json.loads(done.stdout)
    assert found["answer"]["predictions"][0]["class_id"] in range(281, 286)
    assert (found["ready"]["workers"], found["model"]["source"], torch) == (2, "bundle", [])
    # The kernel counts what finds no route, and each datagram of a look-up by name: nothing tried to leave.
    assert (found["routes"], found["no_routes"], found["datagrams"]) == ([], 0, 0)
    assert [path.name for path in cache.iterdir() if path.name != "bundles"] == []


def test_the_namespace_counts_attempts_to_leave(without_network: list[str]) -> None:
    code = (
        "import socket, contextlib\nwith contextlib.suppress(OSError): socket.create_connection(('192.0.2.1', 80))\n"
    )
    code += "print(open('/proc/net/snmp').read().split('Ip: ')[2].split()[11])"
    done = subprocess.run([*without_network, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0


def test_bundle_that_cannot_serve_stops_the_service_with_reason(tmp_path: Path) -> None:
    (tmp_path / "model.tar").write_text("no bundle")
    environment = os.environ | {"TOPTHREE_BUNDLE": str(tmp_path / "model.tar"), "TOPTHREE_PORT": str(free_port())}
    done = subprocess.run(GUNICORN, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert f"No model is ready: {tmp_path / 'model.tar'} is not a bundle of topthree." in done.stderr
