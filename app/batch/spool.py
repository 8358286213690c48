"""`Spool`: the entries of a listing by shard, in a file without a name, so that a million of them take no memory.

The file has no name (or loses it at once), so nothing is left of it when the process ends, however it ends. The
entries of a shard are collected in a buffer. When all buffers together are full, each is written as a block that
begins with the place of the shard's block before it. Memory holds one place for each shard.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from .entries import Entry
from .store import is_address

_BUFFER_BYTES = 4 * 2**20
# The place of the block before this one, and the length of this one.
_HEAD = struct.Struct("<QQ")
_LENGTH = struct.Struct("<I")
_NONE = 2**64 - 1


class Spool:
    """The entries of `shards` shards; all of them are added before any is read.

    `count` is their number, `has_addresses` says whether any is in a store. Raises OSError if the folder is full.
    """

    def __init__(self, folder: Path, shards: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._last = [_NONE] * shards
        self._buffers: dict[int, bytearray] = {}
        self._buffered = 0
        self._end = 0
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Entry)
        self.count = 0
        self.has_addresses = False

    def add(self, shard: int, entry: Entry) -> None:
        """Add an entry to a shard."""
        encoded = self._encoder.encode(entry)
        buffer = self._buffers.setdefault(shard, bytearray())
        buffer += _LENGTH.pack(len(encoded)) + encoded
        self._buffered += len(encoded) + _LENGTH.size
        self.count += 1
        self.has_addresses = self.has_addresses or is_address(entry.name)
        if self._buffered >= _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write all buffers."""
        for shard, buffer in self._buffers.items():
            block = _HEAD.pack(self._last[shard], len(buffer)) + buffer
            _write(self._file.fileno(), block, self._end)
            self._last[shard] = self._end
            self._end += len(block)
        self._buffers.clear()
        self._buffered = 0

    def read(self, shard: int) -> Iterator[Entry]:
        """Yield the entries of a shard, those of its newest block first."""
        self.flush()
        place = self._last[shard]
        while place != _NONE:
            before, length = _HEAD.unpack(_read(self._file.fileno(), _HEAD.size, place))
            yield from self._entries(place + _HEAD.size, length)
            place = before

    def _entries(self, start: int, length: int) -> Iterator[Entry]:
        block = memoryview(_read(self._file.fileno(), length, start))
        place = 0
        while place < length:
            (size,) = _LENGTH.unpack_from(block, place)
            place += _LENGTH.size
            yield self._decoder.decode(block[place : place + size])
            place += size

    def close(self) -> None:
        """Close the file, which removes it."""
        self._file.close()


def _write(descriptor: int, data: bytes, place: int) -> None:
    """Write all bytes; a system call may write fewer, for example when the disk is nearly full."""
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written


def _read(descriptor: int, length: int, place: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        data += os.pread(descriptor, length - len(data), place + len(data))
    return bytes(data)
