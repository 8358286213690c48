"""The log of the real server: one line a message, and no file of a client's is an error of ours."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that logs JSON, started with the variables that Kubernetes sets for a service of its name."""
    folder = tmp_path_factory.mktemp("logged")
    links = {"service_host": "10.0.0.11", "port_80_tcp": "tcp://10.0.0.11:80"}
    options = {"log_format": "json", "access_log": "on"} | links
    with serving(folder, folder / "log", command=COMMAND, **options) as server:
        server.wait_until_accepting()
        yield server


def lines_of_bad_files(server: Server) -> list[str]:
    """Send every bad file, and return the lines that were logged of them."""
    before = len(server.log.splitlines())
    count = send_all(server)
    lines = server.log.splitlines()[before:]
    assert len(lines) >= count
    assert [line for line in lines if "ERROR" in line or "CRITICAL" in line] == []
    return lines


def test_noise_of_libraries_is_json_too(logged: Server) -> None:
    assert httpx.get(f"{logged.url}/healthz", timeout=PATIENCE_SECONDS).status_code == 200
    logged.wait_for_log("noisy")
    told = {(record["logger"], record["message"]) for record in map(json.loads, logged.log.splitlines())}
    assert ("a.library", "first\nsecond") in told
    assert [
        message for name, message in told if name == "py.warnings" and "RuntimeWarning: first\nsecond\n" in message
    ]
    assert ("app.telemetry.logs", "The thread 'noisy' ended with an exception.") in told


def test_what_kubernetes_sets_is_ignored_with_a_hint(logged: Server) -> None:
    assert "Ignored: TOPTHREE_PORT_80_TCP, TOPTHREE_SERVICE_HOST. Kubernetes sets these" in logged.log


def test_no_file_of_a_client_is_an_error_in_json(logged: Server) -> None:
    assert {json.loads(line)["level"] for line in lines_of_bad_files(logged)} <= {"INFO", "WARNING"}


def test_no_file_of_a_client_is_an_error_in_text(tmp_path: Path) -> None:
    with serving(tmp_path, tmp_path / "log", command=COMMAND, log_format="text", access_log="on") as server:
        server.wait_until_accepting()
        assert [line for line in lines_of_bad_files(server) if not line.startswith("[2")] == []
