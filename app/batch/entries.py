"""`Entry`: one photo that a job has to classify, as it is listed, kept on disk and read again."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable

import msgspec

# The unpaired surrogates by which Python stands for bytes that are not UTF-8.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")

FILE, TAR, ZIP, PROBLEM = "file", "tar", "zip", "problem"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A photo's path as bytes, which is its name in the rows, and where to read it.

    `kind` is FILE for a path or an address; TAR or ZIP for a photo in the file `archive`, at the numbers of `place`;
    and PROBLEM for a path that was found to be unreadable, for the reason `detail` with the slug `archive`.
    """

    path: bytes
    kind: str = FILE
    archive: bytes = b""
    place: tuple[int, ...] = ()
    detail: str = ""

    @property
    def name(self) -> str:
        """Return the path as text that the system takes for a file name."""
        return os.fsdecode(self.path)


def entry_of(path: str) -> Entry:
    """Return the entry of a file or an address."""
    return Entry(os.fsencode(path))


def problem_entry(path: str, slug: str, detail: str) -> Entry:
    """Return the entry of something that was found to be unreadable while it was listed."""
    return Entry(os.fsencode(path), PROBLEM, slug.encode("ascii"), (), detail)


def shown(path: bytes) -> str:
    r"""Write a path as the rows have it, in UTF-8 and different for different paths.

    A byte that is not UTF-8 is written as \xff, a carriage return as \r, which not every program keeps in CSV, and a
    backslash of the name itself as two.
    """
    text = os.fsdecode(path).replace("\\", "\\\\").replace("\r", r"\r")
    return _NOT_UTF8.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)


def shard_of(path: bytes, shards: int) -> int:
    """Return the shard of a path: its SHA-256 modulo the number of shards."""
    return int.from_bytes(hashlib.sha256(path).digest()[:8], "big") % shards


def unique(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries in the order of their paths, each path once."""
    return sorted({entry.path: entry for entry in entries}.values(), key=lambda entry: entry.path)
