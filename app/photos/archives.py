"""The photos of a ZIP archive, read in memory and within limits, whatever the archive says of itself."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import NoPhoto, Problem, TooLarge, UnreadableArchive

# Each entry of the directory begins so; counting that bounds what reading the directory can cost.
_DIRECTORY_ENTRY = b"PK\x01\x02"
_MOST_ENTRIES = 4096
_ENCRYPTED = 0x1
# The others decompress a whole block however little is asked for, so a few kilobytes could become very many.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What file managers add beside the files.
_CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")
_DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    OSError,
    EOFError,
    OverflowError,
    RuntimeError,  # encrypted, or packed in a way that zipfile does not know
)


@dataclass(frozen=True)
class Entry:
    """One file of an archive: its name with its folders, and its bytes or why they cannot be had."""

    name: str
    photo: bytes | Problem


def read_archive(
    data: bytes, *, most_entries: int, most_bytes: int, most_entry_bytes: int, admit: Callable[[int], None]
) -> list[Entry]:
    """Read all files of an archive, in its own order, without folders and what file managers add.

    An entry that is encrypted, damaged or over `most_entry_bytes` carries its problem. Raises UnreadableArchive for
    what is no archive, NoPhoto for one without files, and TooLarge for more than `most_entries` files or more than
    `most_bytes` of them. `admit` is told how many bytes are about to be unpacked, and may raise. Sizes hold for what
    is read: no more than it declares is taken from an entry.
    """
    if data.count(_DIRECTORY_ENTRY) > _MOST_ENTRIES:
        raise TooLarge(f"The archive has more than {_MOST_ENTRIES:,} entries.")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _DAMAGES as error:
        raise UnreadableArchive("The body is no ZIP archive, or a damaged one. Pack it again.") from error
    with archive:
        files = [entry for entry in archive.infolist() if not _is_clutter(entry)]
        if not files:
            raise NoPhoto("The archive holds no file. Pack at least one photo.")
        if len(files) > most_entries:
            raise TooLarge(f"{len(files)} photos are more than the {most_entries} of one batch.")
        size = sum(entry.file_size for entry in files if entry.file_size <= most_entry_bytes)
        if size > most_bytes:
            raise TooLarge(f"The photos in the archive have more than {most_bytes:,} bytes. Send fewer at a time.")
        admit(size)
        return [Entry(entry.filename, _read(archive, entry, most_entry_bytes)) for entry in files]


def _is_clutter(entry: zipfile.ZipInfo) -> bool:
    *folders, name = entry.filename.split("/")
    return entry.filename.endswith("/") or name in _CLUTTER or "__MACOSX" in folders


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most_bytes: int) -> bytes | Problem:
    if entry.flag_bits & _ENCRYPTED:
        return UnreadableArchive("This entry is encrypted. Pack it without a password.")
    if entry.compress_type not in _METHODS:
        return UnreadableArchive("This entry is compressed by an unusual method. Pack it with deflate, or stored.")
    if entry.file_size > most_bytes:
        return TooLarge(f"The limit is {most_bytes:,} bytes. Send a smaller copy.")
    try:
        with archive.open(entry) as file:
            return file.read(most_bytes + 1)
    except _DAMAGES:
        return UnreadableArchive("This entry is damaged or cut short. Pack it again.")
