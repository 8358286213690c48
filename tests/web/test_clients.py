"""Requests as real clients write them, byte by byte, over real sockets: each is answered, or refused truthfully."""

from __future__ import annotations

import base64
import gzip
import json
import textwrap
from collections.abc import Callable, Iterator

import pytest
from bad_photos import noise
from fakes import colour_png, encode, make_classifier
from PIL import Image
from shapes import assert_problem
from workers import Running, ask, running

from app import create_app
from app.errors import WeightsError
from app.model import Model
from app.settings import Settings

COCK = colour_png(7, 251, 80)
JPEG = encode(Image.new("RGB", (30, 20), (7, 251, 80)), "JPEG")
CAMERA_JPEG = JPEG[:2] + b"\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08" + bytes(18) + JPEG[2:]
LARGE_JPEG = encode(noise(), "JPEG", quality=90)
BASE64 = base64.b64encode(COCK)
WRAPPED = base64.encodebytes(COCK).replace(b"\n", b"\r\n")
ITSELF = b'Content-Disposition: form-data; name="file"'
NAMED = ITSELF + b'; filename="cock.png"'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run one worker for all requests here, since none leaves anything behind."""
    settings = Settings.from_environment({"TOPTHREE_CACHE": str(tmp_path_factory.mktemp("cache")), "HOME": "/"})
    with running(settings, {}) as worker:
        yield worker


def form(header: bytes, photo: bytes = COCK, *, before: bytes = b"", end: bytes = b"\r\n--X--\r\n") -> bytes:
    """Write a form of one part after other bytes."""
    return before + b"--X\r\n" + header + b"\r\n\r\n" + photo + end


FORMS = {
    "curl -F": form(NAMED + b"\r\nContent-Type: image/png"),
    "curl -F with encoder=base64": form(NAMED + b"\r\nContent-Transfer-Encoding: base64", WRAPPED),
    "curl -F with encoder=binary": form(NAMED + b"\r\nContent-Transfer-Encoding: binary"),
    "requests, of a name without an ending": form(ITSELF + b'; filename="cock"'),
    "a MIME library for mail": form(
        b"MIME-Version: 1.0\r\n" + NAMED + b"\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: Base64",
        base64.encodebytes(COCK),
        before=b"This is a multi-part message in MIME format.\r\n\r\n",
    ),
    "browsers, of a pasted picture": form(ITSELF + b'; filename="blob"\r\nContent-Type: application/octet-stream'),
    "browsers, of a name with quotes": form(ITSELF + b'; filename="a %22b%22.png"\r\nContent-Type: image/png'),
    "Postman, of a name beyond ASCII": form(
        ITSELF + '; filename="雄鸡.png"'.encode() + b"\r\nContent-Type: image/png"
    ),
    ".NET's HttpClient": form(
        b"Content-Type: image/png\r\n"
        b"Content-Disposition: form-data; name=file; filename=cock.png; filename*=utf-8''cock.png"
    ),
    "PowerShell 7's -Form": form(NAMED + b"; filename*=utf-8''cock.png\r\nContent-Type: application/octet-stream"),
    "node's form-data, of a Buffer": form(ITSELF + b"\r\nContent-Type: application/octet-stream"),
    "a picture's type without a name": form(ITSELF + b"\r\nContent-Type: image/png"),
    "PHP's curl, of a string": form(ITSELF),
    "Apache's HttpClient for Java": form(
        NAMED + b"\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary"
    ),
    "OkHttp": form(NAMED + b"\r\nContent-Type: image/png\r\nContent-Length: %d" % len(COCK)),
    "Dart's http": form(
        b'content-type: application/octet-stream\r\ncontent-disposition: form-data; name="file"; filename="cock.png"'
    ),
    "Swift by hand, without blanks": form(b'Content-Disposition:form-data;name="file";filename="cock.png"'),
    "Ruby on Rails, with a hidden field": form(NAMED, before=b"--X\r\n" + ITSELF + b"\r\n\r\n\r\n"),
    "a line break before the first boundary": form(NAMED, before=b"\r\n"),
    "no line break after the last boundary": form(NAMED, end=b"\r\n--X--"),
    "a line of its own after the last boundary": form(NAMED, end=b"\r\n--X--\r\n\r\n"),
}


def post(body: bytes, content_type: str, path: str = "/api/v1/predict", headers: str = "") -> bytes:
    """Write a request."""
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("boundary", ["X", '"X"', "X; charset=utf-8"])
@pytest.mark.parametrize("client", FORMS)
def test_form_of_each_client_is_answered(server: Running, client: str, boundary: str) -> None:
    content_type = f"multipart/form-data; boundary={boundary}"
    status, _, body = ask(server, post(FORMS[client], content_type))
    assert (status, json.loads(body)["predictions"][0]["label"]) == (200, "cock")
    status, _, body = ask(server, post(FORMS[client], content_type, "/api/v1/predict/batch"))
    results = json.loads(body)["results"]
    assert (status, [result["predictions"][0]["label"] for result in results]) == (200, ["cock"])
    assert b"cock" in ask(server, post(FORMS[client], content_type, "/"))[2]


@pytest.mark.parametrize(
    "content_type",
    [
        "image/png",
        "image/jpg",
        "IMAGE/PNG; name=cock.png",
        "application/octet-stream",
        "binary/octet-stream",
        "image/x-unknown",
    ],
)
def test_body_that_is_the_photo_is_answered(server: Running, content_type: str) -> None:
    assert ask(server, post(COCK, content_type, headers="Content-Encoding: identity\r\n"))[0] == 200


JSONS = {
    "base64": b'{"image":"%s"}' % BASE64,
    "lines of 76 as a shell writes them": b'{"image":"%s"}' % base64.encodebytes(COCK),
    "lines of 76 with CRLF": b'{"image":"%s"}' % WRAPPED,
    "lines of 76 as Python's json writes them": json.dumps({"image": base64.encodebytes(COCK).decode()}).encode(),
    "lines of 76 with CRLF, escaped": json.dumps({"image": WRAPPED.decode()}).encode(),
    "lines of 64 in PEM's form, indented": b'{\n  "image": "%s"\n}\n'
    % "\n".join(textwrap.wrap(BASE64.decode(), 64)).encode(),
    "a data: URL": b'{"image":"data:image/png;base64,%s"}' % BASE64,
    "a data: URL with line breaks": b'{"image":"data:image/png;base64,%s"}' % base64.encodebytes(COCK),
    "slashes escaped, as by PHP": b'{"image":"%s"}' % BASE64.replace(b"/", b"\\/"),
}


@pytest.mark.parametrize("name", JSONS)
@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_json_of_each_client_is_answered(server: Running, name: str, content_type: str) -> None:
    status, _, body = ask(server, post(JSONS[name], content_type))
    assert (status, json.loads(body)["predictions"][0]["label"]) == (200, "cock")


FORM = "multipart/form-data; boundary=X"
FIELD = b"The part 'file' is "
# What is sent, and how the sentence about it begins.
REFUSED: dict[str, tuple[bytes, str, int, bytes]] = {
    "form without its last boundary": (form(NAMED, end=b"\r\n"), FORM, 400, b"The form ends early"),
    "form cut within the photo": (form(NAMED, end=b"")[:-9], FORM, 400, b"The form ends early"),
    "form of another boundary": (
        form(NAMED).replace(b"--X", b"--Y"),
        FORM,
        400,
        b"The body is not a well-formed form: it does",
    ),
    "form whose lines end with LF": (
        form(NAMED).replace(b"\r\n", b"\n"),
        FORM,
        400,
        b"The body is not a well-formed form: its lines end with LF",
    ),
    "empty form": (b"", FORM, 400, b"The body is empty"),
    "form without a boundary": (form(NAMED), "multipart/form-data", 400, b"The Content-Type has no boundary"),
    "base64 that is none": (
        form(NAMED + b"\r\nContent-Transfer-Encoding: base64"),
        FORM,
        400,
        b"A part has the Content-Transfer-Encoding 'base64'",
    ),
    "quoted-printable": (
        form(NAMED + b"\r\nContent-Transfer-Encoding: quoted-printable"),
        FORM,
        415,
        b"A part has the Content-Transfer-Encoding 'quoted-printable'",
    ),
    "address in a field": (
        form(ITSELF, b"https://a.example/b.jpg"),
        FORM,
        400,
        FIELD + b"text, not a file. This is the address",
    ),
    "file name in a field": (form(ITSELF, b"cock.png"), FORM, 400, FIELD + b"text, not a file. This is the name"),
    "photo as text in a field": (
        form(ITSELF, COCK.decode("utf-8", "replace").encode()),
        FORM,
        400,
        FIELD + b"text, not a file. A program has read this file as text",
    ),
    "base64 in a field": (form(ITSELF, BASE64), FORM, 400, FIELD + b"text, not a file. This is a photo as base64"),
    "note in a field": (form(ITSELF, b"Hello!"), FORM, 400, FIELD + b"text, not a file: it has no file name"),
    "file of another name": (
        form(NAMED.replace(b'"file"', b'"image"')),
        FORM,
        400,
        b"The form has a file named 'image'",
    ),
    "form of no parts": (b"--X--\r\n", FORM, 400, b"The form has no file named 'file'"),
    "address as JSON": (
        b'{"image":"https://a.example/b.jpg"}',
        "application/json",
        400,
        b"The member 'image' is an address",
    ),
    "address as JSON of PHP": (
        b'{"image":"http:\\/\\/a.example\\/b.jpg"}',
        "application/json",
        400,
        b"The member 'image' is an address",
    ),
    "address as another member": (
        b'{"image_url":"https://a.example"}',
        "application/json",
        400,
        b"The JSON has an unknown member 'image_url'. Addresses are not fetched",
    ),
    "parameter as a member": (
        b'{"image":"","top":5}',
        "application/json",
        400,
        b"The JSON has an unknown member 'top'. Parameters go into the query",
    ),
    "photo as another member": (
        b'{"photo":"%s"}' % BASE64,
        "application/json",
        400,
        b"The JSON has an unknown member 'photo'. The photo is the member",
    ),
    "JSON in UTF-16": (
        '{"image":""}'.encode("utf-16"),
        "application/json",
        400,
        b"The body is declared as JSON, but cannot be read as JSON: it is UTF-16",
    ),
    "base64 of a web page's form": (
        b'{"image":"%s"}' % BASE64.replace(b"A", b" ", 1),
        "application/json",
        400,
        b"The member 'image' is not base64",
    ),
    "base64 as the body": (BASE64, "image/png", 415, b"This is a photo as base64"),
    "base64 in lines as the body": (WRAPPED, "application/octet-stream", 415, b"This is a photo as base64"),
    "base64 twice": (
        b'{"image":"%s"}' % base64.b64encode(BASE64),
        "application/json",
        415,
        b"This is a photo as base64",
    ),
    "data: URL as the body": (b"data:image/png;base64," + BASE64, "image/png", 415, b"This is a data: URL"),
    "data: URL as a file": (form(NAMED, b"data:image/png;base64," + BASE64), FORM, 415, b"This is a data: URL"),
    "JSON as the body": (JSONS["base64"], "application/octet-stream", 415, b"This is JSON"),
    "address as the body": (b"https://a.example/b.jpg\n", "image/jpeg", 415, b"This is the address of a photo"),
    "curl --data-binary without @": (b"photos/cock.png", "image/png", 415, b"This is the name of a file"),
    "ZIP as a photo": (b"PK\x03\x04" + bytes(30), "image/png", 415, b"This looks like a ZIP archive"),
    "gzip as a photo": (gzip.compress(COCK), "image/png", 415, b"This is gzip data"),
    "photo read as UTF-8": (
        COCK.decode("utf-8", "replace").encode(),
        "image/png",
        415,
        b"A program has read this file as text",
    ),
    "photo read as Latin-1": (
        COCK.decode("latin-1").encode(),
        "image/png",
        415,
        b"A program has read this file as text",
    ),
    "PNG by curl -d": (COCK.translate(None, b"\r\n\0"), "image/png", 415, b"Line ends or zero bytes"),
    "PNG by FTP as text": (COCK.replace(b"\r\n", b"\n"), "image/png", 415, b"Line ends or zero bytes"),
    "JPEG by curl -d": (JPEG.translate(None, b"\r\n\0"), "image/jpeg", 415, b"Line ends or zero bytes"),
    "JPEG of a camera by curl -d": (
        CAMERA_JPEG.translate(None, b"\r\n\0"),
        "image/jpeg",
        415,
        b"Line ends or zero bytes",
    ),
    "wget --post-file": (
        COCK,
        "application/x-www-form-urlencoded",
        415,
        b"The body is declared as a form of text fields",
    ),
    "ZIP to predict": (b"PK\x03\x04" + bytes(30), "application/zip", 415, b"An archive is a batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_usual_mistake_is_named(server: Running, name: str) -> None:
    sent, content_type, status, sentence = REFUSED[name]
    answered, headers, body = ask(server, post(sent, content_type))
    assert (answered, headers["content-type"]) == (status, "application/problem+json")
    assert json.loads(body)["detail"].encode().startswith(sentence)


@pytest.mark.parametrize(
    ("photo", "is_named"),
    [
        (LARGE_JPEG.translate(None, b"\r\n"), True),
        (LARGE_JPEG[: len(LARGE_JPEG) // 2], False),
        (LARGE_JPEG.translate(None, b"\r\n")[:2000], False),
    ],
    ids=["without line ends", "cut short", "too short to tell"],
)
def test_photo_without_line_ends_is_said_to_be_one(server: Running, photo: bytes, is_named: bool) -> None:
    status, _, body = ask(server, post(photo, "image/jpeg"))
    assert status == 422
    assert json.loads(body)["detail"].endswith("use --data-binary.") == is_named


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/api/v1/predict", "image/png"),
        ("/api/v1/predict", "application/json"),
        ("/api/v1/predict", FORM),
        ("/api/v1/embed", "image/png"),
        ("/api/v1/heatmap", FORM),
        ("/api/v1/predict/batch", "application/zip"),
        ("/api/v1/predict/batch", FORM),
        ("/", FORM),
    ],
)
@pytest.mark.parametrize("encoding", ["gzip", "BR", "aws-chunked", "gzip, identity"])
def test_compressed_body_is_refused_by_name(server: Running, path: str, content_type: str, encoding: str) -> None:
    sent = post(gzip.compress(COCK), content_type, path, f"Content-Encoding: {encoding}\r\n")
    status, headers, body = ask(server, sent)
    assert (status, headers["accept-encoding"]) == (415, "identity")
    assert encoding.lower() in body.decode()


def test_text_in_a_batch_carries_its_problem(server: Running) -> None:
    text = b"--X\r\n" + ITSELF + b"\r\n\r\nhttps://a.example/b.jpg\r\n"
    encoded = b"--X\r\n" + NAMED + b"\r\nContent-Transfer-Encoding: base64\r\n\r\nno base64!\r\n"
    body = form(NAMED, before=text + encoded)
    status, _, answer = ask(server, post(body, FORM, "/api/v1/predict/batch"))
    results = json.loads(answer)["results"]
    assert status == 200
    assert [result.get("status", 200) for result in results] == [400, 400, 200]
    assert "Addresses are not fetched" in results[0]["detail"]


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_batch_without_a_model_is_one_problem(make_settings: Callable[..., Settings], accept: str) -> None:
    def fail() -> Model:
        raise WeightsError("The weights are missing.")

    client = create_app(make_settings(), make_classifier(fail)).test_client()
    answer = client.post("/api/v1/predict/batch", data=form(NAMED), content_type=FORM, headers={"Accept": accept})
    assert_problem(answer, 503, "model-unavailable")


def test_lines_of_a_batch_name_each_mistake(server: Running) -> None:
    address = b"--X\r\n" + NAMED + b"\r\n\r\nhttps://a.example/b.jpg\r\n"
    sent = post(
        form(NAMED, before=address),
        FORM,
        "/api/v1/predict/batch",
        "Accept: application/x-ndjson\r\nConnection: close\r\n",
    )
    with server.connect() as connection:
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    lines = [json.loads(line) for line in received.splitlines() if line.startswith(b"{")]
    assert sorted((line.get("index", 2), line.get("status")) for line in lines) == [(0, 415), (1, None), (2, None)]
    assert b"This is the address of a photo" in received


@pytest.mark.parametrize("query", ["url=https://a.example/b.jpg", "image_url=http%3A%2F%2Fa.example%2Fb.jpg"])
def test_address_as_a_parameter_is_not_fetched(server: Running, query: str) -> None:
    status, _, body = ask(server, post(COCK, "image/png", f"/api/v1/predict?{query}"))
    assert status == 400
    assert json.loads(body)["detail"].endswith("Addresses are not fetched: send the photo itself.")


def test_damaged_photo_that_was_read_as_text_is_said_to_be_so(server: Running) -> None:
    photo = encode(noise(), "GIF").decode("utf-8", "replace").encode()
    status, _, body = ask(server, post(photo, "image/gif"))
    assert status == 422
    assert json.loads(body)["detail"].endswith("as if a program had read it as text. Read and send it as bytes.")
