"""nginx as deploy/nginx/nginx.conf sets it up, run for real before the real service or one that takes notes."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from fakes import colour_png
from nginxes import EXPECTING, HEAD, NGINX, Recorder, is_taken, running, running_nginx
from servers import CLIENTS, PATIENCE_SECONDS, Server, free_port, serving

from app.settings import MEBI

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx, for example Debian's package nginx"),
]
Proxy = Callable[[int], str]


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """Start nginx with our file before the service at a port, and return its address; it ends with the test."""
    with ExitStack() as stack:
        yield lambda upstream: stack.enter_context(running_nginx(tmp_path, upstream)).url


@pytest.fixture
def recorder() -> Recorder:
    """What the service behind nginx has seen."""
    return Recorder()


@pytest.fixture
def recording(recorder: Recorder, proxy: Proxy) -> Iterator[str]:
    """The address of nginx before the service that takes notes."""
    with running(recorder) as port:
        yield proxy(port)


@pytest.fixture(scope="module")
def service(packaged_settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real service, which trusts one proxy."""
    log = tmp_path_factory.mktemp("proxied") / "log"
    with serving(packaged_settings.cache, log, trusted_proxies=1) as server:
        server.wait_until_ready()
        yield server


def test_a_photo_gets_the_answer_it_gets_without_nginx(service: Server, proxy: Proxy, real_photos) -> None:
    files = {"file": real_photos["coffee"]}
    answer = httpx.post(f"{proxy(service.port)}/api/v1/predict", files=files, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200
    assert answer.content == httpx.post(f"{service.url}/api/v1/predict", files=files, timeout=PATIENCE_SECONDS).content
    assert "content-encoding" not in answer.headers


def test_a_batch_of_many_mebibytes_gets_through(service: Server, proxy: Proxy) -> None:
    photo = colour_png(1)
    padded = photo + bytes(9 * MEBI - len(photo))
    files = [("file", padded)] * 7
    answer = httpx.post(f"{proxy(service.port)}/api/v1/predict/batch", files=files, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 7


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_too_large_is_a_problem_and_no_reset(recorder: Recorder, recording: str, client) -> None:
    url = f"{recording}/api/v1/predict/batch"
    status, text = client(url, bytes(70 * MEBI), "application/octet-stream", chunked=False)
    assert (status, json.loads(text)["type"]) == (413, "/problems/too-large")
    assert recorder.seen == []


def test_nginx_passes_on_the_refusal_of_a_too_large_photo(service: Server, proxy: Proxy) -> None:
    answer = httpx.post(f"{proxy(service.port)}/api/v1/predict", files={"file": bytes(11 * MEBI)}, timeout=60)
    assert answer.status_code == 413
    assert "10 MiB" in answer.json()["detail"]


def test_slow_body_waits_in_nginx_and_not_in_the_service(recorder: Recorder, recording: str) -> None:
    address = httpx.URL(recording)
    with socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS) as slow:
        slow.sendall(HEAD % 100 + bytes(50))
        assert httpx.get(f"{recording}/other").status_code == 200
        assert [request["PATH_INFO"] for request in recorder.seen] == ["/other"]
        slow.sendall(bytes(50))
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
    assert recorder.seen[-1]["PATH_INFO"] == "/api/v1/predict"


def test_lines_arrive_one_by_one(recorder: Recorder, recording: str) -> None:
    headers = {"Accept": "application/x-ndjson"}
    recorder.lines.put(b'{"first":1}\n')
    with httpx.stream("POST", f"{recording}/api/v1/predict/batch", headers=headers, content=b"x") as answer:
        lines = answer.iter_lines()
        assert next(lines) == '{"first":1}'
        recorder.lines.put(b'{"second":2}\n')  # not given before the first has arrived
        assert next(lines) == '{"second":2}'
        recorder.lines.put(b"")


def test_what_a_client_says_of_itself_is_replaced(recorder: Recorder, recording: str) -> None:
    forged = dict.fromkeys(("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix"), "evil")
    httpx.get(f"{recording}/", headers=forged | {"Forwarded": "for=evil", "X-Forwarded-Port": "1"})
    seen = {name: value for name, value in recorder.seen[0].items() if "FORWARDED" in name}
    assert seen == {
        "HTTP_X_FORWARDED_FOR": "127.0.0.1",
        "HTTP_X_FORWARDED_PROTO": "http",
        "HTTP_X_FORWARDED_HOST": httpx.URL(recording).netloc.decode(),
    }


@pytest.mark.parametrize(("sent", "kept"), [("a-good.one_1", True), ("bad one!", False), ("x" * 129, False)])
def test_a_request_id_is_handed_on_or_made(recorder: Recorder, recording: str, sent: str, kept: bool) -> None:
    httpx.get(f"{recording}/", headers={"X-Request-ID": sent})
    received = recorder.seen[0]["HTTP_X_REQUEST_ID"]
    assert (received == sent) is kept
    assert kept or len(received) == 32


@pytest.mark.parametrize("path", ["/metrics", "/readyz"])
def test_what_is_not_public_is_not_found(recorder: Recorder, recording: str, path: str) -> None:
    assert httpx.get(recording + path).status_code == 404
    assert recorder.seen == []


def test_only_static_files_are_compressed(recording: str) -> None:
    encodings = [
        httpx.get(recording + path).headers.get("content-encoding") for path in ("/static/a.css", "/api/v1/x")
    ]
    assert encodings == ["gzip", None]


def test_too_many_connections_from_one_address_are_refused(recorder: Recorder, recording: str) -> None:
    address = httpx.URL(recording)
    with ExitStack() as stack:
        for _ in range(32):
            slow = stack.enter_context(socket.create_connection((address.host, address.port)))
            slow.sendall(EXPECTING % 100)
            assert is_taken(slow)
        answer = httpx.get(f"{recording}/api/v1/model")
    assert answer.json()["status"] == 429
    assert answer.headers["Retry-After"] == "1"


def test_unreachable_service_is_a_problem_with_retry_after(proxy: Proxy) -> None:
    answer = httpx.get(f"{proxy(free_port())}/api/v1/model", headers={"X-Request-ID": "mine"})
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.headers["Retry-After"], answer.headers["X-Request-ID"]) == ("5", "mine")
    assert answer.json()["status"] == 503


def test_no_room_for_a_body_is_a_problem_too(proxy: Proxy, tmp_path: Path) -> None:
    url = proxy(free_port())
    shutil.rmtree(tmp_path / "body")
    answer = httpx.post(f"{url}/api/v1/predict", content=bytes(MEBI))
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/overloaded")


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl, to make a certificate")
def test_the_example_adds_tls(recorder: Recorder, proxy: Proxy, tmp_path: Path) -> None:
    folder, port = tmp_path / "tls", free_port()
    folder.mkdir()
    example = (NGINX / "tls" / "listen.conf.example").read_text(encoding="utf-8")
    here = example.replace("8443", f"127.0.0.1:{port}").replace("/etc/nginx/tls", str(folder))
    (folder / "listen.conf").write_text(here)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    subprocess.run(command, check=True, capture_output=True)
    with running(recorder) as upstream:
        proxy(upstream)
        trust = ssl.create_default_context(cafile=folder / "fullchain.pem")
        with closing(http.client.HTTPSConnection("127.0.0.1", port, context=trust)) as connection:
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
    assert recorder.seen[0]["HTTP_X_FORWARDED_PROTO"] == "https"
