"""The photos of a ZIP archive, read in memory, within limits that do not rely on the archive's own figures.

`zipfile` reads the directory. The files are unpacked here, as the directory describes them: `zipfile` refuses a
file whose name is written in two ways, and programs do that (a backslash in one place, a slash in the other).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import NoPhoto, Problem, TooLarge, UnreadableArchive
from .clutter import is_clutter
from .formats import find_format

# Each entry of the directory begins so; counting that bounds what reading the directory can cost.
_DIRECTORY_ENTRY = b"PK\x01\x02"
_MAX_ENTRIES = 4096
# In an entry, the lengths of its name, extra fields and comment (APPNOTE 4.3.12); in the end, the directory's size.
_ENTRY_BYTES, _ENTRY_FLAGS, _ENTRY_LENGTHS = 46, 8, 28
_END_OF_DIRECTORY, _END_BYTES, _PART, _DIRECTORY_SIZE = b"PK\x05\x06", 22, 4, 12
# A split archive begins so.
_SPLIT = b"PK\x07\x08"
_MAX_LENGTH = 0xFFFF
# A file's own header (APPNOTE 4.3.7): it begins so, and ends with the lengths of its name and extra field.
_LOCAL_HEADER = b"PK\x03\x04"
LOCAL_HEADER_BYTES = 30
LENGTHS = struct.Struct("<HH")
LENGTHS_START = 26
# Flags and fields of APPNOTE 4.4.4, 4.4.2 and 4.6.9.
_ENCRYPTED = 0x1
_UTF8_NAME = 0x800
_UNIX = 3
_UNICODE_PATH, _PATH_START = 0x7075, 5
_UNKNOWN_FIELD = 0xFFFF
# MS-DOS's attribute of a folder.
_DOS_FOLDER = 0x10
# Other methods decompress whole blocks even if less is wanted, so that a few kilobytes could become very many.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
UNREADABLE_DIRECTORY = (
    zipfile.BadZipFile,
    ValueError,
    OSError,
    EOFError,
    OverflowError,
    RuntimeError,  # of a version that zipfile does not know
)
_OTHER_ARCHIVES = (
    ("a RAR archive", re.compile(rb"Rar!\x1a\x07")),
    ("a 7-Zip archive", re.compile(rb"7z\xbc\xaf\x27\x1c")),
    ("gzip data", re.compile(rb"\x1f\x8b")),
    ("XZ data", re.compile(rb"\xfd7zXZ\x00")),
    ("a tar archive", re.compile(rb".{257}ustar", re.DOTALL)),
)


@dataclass(frozen=True)
class Entry:
    """One file of an archive: its name with its folders, and its bytes, or the problem if they cannot be read."""

    name: str
    photo: bytes | Problem


def read_archive(
    data: bytes, *, max_entries: int, max_bytes: int, max_entry_bytes: int, admit: Callable[[int], None]
) -> list[Entry]:
    """Read all files of an archive, in its own order, without folders and what file managers add.

    An entry that is encrypted, damaged or over `max_entry_bytes` carries its problem. Raises UnreadableArchive if the
    data is no ZIP archive, or its files overlap, NoPhoto if it has no files, and TooLarge for more than `max_entries`
    files or more than `max_bytes` in all. `admit` is called with the number of bytes to be unpacked, and may raise. No
    more bytes are read from an entry than it declares.
    """
    files = _files_in_memory(data)
    if not files:
        raise NoPhoto("The archive holds no file. Pack at least one photo.")
    if len(files) > max_entries:
        raise TooLarge(f"The archive holds {len(files)} files, more than the {max_entries} of one batch.")
    size = sum(entry.file_size for _, entry in files if entry.file_size <= max_entry_bytes)
    if size > max_bytes:
        raise TooLarge(f"The files in the archive have more than {max_bytes:,} bytes. Send fewer at a time.")
    if sum(entry.compress_size for _, entry in files) > len(data):
        raise UnreadableArchive("Files of the archive overlap. Pack it again.")
    admit(size)
    view = memoryview(data)
    return [Entry(name, read_entry(view, entry, max_entry_bytes)) for name, entry in files]


def _files_in_memory(data: bytes) -> list[tuple[str, zipfile.ZipInfo]]:
    if data.count(_DIRECTORY_ENTRY) > _MAX_ENTRIES:
        raise TooLarge(f"The archive has more than {_MAX_ENTRIES:,} entries.")
    try:
        return list_files(io.BytesIO(data))
    except UNREADABLE_DIRECTORY as error:
        raise _not_an_archive(data) from error


def list_files(archive: BinaryIO) -> list[tuple[str, zipfile.ZipInfo]]:
    """List the files of an archive with their names, in its own order, without folders and what file managers add.

    Raises UnreadableArchive for one part of an archive that was split, and one of `UNREADABLE_DIRECTORY` for a file
    that is no archive, or a damaged one.
    """
    named = [(_name_of(entry), entry) for entry in _read_directory(archive)]
    _, record = _end_of_directory(archive)
    if int.from_bytes(record[_PART : _PART + 2], "little") not in (0, _MAX_LENGTH):
        raise _split()
    return [(name, entry) for name, entry in named if not (_is_folder(entry, name) or is_clutter(name.split("/")))]


def _read_directory(archive: BinaryIO) -> list[zipfile.ZipInfo]:
    try:
        return _entries(archive)
    except (zipfile.BadZipFile, UnicodeDecodeError):
        start, directory = _directory(archive)
        entries = _entries(io.BytesIO(_mended(directory)))
    for entry in entries:
        entry.header_offset += start
    return entries


def _entries(archive: BinaryIO) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(archive) as opened:
        return opened.infolist()


def _directory(archive: BinaryIO) -> tuple[int, bytes]:
    """Return where an archive's directory starts, and its bytes with the record that ends it; raises BadZipFile."""
    end, record = _end_of_directory(archive)
    start = max(0, end - int.from_bytes(record[_DIRECTORY_SIZE : _DIRECTORY_SIZE + 4], "little"))
    archive.seek(start)
    return start, archive.read()


