"""The photos of all sources, one by one, and the bytes of each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from ..errors import BatchError, NoPhoto, Problem, TooLarge
from ..photos.folders import MAX_FILE_BYTES, FileProblem, read_file
from .entries import FILE, PROBLEM, Entry, entry_of
from .lists import is_list, read_list
from .packed import is_compressed_tar, is_regular, list_archive, read_packed
from .store import Store, is_address
from .walking import ARCHIVES, Inode, Walk, inode_of, is_pattern, match

# Threads that read photos; from a store they mostly wait.
READERS, STORE_READERS = 4, 16


def check_sources(sources: Sequence[str]) -> None:
    """Raise BatchError for a source that cannot be listed, before anything is."""
    for source in sources:
        if not is_address(source) and ("://" in source or "::" in source):
            raise BatchError("Of addresses, only s3://BUCKET/PREFIX can be read.")
        if is_address(source) and source.lower().endswith(ARCHIVES):
            raise BatchError("Archives in a store are not read; copy them to this machine first.")
        if is_compressed_tar(source):
            raise BatchError(f"{source} is compressed as a whole, so its photos cannot be read one by one: unpack it.")


def list_entries(sources: Sequence[str], store: Store, outputs: Iterable[str | os.PathLike[str]]) -> Iterator[Entry]:
    """Yield the photos of all sources; folders in `outputs` are left out.

    Raises BatchError if nothing was found, or a list or the store cannot be read.
    """
    skipped = frozenset(inode_of(path) for path in outputs if os.path.isdir(path))
    nothing_found = True
    for source in sources:
        for entry in _entries_of(source, store, skipped):
            nothing_found = False
            yield entry
    if nothing_found:
        raise BatchError(f"There is no photo in {', '.join(sources)}.")


def _entries_of(source: str, store: Store, skipped: frozenset[Inode]) -> Iterator[Entry]:
    if is_address(source):
        return store.list_photos(source)
    if os.path.isdir(source):
        return Walk(skipped).below(source)
    if is_list(source):
        return read_list(source)
    if is_pattern(source):
        return _with_archives_listed(match(source, skipped))
    return _with_archives_listed([entry_of(source)])


def _with_archives_listed(entries: Iterable[Entry]) -> Iterator[Entry]:
    for entry in entries:
        if entry.kind == FILE and entry.name.lower().endswith(ARCHIVES):
            yield from list_archive(entry.name)
        else:
            yield entry


def readers(*, from_store: bool) -> int:
    """Return how many threads read photos, any of which may be in a store if `from_store`."""
    return STORE_READERS if from_store else READERS


def read_entry(entry: Entry, store: Store) -> bytes | Problem | FileProblem:
    """Read a photo's bytes, at least one, or return why they cannot be read; raises what `Store.read` raises."""
    if entry.kind == PROBLEM:
        return FileProblem(entry.detail, entry.archive.decode("ascii"))
    try:
        found = _read(entry, store)
    except FileProblem as problem:
        return problem
    return NoPhoto("The file is empty.") if found == b"" else found


def _read(entry: Entry, store: Store) -> bytes | Problem:
    if entry.kind != FILE:
        return read_packed(entry)
    if is_address(entry.name):
        return store.read(entry.name)
    return _read_path(entry.name)


def _read_path(path: str) -> bytes | Problem:
    try:
        if not os.path.isdir(path) and not is_regular(path):
            raise FileProblem("This is a device or a pipe, and no file.")
        size = os.path.getsize(path)
    except (OSError, ValueError):  # reading it gives the reason
        size = 0
    if size > MAX_FILE_BYTES:
        return TooLarge(f"The photo has {size:,} bytes; {MAX_FILE_BYTES:,} are allowed.")
    try:
        return read_file(path)
    except ValueError as error:  # a list may name anything
        raise FileProblem("This is not the path of a file.") from error
