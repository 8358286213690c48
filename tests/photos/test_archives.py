"""ZIP archives: their files in order, and no harm from what they claim."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

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


def tarred(photo: bytes) -> bytes:
    """Pack a file as tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.size = len(photo)
        archive.addfile(entry, io.BytesIO(photo))
    return out.getvalue()


def read(data: bytes, **limits: int) -> list[Entry]:
    """Read an archive with small limits."""
    return read_archive(
        data, admit=lambda size: None, **{"max_entries": 4, "max_bytes": 4 * MEBI, "max_entry_bytes": MEBI} | limits
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


CLUTTER = [
    "holiday/",
    "holiday\\",
    "__MACOSX/holiday/._a.png",
    "holiday/._a.png",
    "holiday/.DS_Store",
    "Thumbs.db",
    "p/THUMBS.DB",
    "p\\thumbs.db",
    "ehthumbs.db",
    "p/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "Desktop.ini",
    "Icon\r",
    ".thumbnails/7.jpg",
]


@pytest.mark.parametrize("name", CLUTTER)
def test_folders_and_what_file_managers_add_are_skipped(name: str) -> None:
    data = b"" if name[-1] in "/\\" else b"x"
    assert [entry.name for entry in read(pack((name, data), ("holiday/a.png", b"1")))] == ["holiday/a.png"]
    with pytest.raises(NoPhoto):
        read(pack((name, data)))


@pytest.mark.parametrize("name", ["Thumbs.db.jpg", "my__MACOSX/a.jpg", "_.jpg", "desktop.ini/a.jpg", "a._b.jpg"])
def test_files_that_only_look_like_clutter_are_read(name: str) -> None:
    assert [entry.name for entry in read(pack((name, b"1")))] == [name]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is empty"),
        (b"text", "no ZIP archive, or a damaged one"),
        (b"PK\x05\x06" + b"\xff" * 18, "no ZIP archive, or a damaged one"),
        (pack(("a", COCK))[:-30], "damaged or incomplete"),
        (pack(("a", COCK)).replace(b"PK\x01\x02", b"PK\x01\x03"), "damaged or incomplete"),
        (COCK, "is a photo, not a ZIP archive"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(99), "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7-Zip archive"),
        (gzip.compress(COCK), "gzip data"),
        (lzma.compress(COCK), "XZ data"),
        (tarred(COCK), "a tar archive"),
    ],
)
def test_what_is_no_whole_archive_is_refused_by_its_kind(data: bytes, text: str) -> None:
    with pytest.raises(UnreadableArchive, match=text):
        read(data)


def test_files_that_overlap_are_refused_before_they_are_unpacked() -> None:
    data = bytearray(pack(("a", os.urandom(1000)), ("b", b"1"), method=zipfile.ZIP_STORED))
    entry = data.rindex(b"PK\x01\x02")  # of b, which claims all bytes (APPNOTE 4.3.12)
    data[entry + 20 : entry + 28] = struct.pack("<II", len(data), 1)
    with pytest.raises(UnreadableArchive, match="overlap"):
        read(bytes(data))


def test_a_file_without_a_name_is_read() -> None:
    (entry,) = read(pack(("abc", COCK)).replace(b"abc", b"\0bc"))  # names end at their first zero
    assert entry == Entry("", COCK)


def test_too_many_files_are_refused() -> None:
    assert len(read(pack(*[(str(number), b"1") for number in range(4)]))) == 4
    with pytest.raises(TooLarge, match="holds 5 files, more than the 4"):
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
        read(pack(*[(str(number), bytes(MEBI)) for number in range(3)]), max_bytes=2_000_000)


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


def test_a_damaged_entry_carries_its_problem_alone() -> None:
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


def test_an_offset_beyond_the_archive_damages_its_entry_alone() -> None:
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