def _end_of_directory(archive: BinaryIO) -> tuple[int, bytes]:
    """Return where the record that ends the directory starts, and its bytes; raises BadZipFile."""
    size = archive.seek(0, os.SEEK_END)
    last = max(0, size - _END_BYTES - _MAX_LENGTH)  # a comment may follow the record
    archive.seek(last)
    tail = archive.read()
    end = tail.rfind(_END_OF_DIRECTORY)
    if not 0 <= end <= len(tail) - _END_BYTES:
        raise zipfile.BadZipFile
    return last + end, tail[end : end + _END_BYTES]


def _mended(directory: bytes) -> bytes:
    """Return a directory with fitting lengths of extra fields, and no name that is UTF-8 by its flag or field alone.

    No byte moves. `zipfile` refuses the whole archive if one entry's fields reach beyond their end, its header names a
    wrong length for all of them together, or a name is not the UTF-8 that it claims to be.
    """
    mended, place, end = bytearray(directory), 0, directory.rfind(_END_OF_DIRECTORY)
    while place + _ENTRY_BYTES <= end and directory.startswith(_DIRECTORY_ENTRY, place):
        name, extra, comment = struct.unpack_from("<HHH", directory, place + _ENTRY_LENGTHS)
        start, following = place + _ENTRY_BYTES + name, place + _ENTRY_BYTES + name + extra + comment
        if following != end and not directory.startswith(_DIRECTORY_ENTRY, following):
            found = directory.find(_DIRECTORY_ENTRY, start, end)
            following = end if found < 0 else found
            extra = min(max(0, following - start - comment), _MAX_LENGTH)
            struct.pack_into("<HH", mended, place + _ENTRY_LENGTHS + 2, extra, max(0, following - start - extra))
        _mend_fields(mended, start, start + extra)
        _mend_flag(mended, place, start)
        place = following
    return bytes(mended)


def _mend_fields(data: bytearray, start: int, end: int) -> None:
    """Let the last of some extra fields end where all of them end, and hide a Unicode path that is damaged."""
    while (content := start + LENGTHS.size) <= end:
        kind, size = LENGTHS.unpack_from(data, start)
        size = min(size, end - content)
        if kind == _UNICODE_PATH and not _is_unicode_path(data[content : content + size]):
            kind = _UNKNOWN_FIELD
        LENGTHS.pack_into(data, start, kind, size)
        start = content + size


def _is_unicode_path(field: bytearray) -> bool:
    """Return whether a field has a version, a checksum, and a name in UTF-8."""
    try:
        field[_PATH_START:].decode()
    except UnicodeDecodeError:
        return False
    return len(field) >= _PATH_START


def _mend_flag(data: bytearray, place: int, name_end: int) -> None:
    """Take the flag for UTF-8 from an entry whose name is not UTF-8."""
    try:
        data[place + _ENTRY_BYTES : name_end].decode()
    except UnicodeDecodeError:
        flags = int.from_bytes(data[place + _ENTRY_FLAGS : place + _ENTRY_FLAGS + 2], "little")
        struct.pack_into("<H", data, place + _ENTRY_FLAGS, flags & ~_UTF8_NAME)


