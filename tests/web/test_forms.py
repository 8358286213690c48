"""Forms: parts in their order, and limits on what a form may ask of the parser."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from app.errors import BadRequest, TooLarge
from app.web.forms import MAX_HEADER_BYTES, MAX_PARTS, Part, boundary_of, parse_form

FILE = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\n'


def written(*parts: bytes) -> bytes:
    """Write a form of parts, each a header and, after an empty line, its bytes."""
    return b"".join(b"--x\r\n%s\r\n" % part for part in parts) + b"--x--\r\n"


def test_parts_come_in_order_with_what_they_hold() -> None:
    body = written(b'Content-Disposition: form-data; name="key"\r\n\r\ntt_1', FILE + b"\r\n\r\n--\r\n", FILE + b"\r\n")
    assert parse_form(body, b"x") == [
        Part("key", None, b"tt_1"),
        Part("file", "a.png", b"\r\n--\r\n"),
        Part("file", "a.png", b""),
    ]


@pytest.mark.parametrize(
    ("parameter", "filename"),
    [
        ('filename="照片.png"'.encode(), "照片.png"),
        ('filename="照片.png"'.encode("gbk"), "\ufffd\ufffd\u01ac.png"),
        (b"filename*=UTF-8''%E7%85%A7.png", "照.png"),
        (b'filename=""', ""),
        (b'filename="%s.png"' % (b"x" * 5000), "x" * 5000 + ".png"),
        (b"other=*", None),
    ],
)
def test_name_of_a_file_is_read_in_each_way(parameter: bytes, filename: str | None) -> None:
    body = written(b"Content-Disposition: form-data; name=file; %s\r\n\r\nphoto" % parameter)
    assert parse_form(body, b"x") == [Part("file", filename, b"photo")]


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; boundary="a b"', b"a b"),
        ('multipart/form-data; Boundary = "\xc3\xa9"', "é".encode()),
    ],
)
def test_boundary_is_read_from_the_content_type(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=", ""])
def test_content_type_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(BadRequest, match="no boundary"):
        boundary_of(content_type)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "is empty"),
        (written(FILE + b"\r\nphoto")[:-5], "ends early"),
        (written(FILE + b"\r\nphoto")[:-20], "ends early"),
        (written(FILE + b"\r\nphoto")[:20], "ends early"),
        (b"photo without any boundary", "not a well-formed form"),
        (written(b"Content-Disposition: attachment; name=file\r\n\r\n"), "not a well-formed form"),
        (written(b"Content-Disposition: form-data; filename=a\r\n\r\n"), "not a well-formed form"),
        (written(FILE + b"Content-Length: 3\r\n\r\nphoto"), "not a well-formed form"),
        (
            written(FILE + b"X-" + b"a" * 9000 + b": b\r\n\r\nphoto"),
            "too many header lines, or a header that is too large",
        ),
        (written(FILE + b"X: y\r\n" * 20 + b"\r\nphoto"), "too many header lines, or a header that is too large"),
    ],
)
def test_malformed_form_is_refused(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        parse_form(body, b"x")


def test_number_of_parts_is_limited() -> None:
    part = FILE + b"\r\n"
    assert len(parse_form(written(*[part] * MAX_PARTS), b"x")) == MAX_PARTS
    with pytest.raises(TooLarge, match="more than 1,024 parts"):
        parse_form(written(*[part] * (MAX_PARTS + 1)), b"x")


def test_headers_of_all_parts_are_limited_together() -> None:
    part = FILE + b"X: " + b"a" * 8000 + b"\r\n\r\n"
    fits = MAX_HEADER_BYTES // len(part)
    assert len(parse_form(written(*[part] * fits), b"x")) == fits
    with pytest.raises(BadRequest, match="a header that is too large"):
        parse_form(written(*[part] * (fits + 2)), b"x")


@pytest.mark.parametrize(
    ("line", "count"),
    [(b"X: y\r\n" + b" z\r\n" * 2000, 1000), (FILE[:-2] + b';a="' * 1900 + b"\r\n", 1000), (b"\r\n--y" * 2000, 1000)],
    ids=["continued header lines", "parameters that never end", "almost a boundary"],
)
def test_hostile_form_takes_less_than_a_second(line: bytes, count: int) -> None:
    body = written(*[FILE + line + b"\r\n"] * count)
    begin = time.thread_time()
    with suppress(BadRequest):
        parse_form(body, b"x")
    assert time.thread_time() - begin < 1
