"""The log of the real server: one line a message, and no file of a client's is an error of ours."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import httpx
import pytest
from bad_photos import MAKERS, truncated
from pictures import tiled_tiff
from servers import GUNICORN, PATIENCE_SECONDS, ROOT, Server, serving

pytestmark = pytest.mark.live

COMMAND = (*GUNICORN, "--pythonpath", str(ROOT / "tests" / "support"), "chatty:create()")
WAYS = (
    ("predict", "image/jpeg"),
    ("predict", "application/json"),
    ("predict", "text/plain"),
    ("predict/batch", "application/zip"),
    ("predict/batch", "multipart/form-data; boundary=x"),
)


def chatty_tiff() -> bytes:
    """Write a TIFF whose tags are in falling order, about which libtiff says a line for each."""
    data = bytearray(tiled_tiff(64, 64))
    count = struct.unpack_from("<H", data, 8)[0]
    entries = [data[10 + 12 * index : 22 + 12 * index] for index in range(count)]
    data[10 : 10 + 12 * count] = b"".join(reversed(entries))
    return bytes(data)


def send_all(server: Server) -> int:
    """Send every bad file in several ways, and return how many requests that were."""
    photos = [make() for make in MAKERS.values()] + [truncated(5), chatty_tiff(), b"", b"\n[ERROR] forged\n"]
    for photo in photos:
        for path, content_type in WAYS:
            headers = {"Content-Type": content_type}
            url = f"{server.url}/api/v1/{path}"
            answer = httpx.post(url, content=photo, headers=headers, timeout=PATIENCE_SECONDS)
            assert answer.status_code < 500
    return len(photos) * len(WAYS)


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_file_of_a_client_is_an_error(tmp_path: Path, form: str) -> None:
    with serving(tmp_path, tmp_path / "log", command=COMMAND, log_format=form, access_log="on") as server:
        server.wait_until_accepting()
        before = len(server.log.splitlines())
        count = send_all(server)
        lines = server.log.splitlines()[before:]
    assert len(lines) >= count
    assert [line for line in lines if "ERROR" in line or "CRITICAL" in line] == []
    if form == "json":
        assert {json.loads(line)["level"] for line in lines} <= {"INFO", "WARNING"}
    else:
        assert [line for line in lines if not line.startswith("[2")] == []


def test_noise_of_libraries_is_json_too(tmp_path: Path) -> None:
    with serving(tmp_path, tmp_path / "log", command=COMMAND, log_format="json") as server:
        server.wait_until_accepting()
        assert httpx.get(f"{server.url}/healthz", timeout=PATIENCE_SECONDS).status_code == 200
        server.wait_for_log("noisy")
        records = [json.loads(line) for line in server.log.splitlines()]
    told = {record["logger"]: record["message"] for record in records}
    assert told["a.library"] == "first\nsecond"
    assert "RuntimeWarning: first\nsecond\n" in told["py.warnings"]
    assert told["app.telemetry.logs"] == "The thread 'noisy' ended with an exception."


def test_what_kubernetes_sets_is_ignored_with_a_hint(tmp_path: Path) -> None:
    links = {"service_host": "10.0.0.11", "port_80_tcp": "tcp://10.0.0.11:80"}
    with serving(tmp_path, tmp_path / "log", command=COMMAND, **links) as server:
        server.wait_until_accepting()
        assert "Ignored: TOPTHREE_PORT_80_TCP, TOPTHREE_SERVICE_HOST. Kubernetes sets these" in server.log
