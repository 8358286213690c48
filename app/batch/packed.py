"""Photos in TAR and ZIP archives on disk: listed once with their places, and read from there in any order.

A photo's path is that of the archive, a slash, and its name in the archive. WebDataset's shards are such archives.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator

from ..errors import Problem, TooLarge, UnreadableArchive
from ..photos.archives import (
    LENGTHS,
    LENGTHS_START,
    LOCAL_HEADER_BYTES,
    UNREADABLE_DIRECTORY,
    list_files,
    read_entry,
)
from ..photos.clutter import is_clutter
from ..photos.folders import MAX_FILE_BYTES, FileProblem, has_photo_name
from .entries import TAR, ZIP, Entry, problem_entry
from .tars import read_members

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_compressed_tar(path: str) -> bool:
    """Return whether a file is, by its name, a TAR archive that is compressed as a whole."""
    return path.lower().endswith(_COMPRESSED)


def list_archive(path: str) -> Iterator[Entry]:
    """Yield the photos of an archive, by their names; an entry with the reason if the archive cannot be read."""
    is_zip = path.lower().endswith(".zip")
    try:
        yield from (_list_zip if is_zip else _list_tar)(path)
    except UnreadableArchive as error:
        yield problem_entry(path, error.slug, error.detail)
    except (tarfile.TarError, *UNREADABLE_DIRECTORY) as error:
        kind = "ZIP" if is_zip else "TAR"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else ""
        detail = f"The file cannot be read: {reason}." if reason else f"The {kind} archive is damaged or incomplete."
        yield problem_entry(path, UnreadableArchive.slug, detail)


def _list_tar(path: str) -> Iterator[Entry]:
    with open(path, "rb") as file:
        for member in read_members(file):
            name = f"{path}/{member.name}"
            parts = member.name.split("/")
            if member.is_folder or not has_photo_name(parts[-1]) or is_clutter(parts):
                continue
            if member.is_file:
                yield Entry(os.fsencode(name), TAR, os.fsencode(path), (member.start, member.size))
            else:
                detail = "This entry is a link or a sparse file. Pack the file itself."
                yield problem_entry(name, UnreadableArchive.slug, detail)


def _list_zip(path: str) -> Iterator[Entry]:
    with open(path, "rb") as archive:
        for name, info in list_files(archive):
            if has_photo_name(name.rpartition("/")[2]):
                yield Entry(os.fsencode(f"{path}/{name}"), ZIP, os.fsencode(path), _place_of(info))


def _place_of(info: zipfile.ZipInfo) -> tuple[int, ...]:
    return (
        info.header_offset,
        info.compress_size,
        info.file_size,
        info.compress_type,
        info.CRC,
        info.flag_bits,
        info.create_system,
        info.external_attr,
    )


def read_packed(entry: Entry) -> bytes | Problem:
    """Read a photo from its archive, or return why it cannot be read; raises FileProblem if the archive is gone."""
    size = entry.place[1] if entry.kind == TAR else max(entry.place[1:3])
    if size > MAX_FILE_BYTES:
        return TooLarge(f"The photo has {size:,} bytes; {MAX_FILE_BYTES:,} are allowed.")
    try:
        with open(entry.archive, "rb", buffering=0) as archive:
            return (_read_from_tar if entry.kind == TAR else _read_from_zip)(archive.fileno(), entry)
    except OSError as error:
        raise FileProblem(f"The archive cannot be read: {error.strerror}.") from error
    except OverflowError:  # a place that no file has
        return UnreadableArchive("This entry is damaged or cut short. Pack it again.")


def _read_from_tar(descriptor: int, entry: Entry) -> bytes | Problem:
    start, size = entry.place
    data = _read_at(descriptor, size, start)
    return data if len(data) == size else UnreadableArchive("The archive has become shorter since it was listed.")


def _read_from_zip(descriptor: int, entry: Entry) -> bytes | Problem:
    info = zipfile.ZipInfo()
    start, info.compress_size, info.file_size, info.compress_type, info.CRC, *rest = entry.place
    info.flag_bits, info.create_system, info.external_attr = rest
    info.header_offset = 0
    header = _read_at(descriptor, LOCAL_HEADER_BYTES, start)
    lengths = sum(LENGTHS.unpack_from(header, LENGTHS_START)) if len(header) == LOCAL_HEADER_BYTES else 0
    block = _read_at(descriptor, LOCAL_HEADER_BYTES + lengths + info.compress_size, start)
    return read_entry(memoryview(block), info, MAX_FILE_BYTES)


def _read_at(descriptor: int, size: int, place: int) -> bytes:
    """Read up to `size` bytes at a place: fewer only at the end of the file."""
    data = bytearray()
    while len(data) < size and (more := os.pread(descriptor, size - len(data), place + len(data))):
        data += more
    return bytes(data)


def is_regular(path: str) -> bool:
    """Return whether a path is that of a regular file; raises OSError."""
    return stat.S_ISREG(os.stat(path).st_mode)