def _not_an_archive(data: bytes) -> UnreadableArchive:
    if not data:
        return UnreadableArchive("The body is empty (0 bytes). Send a ZIP archive.")
    if data.startswith(_SPLIT):
        return _split()
    if data.startswith(_LOCAL_HEADER):
        return UnreadableArchive("The ZIP archive is damaged or incomplete. Pack it again.")
    found = next((name for name, signature in _OTHER_ARCHIVES if signature.match(data)), None)
    if found is not None:
        return UnreadableArchive(f"The body is {found}, not a ZIP archive. Pack the photos as ZIP.")
    if find_format(data) is not None:
        return UnreadableArchive("The body is a photo, not a ZIP archive. Send it to predict, or pack it as ZIP.")
    return UnreadableArchive("The body is no ZIP archive, or a damaged one. Pack it again.")


def _split() -> UnreadableArchive:
    return UnreadableArchive("This is one part of a ZIP archive that was split. Pack the photos as one archive.")


def _name_of(entry: zipfile.ZipInfo) -> str:
    """Return an entry's name with slashes between its folders.

    Without the flag for UTF-8 a name is CP437 by the standard; but many programs write UTF-8 without it, and some
    the Unicode path beside it. Names in other encodings are hardly ever valid UTF-8.
    """
    name = entry.filename
    if not entry.flag_bits & _UTF8_NAME:
        try:
            raw = name.encode("cp437")  # which gives back the bytes that zipfile has decoded
        except UnicodeEncodeError:  # from Python 3.12 on zipfile reads the Unicode path itself
            return name.replace("\\", "/")
        name = _unicode_path(entry.extra, raw) or _decode(raw)
    return name.replace("\\", "/")


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the Unicode path of an extra field, None if none belongs to this very name."""
    while len(extra) >= LENGTHS.size:
        kind, size = LENGTHS.unpack_from(extra)
        field = extra[LENGTHS.size : LENGTHS.size + size]
        if kind == _UNICODE_PATH and field[:_PATH_START] == struct.pack("<BL", 1, zlib.crc32(raw)):
            with contextlib.suppress(UnicodeDecodeError):  # a broken field does not change the name
                return field[_PATH_START:].decode().partition("\0")[0] or None
        extra = extra[LENGTHS.size + size :]
    return None


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp437")


def _is_folder(entry: zipfile.ZipInfo, name: str) -> bool:
    """Return whether an entry, with the name that `_name_of` gives it, is a folder."""
    # A backslash at the end may also be half of a character in a Japanese encoding; such an entry has bytes.
    if entry.filename.endswith("/"):
        return True
    return not entry.file_size and (name.endswith("/") or bool(entry.external_attr & _DOS_FOLDER))


def read_entry(data: memoryview, entry: zipfile.ZipInfo, max_bytes: int) -> bytes | Problem:
    """Unpack an entry whose header is at `entry.header_offset` of the data, or return why that cannot be done."""
    if entry.flag_bits & _ENCRYPTED:
        return UnreadableArchive("This entry is encrypted. Pack it without a password.")
    if entry.create_system == _UNIX and stat.S_ISLNK(entry.external_attr >> 16):
        return UnreadableArchive("This entry is a link to another file. Pack the file itself.")
    if entry.compress_type not in _METHODS:
        return UnreadableArchive("This entry is compressed by an unusual method. Pack it with deflate, or stored.")
    if entry.file_size > max_bytes:
        return TooLarge(f"The limit is {max_bytes:,} bytes. Send a smaller copy.")
    photo = _unpack(data, entry)
    if photo is None or len(photo) != entry.file_size or zlib.crc32(photo) != entry.CRC:
        return UnreadableArchive("This entry is damaged or cut short. Pack it again.")
    return photo


def _unpack(data: memoryview, entry: zipfile.ZipInfo) -> bytes | None:
    """Return at most one byte more than the entry declares, or None if it cannot be read."""
    start = entry.header_offset
    header = data[start : start + LOCAL_HEADER_BYTES] if start >= 0 else b""
    if len(header) < LOCAL_HEADER_BYTES or header[: len(_LOCAL_HEADER)] != _LOCAL_HEADER:
        return None
    start += LOCAL_HEADER_BYTES + sum(LENGTHS.unpack_from(header, LENGTHS_START))
    packed = data[start : start + entry.compress_size]
    if entry.compress_type == zipfile.ZIP_STORED:
        return bytes(packed[: entry.file_size + 1])
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, entry.file_size + 1)
    except zlib.error:
        return None
