"""ZIP archives: their files in order, and no harm from what they claim."""

from __future__ import annotations

import io
import struct
import zipfile

import flask
import pytest
from fakes import colour_png
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import assert_problem, assert_problem_document

from app.errors import NoPhoto, Problem, TooLarge, UnreadableArchive
from app.photos.archives import Entry, read_archive
from app.web.service import service_of

COCK = colour_png(7, 251, 80)
GROUSE = colour_png(80, 7, 251)
MEBI = 1024 * 1024


def pack(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Pack files in this order."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


def read(data: bytes, **limits: int) -> list[Entry]:
    """Read an archive with small limits."""
    return read_archive(
        data, admit=lambda size: None, **{"most_entries": 4, "most_bytes": 4 * MEBI, "most_entry_bytes": MEBI} | limits
    )


def test_files_come_in_the_archives_order_with_their_folders() -> None:
    files = [("b.png", b"2"), ("holiday/a.png", b"1"), ("照片.png", b"3")]
    assert read(pack(*files)) == [Entry(name, data) for name, data in files]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_usual_methods_are_read(method: int) -> None:
    assert read(pack(("a", b"photo" * 99), method=method)) == [Entry("a", b"photo" * 99)]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_cannot_be_bounded_are_refused(method: int) -> None:
    (entry,) = read(pack(("a", bytes(1000)), method=method))
    assert isinstance(entry.photo, UnreadableArchive)


def test_folders_and_what_file_managers_add_are_skipped() -> None:
    clutter = [("holiday/", b""), ("__MACOSX/holiday/._a.png", b"x"), ("holiday/.DS_Store", b"x"), ("Thumbs.db", b"x")]
    assert [entry.name for entry in read(pack(*clutter, ("holiday/a.png", b"1")))] == ["holiday/a.png"]
    with pytest.raises(NoPhoto):
        read(pack(*clutter))


@pytest.mark.parametrize("data", [b"", b"text", COCK, pack(("a", COCK))[:-30], b"PK\x05\x06" + b"\xff" * 18])
def test_broken_archives_are_refused(data: bytes) -> None:
    with pytest.raises(UnreadableArchive):
        read(data)


def test_a_file_without_a_name_is_read() -> None:
    (entry,) = read(pack(("abc", COCK)).replace(b"abc", b"\0bc"))  # names end at their first zero
    assert entry == Entry("", COCK)


def test_too_many_files_are_refused() -> None:
    assert len(read(pack(*[(str(number), b"1") for number in range(4)]))) == 4
    with pytest.raises(TooLarge, match="5 photos are more than the 4"):
        read(pack(*[(str(number), b"1") for number in range(5)]))


def test_a_directory_of_very_many_entries_is_not_even_read() -> None:
    with pytest.raises(TooLarge, match="more than 4,096 entries"):
        read(pack(*[(f"{number}/", b"") for number in range(4097)]))


def test_a_bomb_within_one_entry_is_refused_alone() -> None:
    bomb = pack(("bomb", bytes(50 * MEBI)), ("a", COCK))
    assert len(bomb) < 100_000
    first, second = read(bomb)
    assert isinstance(first.photo, TooLarge)
    assert second.photo == COCK


def test_a_bomb_of_many_entries_is_refused() -> None:
    with pytest.raises(TooLarge, match="more than 2,000,000 bytes"):
        read(pack(*[(str(number), bytes(MEBI)) for number in range(3)]), most_bytes=2_000_000)


def test_no_more_is_read_than_an_entry_declares() -> None:
    honest = pack(("a", bytes(MEBI)))
    size = struct.pack("<I", MEBI)
    assert honest.count(size) == 2
    (entry,) = read(honest.replace(size, struct.pack("<I", 10)))
    assert isinstance(entry.photo, UnreadableArchive)


def test_an_encrypted_entry_carries_its_problem() -> None:
    locked = bytearray(pack(("a", COCK)))
    locked[6] |= 1
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    (entry,) = read(bytes(locked))
    assert isinstance(entry.photo, UnreadableArchive)
    assert "password" in entry.photo.detail


def test_a_damaged_entry_carries_its_problem_and_the_other_is_read() -> None:
    damaged = bytearray(pack(("a", COCK), ("b", GROUSE), method=zipfile.ZIP_STORED))
    damaged[damaged.index(COCK) + 40] ^= 0xFF
    first, second = read(bytes(damaged))
    assert isinstance(first.photo, UnreadableArchive)
    assert second.photo == GROUSE


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 600))
def test_no_mutation_of_an_archive_does_more_than_refuse(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(pack(("a/b", b"photo" * 20), ("c", bytes(300)), ("d/", b"")))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        entries = read(bytes(data[: len(data) - cut % 3]))
    except Problem:
        return
    assert all(isinstance(entry.photo, Problem) or len(entry.photo) <= MEBI for entry in entries)


@pytest.mark.parametrize("kind", ["application/zip", "application/x-zip-compressed"])
def test_batch_of_an_archive_names_each_photo(client: FlaskClient, kind: str) -> None:
    data = pack(("z.png", GROUSE), ("sub/bad.png", b"text"), ("a.png", COCK), ("empty.png", b""))
    answer = client.post("/api/v1/predict/batch?top=1", data=data, content_type=kind).json
    assert [result["name"] for result in answer["results"]] == ["z.png", "sub/bad.png", "a.png", "empty.png"]
    first, bad, last, empty = answer["results"]
    assert [first["predictions"][0]["class_id"], last["predictions"][0]["class_id"]] == [80, 7]
    for result, status, slug in ((bad, 415, "unsupported-image"), (empty, 400, "no-photo")):
        del result["name"]
        assert_problem_document(result, status, slug)


def test_batch_of_a_broken_archive_is_a_problem(client: FlaskClient) -> None:
    answer = client.post("/api/v1/predict/batch", data=b"PK\x03\x04", content_type="application/zip")
    assert_problem(answer, 422, "unreadable-archive")


def test_what_an_archive_unpacks_to_must_fit_into_the_house(app: flask.Flask, client: FlaskClient) -> None:
    admission = service_of(app).admission
    leave = admission.enter(256 * MEBI - 2 * MEBI)
    small, large = (pack(*((f"{number}.png", bytes(MEBI)) for number in range(count))) for count in (1, 3))
    assert client.post("/api/v1/predict/batch", data=small, content_type="application/zip").status_code == 200
    answer = client.post("/api/v1/predict/batch", data=large, content_type="application/zip")
    assert_problem(answer, 503, "overloaded")
    leave()
    assert client.post("/api/v1/predict/batch", data=large, content_type="application/zip").status_code == 200
    assert (admission.requests, admission.bytes) == (0, 0)


def test_a_directory_that_points_beyond_all_files_is_damaged_only_there() -> None:
    data = bytearray(pack(("a.png", COCK), ("b.png", COCK)))
    entry = data.rindex(b"PK\x01\x02")
    # The place of the second file as a 64-bit number, in an extra field (APPNOTE 4.5.3), past what files can be.
    name_length = int.from_bytes(data[entry + 28 : entry + 30], "little")
    extra = b"\x01\x00\x08\x00" + b"\xff" * 8
    data[entry + 42 : entry + 46] = b"\xff" * 4
    data[entry + 30 : entry + 32] = len(extra).to_bytes(2, "little")
    data[entry + 46 + name_length : entry + 46 + name_length] = extra
    end = data.rindex(b"PK\x05\x06")
    size = int.from_bytes(data[end + 12 : end + 16], "little") + len(extra)
    data[end + 12 : end + 16] = size.to_bytes(4, "little")
    first, second = read(bytes(data))
    assert first.photo == COCK
    assert isinstance(second.photo, UnreadableArchive)
