"""Headers of TAR archives that are damaged or hostile: what is whole is listed, and a row says that there is more."""

from __future__ import annotations

import resource
import tarfile
from pathlib import Path

import pytest

from app.batch.entries import PROBLEM
from app.batch.packed import list_archive

BLOCK = 512
PHOTO = b"any bytes"
PAX, LONG_NAME = b"x", b"L"


def header(name: bytes, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Make a header; a size that octal digits cannot hold is written as GNU tar does."""
    octal = b"%011o\0" % size if 0 <= size < 8**11 else b""
    written = octal or (b"\x80" if size > 0 else b"\xff") + (size % 2**88).to_bytes(11, "big")
    block = bytearray(tarfile.TarInfo(name.decode()).tobuf(tarfile.GNU_FORMAT))
    block[124:136], block[156:157], block[148:156] = written, kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: bytes, data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    return header(name, len(data), kind) + data + bytes(-len(data) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    """Make a record of a pax header, whose length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = next(n for n in range(len(rest), len(rest) + 9) if n == len(rest) + len(str(n)))
    return str(length).encode() + rest


FIRST = member(b"a.png", PHOTO)
LAST = member(b"z.png", PHOTO) + bytes(2 * BLOCK)


def listed(path: Path, data: bytes) -> tuple[list[str], bool]:
    """Return the names that are listed of an archive, and whether a row says that it is damaged."""
    path.write_bytes(data)
    found = list(list_archive(str(path)))
    names = [entry.name.removeprefix(f"{path}/") for entry in found if entry.kind != PROBLEM]
    return names, any(entry.detail == "The TAR archive is damaged or incomplete." for entry in found)


@pytest.mark.parametrize(
    "middle",
    [
        header(b"b.png", -BLOCK),  # which leads back to this very header
        header(b"b.png", 2**80),
        header(b"b.png", 2**50, LONG_NAME),
        member(b"pax", record(b"size", b"-512"), PAX),
        member(b"pax", record(b"size", b"9" * 30), PAX),
        member(b"pax", b"1" * 300_000, PAX),
        member(b"pax", b"0 path=b.png\n", PAX),
        member(b"pax", b"9999 path=b.png\n", PAX),
        b"x" * BLOCK,  # for `tarfile` the end of the archive
        header(b"b.png", 0)[:-1] + b"x",
    ],
)
def test_a_damaged_header_ends_an_archive_with_a_row(tmp_path: Path, middle: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert listed(tmp_path / "t.tar", FIRST + middle + LAST) == (["a.png"], True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_headers_without_end_cost_no_stack(tmp_path: Path) -> None:
    names = member(b"././@LongLink", b"b.png\0", LONG_NAME) + member(b"pax", record(b"path", b"c.png"), PAX)
    assert listed(tmp_path / "t.tar", names * 2000 + FIRST + LAST) == (["c.png", "z.png"], False)


def test_links_have_no_bytes_and_sparse_files_are_rows(tmp_path: Path) -> None:
    link, sparse = header(b"l.png", 10**6, tarfile.SYMTYPE), member(b"pax", record(b"GNU.sparse.major", b"1"), PAX)
    data = link + sparse + member(b"s.png", PHOTO) + LAST
    assert listed(tmp_path / "t.tar", data) == (["z.png"], False)
    assert [entry.name[-5:] for entry in list_archive(str(tmp_path / "t.tar")) if entry.kind == PROBLEM] == [
        "l.png",
        "s.png",
    ]


@pytest.mark.parametrize(
    ("length", "names", "is_damaged"),
    [
        (0, [], True),
        (300, [], True),
        (BLOCK + 4, ["a.png"], True),  # the photo itself is cut, and reading it says so
        (len(FIRST), ["a.png"], False),
        (len(FIRST) + 300, ["a.png"], True),
    ],
)
def test_an_archive_that_is_cut_is_listed_up_to_there(
    tmp_path: Path, length: int, names: list[str], is_damaged: bool
) -> None:
    assert listed(tmp_path / "t.tar", (FIRST + LAST)[:length]) == (names, is_damaged)
