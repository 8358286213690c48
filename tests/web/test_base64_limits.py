"""The limit of a photo is its own size, in whatever way base64 carries it; over real sockets."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from fakes import encode
from PIL import Image
from workers import Running, ask, running

from app.parsers import base64_length
from app.settings import Settings

MAX_BYTES = 10 * 1024 * 1024
JPEG = encode(Image.new("RGB", (30, 20), (7, 251, 80)), "JPEG")
PART = (
    b'--X\r\nContent-Disposition: form-data; name="file"; filename="cock.jpg"\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\n%s\r\n--X--\r\n"
)
FORM = "multipart/form-data; boundary=X"
# Characters in a line, and its end.
LINES = {
    "one line": (0, b""),
    "lines of Ruby's pack": (60, b"\n"),
    "lines of PEM": (64, b"\r\n"),
    "lines of MIME": (76, b"\r\n"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run one worker for all requests here, since none leaves anything behind."""
    settings = Settings.from_environment({"TOPTHREE_CACHE": str(tmp_path_factory.mktemp("cache")), "HOME": "/"})
    with running(settings, {}) as worker:
        yield worker


def photo(size: int) -> bytes:
    """Make a JPEG of this size, with zeros after its end, as some cameras leave them."""
    return JPEG + bytes(size - len(JPEG))


def base64_of(data: bytes, characters: int, end: bytes) -> bytes:
    """Write base64 in lines of so many characters, or in one."""
    text = base64.b64encode(data)
    if not characters:
        return text
    return b"".join(text[start : start + characters] + end for start in range(0, len(text), characters))


def answer(server: Running, path: str, content_type: str, body: bytes) -> tuple[int, dict[str, object]]:
    """Send a request and read its answer."""
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    status, _, text = ask(server, head.encode() + body)
    return status, json.loads(text)


@pytest.mark.parametrize("lines", LINES)
@pytest.mark.parametrize(("excess", "expected"), [(0, 200), (1, 413)])
def test_limit_is_for_the_photo_in_a_form(server: Running, lines: str, excess: int, expected: int) -> None:
    body = PART % base64_of(photo(MAX_BYTES + excess), *LINES[lines])
    status, document = answer(server, "/api/v1/predict", FORM, body)
    assert status == expected, document
    if expected == 413:
        assert document["detail"] == "The limit is 10,485,760 bytes (10 MiB). Send a smaller copy."


@pytest.mark.parametrize("lines", [*LINES.values(), (64, rb"\r\n")], ids=[*LINES, "lines of PEM, escaped"])
@pytest.mark.parametrize(("excess", "expected"), [(0, 200), (1, 413)])
def test_limit_is_for_the_photo_in_json(server: Running, lines: tuple[int, bytes], excess: int, expected: int) -> None:
    body = b'{"image":"%s"}' % base64_of(photo(MAX_BYTES + excess), *lines)
    assert answer(server, "/api/v1/predict", "application/json", body)[0] == expected


def test_limit_is_for_each_photo_of_a_batch(server: Running) -> None:
    body = PART % base64_of(photo(MAX_BYTES), *LINES["lines of MIME"])
    status, document = answer(server, "/api/v1/predict/batch", FORM, body)
    assert (status, [result.get("status", 200) for result in document["results"]]) == (200, [200])


def test_bytes_as_they_are_have_no_room_for_base64(server: Running) -> None:
    status, document = answer(server, "/api/v1/predict", "image/jpeg", photo(MAX_BYTES + 1))
    assert (status, document["type"].rpartition("/")[2]) == (413, "too-large")
    form = PART.replace(b"base64", b"binary") % photo(MAX_BYTES + 1)
    assert answer(server, "/api/v1/predict", FORM, form)[0] == 413


@pytest.mark.parametrize("size", [0, 1, 2, 3, 47, 48, 49, 1_000_003])
def test_length_of_base64_is_that_of_its_longest_form(size: int) -> None:
    assert base64_length(size) == len(base64_of(bytes(size), 64, rb"\r\n"))
