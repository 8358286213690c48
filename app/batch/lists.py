"""Lists of paths in files: text, CSV and Parquet, read line by line."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import BatchError
from ..photos.folders import STANDARD_INPUT
from .entries import Entry, entry_of
from .store import check_address
from .tables import import_pyarrow

SUFFIXES = (".txt", ".csv", ".parquet")
# The columns that may hold the paths; the first one that a list has counts. 'topthree predict --csv' writes `file`.
COLUMNS = ("path", "file")
_BLOCK_BYTES = 2**16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def is_list(source: str) -> bool:
    """Return whether a source is a list of paths: standard input, or a file with the suffix of a list."""
    return source == STANDARD_INPUT or source.lower().endswith(SUFFIXES)


def read_list(source: str) -> Iterator[Entry]:
    """Yield the entries of a list; raises BatchError if it cannot be read, or an address in it cannot be used."""
    for entry in _read(source):
        check_address(entry.name)
        yield entry


def _read(source: str) -> Iterator[Entry]:
    try:
        if source == STANDARD_INPUT:
            if sys.stdin is None:
                raise BatchError("Standard input is closed.")
            yield from map(Entry, split_paths(sys.stdin.buffer))
        elif source.lower().endswith(".parquet"):
            yield from _read_parquet(source)
        elif source.lower().endswith(".csv"):
            yield from _read_csv(source)
        else:
            with open(source, "rb") as file:
                yield from map(Entry, split_paths(file))
    except (OSError, csv.Error, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise BatchError(f"The list {source} cannot be read: {reason.rstrip('.')}.") from error


def split_paths(file: BinaryIO) -> Iterator[bytes]:
    """Yield the paths of a text: one in each line, or between zero bytes if there are any ('find -print0').

    Empty lines are skipped, and so is the carriage return at the end of a line. A path is at most a few thousand
    bytes, so whether there are zero bytes shows in the first block.
    """
    rest = file.read(_BLOCK_BYTES).removeprefix(_BYTE_ORDER_MARK)
    end = b"\0" if b"\0" in rest else b"\n"
    block = rest
    rest = b""
    while block:
        *lines, rest = (rest + block).split(end)
        if len(rest) > _BLOCK_BYTES:
            raise ValueError("it has a line that is no path")
        yield from filter(None, (line if end == b"\0" else line.rstrip(b"\r") for line in lines))
        block = file.read(_BLOCK_BYTES)
    if rest:
        yield rest if end == b"\0" else rest.rstrip(b"\r")


def _read_csv(source: str) -> Iterator[Entry]:
    with open(source, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        column = _column_of(next(rows, []), source)
        for row in rows:
            if len(row) > column and row[column]:
                yield entry_of(row[column])


def _read_parquet(source: str) -> Iterator[Entry]:
    arrow = import_pyarrow("A list in Parquet")
    with arrow.parquet.ParquetFile(source) as file:
        names = file.schema_arrow.names
        column = names[_column_of(names, source)]
        for batch in file.iter_batches(columns=[column]):
            for path in batch.column(0).to_pylist():
                if isinstance(path, str | bytes):
                    if path:
                        yield Entry(os.fsencode(path))
                elif path is not None:
                    raise ValueError(f"its column {column!r} holds no text")


def _column_of(names: list[str], source: str) -> int:
    found = next((names.index(name) for name in COLUMNS if name in names), None)
    if found is None:
        raise BatchError(f"The list {source} has no column {' or '.join(map(repr, COLUMNS))}.")
    return found
