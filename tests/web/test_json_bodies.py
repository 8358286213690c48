"""JSON bodies: one photo as base64, read in time in proportion to the body, with nothing else built of it."""

from __future__ import annotations

import base64
import os
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from app.errors import BadRequest
from app.web import json_bodies
from app.web.json_bodies import parse_photo

SIZE = 13_900_000
PHOTO = os.urandom(3000)
TEXT = base64.b64encode(PHOTO)


@pytest.mark.parametrize(
    "body",
    [
        b'{"image":"%s"}' % TEXT,
        b'\r\n { "image"\t: "%s" } \n' % TEXT,
        b'\xef\xbb\xbf{"image":"%s"}' % TEXT,
        b'{"image":"%s"}' % TEXT.replace(b"/", b"\\/"),
        b'{"\\u0069mage":"%s"}' % TEXT,
        b'{"image":"data:image/png;base64,%s"}' % TEXT,
        b'{"image":"data:image\\/png;base64,%s"}' % TEXT.replace(b"/", b"\\/"),
        b'{ "image" : "DATA:;charset=x;Base64,%s"}' % TEXT,
        b'{"image":"AAAA","image":"%s"}' % TEXT,
    ],
)
def test_photo_is_read_however_the_json_is_written(body: bytes) -> None:
    assert parse_photo(body) == PHOTO


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The body is empty, but declared as JSON"),
        (b'{"image":"%s"} x' % TEXT, "cannot be read as JSON"),
        (b'{"image":"%s' % TEXT, "cannot be read as JSON"),
        ('{"image":"AAAA"}'.encode("utf-16"), "cannot be read as JSON"),
        (b'{"image":"\xff"}', "not base64"),
        (b'{"\xff":"AAAA"}', "cannot be read as JSON"),
        (b'{"image":["AAAA"]}', "must be an object"),
        (b'{"image":null}', "must be an object"),
        (b'{"image":"AAAA","other":"%s"}' % TEXT, r"unknown member 'other'\. "),
        (b'{"image":"AAAA","%s":1}' % (b"a" * 60), "unknown member '%s'" % ("a" * 50)),
        (b'{"image":"AAAA===="}', "not base64"),
        (b'{"image":"data:image/png;base64,AA AA"}', "not base64"),
        (b'{"image":"data:image/png,AAAA;base64,"}', "no ';base64,'"),
    ],
)
def test_anything_but_one_photo_is_refused(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        parse_photo(body)


HOSTILE = {
    "arrays": b"[" + b"[]," * (SIZE // 3) + b"[]]",
    "deep arrays": b"[" * SIZE,
    "deep objects": b'{"image":' * (SIZE // 9),
    "arrays as the photo": b'{"image":[' + b"[]," * (SIZE // 3) + b"[]]}",
    "an unknown member of arrays": b'{"image":"","x":[' + b"[]," * (SIZE // 3) + b"[]]}",
    "many unknown members": b"{" + b'"x":0,' * (SIZE // 6) + b'"image":""}',
    "spaces": b" " * SIZE,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_body_takes_neither_memory_nor_long(name: str) -> None:
    body = HOSTILE[name]
    tracemalloc.start()
    begin = time.thread_time()
    with pytest.raises(BadRequest):
        parse_photo(body)
    seconds, peak = time.thread_time() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000  # a list of these arrays alone would have 37 MB
    assert seconds < 0.5


@pytest.mark.parametrize(
    ("body", "max_bytes"),
    [
        (b"{" + b'"image":"AAAA",' * (SIZE // 15) + b'"image":""}', 0),
        (b'{"image":"' + b"AAAA" * (SIZE // 4) + b'"}', SIZE * 3 // 4),
        (b'{"image":"' + b"\xc3\xa9" * (SIZE // 2) + b'"}', SIZE * 3 // 4),
        (b'{"image":"' + b"\\u0041" * (SIZE // 6) + b'"}', SIZE // 3),
    ],
    ids=["a photo given many times", "the largest photo", "text that is not base64", "escaped base64"],
)
def test_no_more_is_built_than_one_photo(body: bytes, max_bytes: int) -> None:
    tracemalloc.start()
    with suppress(BadRequest):
        parse_photo(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < max_bytes + 100_000


def test_bodies_are_decoded_one_at_a_time() -> None:
    body = b'{"image":"%s"}' % TEXT
    with ThreadPoolExecutor() as pool:
        with json_bodies._ONE_AT_A_TIME:
            other = pool.submit(parse_photo, body)
            with pytest.raises(TimeoutError):
                other.result(0.2)
        assert other.result(20) == PHOTO
