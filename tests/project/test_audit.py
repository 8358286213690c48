"""`make audit`: every pin is asked for, advisories are listed, and a service that does not answer is one sentence."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "audit.py"
LOCK = (ROOT / "requirements-serve.txt").read_text(encoding="utf-8")
HASH = "    --hash=sha256:" + "ab" * 32 + "\n"
SMALL_LOCK = f"click==8.5.1 \\\n{HASH}numpy==2.4.6 ; python_full_version < '3.12' \\\n{HASH}" + (
    f"numpy==2.5.5 ; python_full_version >= '3.12' \\\n{HASH}    # via topthree\n"
)
ADVISORY = {
    "id": "TEST-1",
    "aliases": ["TEST-ALIAS"],
    "summary": "An invented one.",
    "affected": [
        {
            "package": {"name": "numpy", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.5.0"}]}],
        }
    ],
}


class Service(http.server.ThreadingHTTPServer):
    """An advisory service that knows one flaw of numpy 2.4.6; it notes what it is asked, and answers with `status`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the queries of the Service."""

    server: Service

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pin = f"{query['package']['name']}=={query['version']}"
        self.server.asked.append(pin)
        body = json.dumps({"vulns": [ADVISORY]} if pin == "numpy==2.4.6" else {}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the output clean."""


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield service
        service.shutdown()
        thread.join()


def audit(port: int, *options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, "--url", f"http://127.0.0.1:{port}/v1/query", *map(str, options)]
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def small_lock(tmp_path: Path) -> Path:
    path = tmp_path / "small.txt"
    path.write_text(SMALL_LOCK)
    return path


def test_an_advisory_is_one_line_and_status_1(service: Service, small_lock: Path) -> None:
    done = audit(service.server_port, "--lock", small_lock)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "numpy 2.4.6: TEST-1 TEST-ALIAS, fixed in 2.5.0",
        "Pins compared with the advisories: 3. Advisories known: 1.",
    ]


def test_every_pin_is_asked_for_whatever_its_python(service: Service) -> None:
    audit(service.server_port)
    pins = {line.split(" ")[0] for line in LOCK.splitlines() if "==" in line and line[0].isalnum()}
    assert set(service.asked) == pins
    assert len([pin for pin in pins if pin.startswith("numpy==")]) > 1


def test_no_advisory_is_status_0(service: Service, small_lock: Path) -> None:
    small_lock.write_text(f"click==8.5.1 \\\n{HASH}")
    done = audit(service.server_port, "--lock", small_lock)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Pins compared with the advisories: 1. Advisories known: 0.\n"


def test_a_service_that_fails_is_one_sentence_and_status_2(service: Service, small_lock: Path) -> None:
    service.status = 503
    done = audit(service.server_port, "--lock", small_lock)
    assert (done.returncode, done.stdout) == (2, "")
    assert "gave no usable answer (pip_audit._service.interface.ServiceError)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_service_is_one_sentence_and_status_2(service: Service, small_lock: Path) -> None:
    service.server_close()  # nothing listens at the port from here on
    done = audit(service.server_port, "--lock", small_lock)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"small.txt was not compared with the advisories: http://127.0.0.1:{service.server_port}/v1/query gave no "
        "usable answer (requests.exceptions.ConnectionError).\n"
    )


def test_a_file_without_pins_does_not_pass_for_clean(service: Service, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("click\n")
    done = audit(service.server_port, "--lock", tmp_path / "empty.txt")
    assert done.returncode == 2
    assert done.stderr.endswith("empty.txt holds no pins with hashes\n")
