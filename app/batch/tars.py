"""The members of a TAR archive, from its headers alone, so that a damaged or hostile archive costs no memory or time.

`tarfile` reads a header; what follows it is read here. `tarfile` itself takes a damaged header in the middle for the
end, so that the photos behind it would be lost without a word; and a few bytes can have it allocate any amount of
memory, go back in the file without end, or search for hours.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
# A name and what else a program writes about a member take a few kilobytes.
MAX_EXTENDED_BYTES = 2**20
# The types of headers that tell about the next member or all that follow (POSIX pax; Solaris; GNU tar).
_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK = (b"x", b"X"), b"g", b"L", b"K"
# Members of these types have no data, whatever their size says: links, devices, folders and pipes.
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
# In a sparse member of GNU tar, the byte that says whether a block of its map follows: in the header, and in a block.
_MORE_IN_HEADER, _MORE_IN_BLOCK = 482, 504
# The records of pax headers that matter; all others that begin with `_SPARSE` only say that a member is sparse.
_PATH, _SIZE, _SPARSE, _SPARSE_NAME = b"path", b"size", b"GNU.sparse.", b"GNU.sparse.name"


@dataclass(frozen=True)
class Member:
    """A member of an archive: its name, where its bytes begin, how many they are, and whether it is a whole file."""

    name: str
    start: int
    size: int
    is_file: bool
    is_folder: bool


@dataclass
class _Told:
    """What extended headers have told: about all members that follow, and about the next one."""

    always: dict[bytes, bytes] = field(default_factory=dict)
    next: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def now(self) -> dict[bytes, bytes]:
        """Return what holds for the next member."""
        return self.always | self.next


def read_members(file: BinaryIO) -> Iterator[Member]:
    """Yield the members of an archive that is not compressed; raises TarError where it is damaged, and OSError.

    It ends with a block of zeros, or with the file.
    """
    end = file.seek(0, os.SEEK_END)
    place, told = 0, _Told()
    while block := _read_at(file, place, BLOCK):
        if not any(block):
            return
        header = _parse(block)
        data, size = place + BLOCK, header.size
        if header.type in (*_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK):
            _note(told, header.type, _read_extended(file, data, size))
        else:
            facts, told.next = told.now, {}
            size = _size_of(facts.get(_SIZE), size)
            if header.type == tarfile.GNUTYPE_SPARSE:
                data = _after_map(file, block, data)
            if header.type in _WITHOUT_DATA:
                size = 0
            yield _member(header, facts, data, size)
        if data + size > end:
            raise tarfile.ReadError("the archive is cut short")
        place = data + -(-size // BLOCK) * BLOCK
    if not place:
        raise tarfile.ReadError("the archive is empty")


def _parse(block: bytes) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise tarfile.ReadError("a header is damaged") from error
    if not 0 <= header.size < 2**62:
        raise tarfile.ReadError("a size is damaged")
    return header


def _read_at(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _read_extended(file: BinaryIO, place: int, size: int) -> bytes:
    if size > MAX_EXTENDED_BYTES:
        raise tarfile.ReadError("a header is too long")
    return _read_at(file, place, size)


def _note(told: _Told, kind: bytes, data: bytes) -> None:
    if kind == _LONG_NAME:
        told.next[_PATH] = data.partition(b"\0")[0]
    elif kind == _GLOBAL:
        told.always |= _records(data)
    elif kind in _PAX:
        told.next |= _records(data)


def _records(data: bytes) -> dict[bytes, bytes]:
    r"""Return the records of a pax header, each `LENGTH KEY=VALUE\n`, that matter here; raises ReadError."""
    found: dict[bytes, bytes] = {}
    place = 0
    while place < len(data) and data[place] != 0:
        digits, blank, _ = data[place : place + 20].partition(b" ")
        length = int(digits) if blank and digits.isdigit() else 0
        record = data[place + len(digits) + 1 : place + length]
        key, sign, value = record.partition(b"=")
        if not sign or value[-1:] != b"\n" or place + length > len(data):
            raise tarfile.ReadError("a header is damaged")
        if key in (_PATH, _SIZE, _SPARSE_NAME):
            found[key] = value[:-1]
        elif key.startswith(_SPARSE):
            found[_SPARSE] = b""
        place += length
    return found


def _size_of(told: bytes | None, size: int) -> int:
    if told is None:
        return size
    if not (told.isdigit() and len(told) < 19):
        raise tarfile.ReadError("a size is damaged")
    return int(told)


def _after_map(file: BinaryIO, block: bytes, place: int) -> int:
    """Return where the data of a sparse member of GNU tar begins, after the blocks of its map."""
    has_more = block[_MORE_IN_HEADER]
    while has_more:
        block = _read_at(file, place, BLOCK)
        if len(block) < BLOCK:
            raise tarfile.ReadError("the archive is cut short")
        has_more, place = block[_MORE_IN_BLOCK], place + BLOCK
    return place


def _member(header: tarfile.TarInfo, facts: dict[bytes, bytes], start: int, size: int) -> Member:
    told = facts.get(_SPARSE_NAME, facts.get(_PATH))
    name = header.name if told is None else os.fsdecode(told).rstrip("/")
    is_sparse = header.type == tarfile.GNUTYPE_SPARSE or _SPARSE in facts or _SPARSE_NAME in facts
    return Member(name, start, size, header.isreg() and not is_sparse, header.isdir())