def written(
    name: bytes,
    *,
    local: bytes | None = None,
    flags: int = 0,
    extra: bytes = b"",
    system: int = 0,
    attributes: int = 0,
    streamed: bool = False,
) -> bytes:
    """Write an archive of one stored photo as APPNOTE describes it, each field by hand.

    `local` is the name in the file's own header; `streamed` leaves size and checksum to a record behind the file.
    """
    local = name if local is None else local
    flags |= 8 * streamed
    sums = struct.pack("<LLL", zlib.crc32(COCK), len(COCK), len(COCK))
    stamp = struct.pack("<HH", 0, 33)
    begin = struct.pack("<4sHHH", b"PK\x03\x04", 20, flags, 0) + stamp + (bytes(12) if streamed else sums)
    file = begin + struct.pack("<HH", len(local), len(extra)) + local + extra + COCK
    file += b"PK\x07\x08" + sums if streamed else b""
    entry = struct.pack("<4sBBHHH", b"PK\x01\x02", 20, system, 20, flags, 0) + stamp + sums
    entry += struct.pack("<HHHHHLL", len(name), len(extra), 0, 0, 0, attributes, 0) + name + extra
    return file + entry + struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(file), 0)


def unicode_path(name: str, of: bytes, version: int = 1) -> bytes:
    """Write the extra field of APPNOTE 4.6.9: a name in UTF-8 beside the other one."""
    content = struct.pack("<BL", version, zlib.crc32(of)) + name.encode()
    return struct.pack("<HH", 0x7075, len(content)) + content


TIMES = struct.pack("<HHBL", 0x5455, 5, 1, 0)
NAMES = [
    (written(b"a/cock.png"), "a/cock.png"),
    (written("雄鸡.png".encode(), flags=0x800), "雄鸡.png"),
    (written("雄鸡.png".encode()), "雄鸡.png"),
    (written("re\u0301sume\u0301.png".encode(), system=3, streamed=True), "re\u0301sume\u0301.png"),
    (written("è.png".encode("cp437")), "è.png"),
    (written(b"__.png", extra=TIMES + unicode_path("雄鸡.png", b"__.png")), "雄鸡.png"),
    (written("è.png".encode("cp437"), extra=unicode_path("雄鸡.png", "è.png".encode("cp437"))), "雄鸡.png"),
    (written(b"__.png", extra=unicode_path("雄鸡.png", b"another name")), "__.png"),
    (written(b"__.png", extra=unicode_path("雄.png", b"__.png").replace("雄".encode(), b"\xff\xfe\xfd")), "__.png"),
    (written(b"__.png", extra=unicode_path("雄鸡.png", b"__.png", version=2)), "__.png"),
    (written(b"__.png", extra=struct.pack("<HH", 0x7075, 3) + b"abc" + TIMES), "__.png"),
    (written(b"a\\b\\cock.png"), "a/b/cock.png"),
    (written(b"a\\cock.png", system=3), "a/cock.png"),
    (written(b"a/cock.png", local=b"a\\cock.png"), "a/cock.png"),
    (written(b"a\\cock.png", local=b"a/cock.png"), "a/cock.png"),
    (written("雄鸡.png".encode(), flags=0x800, local=b"__.png"), "雄鸡.png"),
    (written(b"a/cock.png", local=b""), "a/cock.png"),
    (written(b"cock.png", streamed=True), "cock.png"),
    (written("è.png".encode("cp437"), flags=0x800), "è.png"),
    (b"#!/bin/sh\nexit\n" + written(b"cock.png"), "cock.png"),
]


@pytest.mark.parametrize(("data", "name"), NAMES)
def test_names_are_read_as_programs_write_them(data: bytes, name: str) -> None:
    assert read(data) == [Entry(name, COCK)]


def test_a_part_of_a_split_archive_is_named() -> None:
    data = pack(("a.png", COCK))
    last = data.replace(b"PK\x05\x06\0", b"PK\x05\x06\3")  # the fourth part (APPNOTE 4.3.16)
    for part in (last, b"PK\x07\x08" + data[:60]):
        with pytest.raises(UnreadableArchive, match="one part of a ZIP archive that was split"):
            read(part)


@pytest.mark.parametrize(
    "field", [b"up", b"up\xff\xff", b"\x75\x70\x05\x00" + bytes(5), b"\x75\x70\x00\x00", bytes(9)]
)
def test_a_broken_extra_field_costs_at_most_its_archive(field: bytes) -> None:
    with suppress(UnreadableArchive):  # zipfile refuses some of these; which, depends on its version
        assert [entry.photo for entry in read(written(b"a.png", extra=field))] == [COCK]


@pytest.mark.parametrize("size", [6, 0xFFFF])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("which", ["a field's", "all fields', in the directory", "all fields', in the file's header"])
def test_a_wrong_length_of_extra_fields_costs_no_other_file(which: str, place: int, size: int) -> None:
    names = ["a.png", "b.png", "c.png"]
    data = bytearray(pack(*((name, COCK) for name in names), method=zipfile.ZIP_STORED))
    entry = [found.start() for found in re.finditer(b"PK\x01\x02", data)][place]
    if which == "a field's":
        data[entry + 30 : entry + 32] = len(TIMES).to_bytes(2, "little")
        broken = TIMES[:2] + size.to_bytes(2, "little") + TIMES[4:]
        data[entry + 46 + len(names[0]) : entry + 46 + len(names[0])] = broken
        end = data.rindex(b"PK\x05\x06") + 12
        data[end : end + 4] = (int.from_bytes(data[end : end + 4], "little") + len(TIMES)).to_bytes(4, "little")
    else:
        header = entry + 30 if "directory" in which else data.index(names[place].encode()) - 2
        data[header : header + 2] = size.to_bytes(2, "little")
    found = read(bytes(data))
    assert [entry.name for entry in found] == names
    is_costly = "header" in which
    assert [entry.photo == COCK for entry in found] == [not (is_costly and at == place) for at in range(3)]


def test_folders_by_their_attributes_are_skipped() -> None:
    folder = zipfile.ZipInfo("holiday")
    folder.external_attr, folder.create_system = 0x10, 0
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(folder, b"")
        archive.writestr("a.png", COCK)
    assert read(out.getvalue()) == [Entry("a.png", COCK)]


def test_a_link_carries_its_problem() -> None:
    data = written(b"a.png", system=3, attributes=(stat.S_IFLNK | 0o777) << 16)
    (entry,) = read(data)
    assert isinstance(entry.photo, UnreadableArchive)
    assert "link" in entry.photo.detail


@pytest.mark.parametrize("place", [2**32 - 2, 1, 40])
def test_a_file_that_is_not_where_the_directory_says_is_damaged(place: int) -> None:
    data = bytearray(written(b"a.png"))
    entry = data.index(b"PK\x01\x02")
    data[entry + 42 : entry + 46] = place.to_bytes(4, "little")
    (found,) = read(bytes(data))
    assert isinstance(found.photo, UnreadableArchive)


@pytest.mark.parametrize(
    ("locale", "command"),
    [
        ("C", "zip -qr - 照片"),
        ("C.UTF-8", "zip -qr - 照片"),
        ("C.UTF-8", "zip -qr -UN=UTF8 - 照片"),
        ("C.UTF-8", "zip -0qr - 照片"),
        ("C.UTF-8", "jar cM 照片"),
        ("C.UTF-8", "7z a -tzip -so -bd a.zip 照片"),
        ("C.UTF-8", "bsdtar -cf - --format=zip 照片"),
    ],
)
def test_archives_of_real_programs_are_read(tmp_path: Path, locale: str, command: str) -> None:
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    for name in ("猫.png", "sub/b.png", ".DS_Store", "sub/Thumbs.db"):
        file = tmp_path / "照片" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(COCK)
    environment = os.environ | {"LC_ALL": locale}
    made = subprocess.run(command.split(), cwd=tmp_path, env=environment, capture_output=True, check=True)
    found = sorted(read(made.stdout), key=lambda entry: entry.name)
    assert found == [Entry("照片/sub/b.png", COCK), Entry("照片/猫.png", COCK)]
