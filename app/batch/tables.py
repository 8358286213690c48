"""The parts of a batch as files: Parquet, NDJSON and CSV, written and read again."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from ..errors import BatchError
from ..measuring.spreadsheets import plain, write_rows
from .rows import DETAIL, EMBEDDING, ERROR, NUMBER, PATH, TEXT, VECTOR, WHOLE, Row

PARQUET, NDJSON, CSV = "parquet", "ndjson", "csv"
FORMATS = (PARQUET, NDJSON, CSV)
# The key of the run's fingerprint in the metadata of a Parquet file.
_KEY = b"topthree"
_GROUP_ROWS = 10_000


def import_pyarrow(purpose: str) -> Any:
    """Import pyarrow with its modules for Parquet; raises BatchError if it is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise BatchError(f"{purpose} needs pyarrow: pip install 'topthree[batch]'")
    importlib.import_module("pyarrow.parquet")
    return importlib.import_module("pyarrow")


def check_format(name: str, *, embeddings: bool) -> None:
    """Raise BatchError if a format cannot be written here."""
    if name == PARQUET:
        import_pyarrow("--format parquet, the default,")
    if name == CSV and embeddings:
        raise BatchError("A CSV has no column for --embeddings: choose --format parquet or ndjson.")


def write_table(file: IO[bytes], name: str, kinds: Mapping[str, str], rows: Iterable[Row], fingerprint: str) -> None:
    """Write rows in the format of this name; a missing value is null, or an empty cell of CSV."""
    WRITERS[name](file, kinds, rows, fingerprint)


def read_table(path: Path, name: str, columns: Sequence[str] = (), fingerprint: str = "") -> Iterator[Row]:
    """Yield the rows of a file that `write_table` wrote, or only some of their columns.

    Raises BatchError if the file is damaged, or is a Parquet file of a run with another fingerprint.
    """
    try:
        if name == PARQUET and fingerprint:
            _check_fingerprint(path, fingerprint)
        for row in READERS[name](path, columns):
            if any(not isinstance(row.get(each), str | None) for each in (PATH, ERROR, DETAIL)):
                raise ValueError
            yield row
    except (OSError, ValueError, KeyError, msgspec.DecodeError, csv.Error) as error:
        raise BatchError(f"{path} cannot be read; move it away, and its photos are classified again.") from error


def arrow_schema(kinds: Mapping[str, str], number: Any, metadata: Mapping[bytes, bytes] | None = None) -> Any:
    """Return the Arrow schema of columns of these kinds; `number` is the Arrow type of the kind NUMBER."""
    arrow = import_pyarrow("Parquet")
    types = {TEXT: arrow.string(), WHOLE: arrow.int32(), NUMBER: number, VECTOR: arrow.list_(arrow.float16())}
    return arrow.schema([(name, types[kind]) for name, kind in kinds.items()], metadata)


def _write_parquet(file: IO[bytes], kinds: Mapping[str, str], rows: Iterable[Row], fingerprint: str) -> None:
    arrow = import_pyarrow("Parquet")
    schema = arrow_schema(kinds, arrow.float32(), {_KEY: fingerprint.encode()})
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        group: list[Row] = []
        for row in rows:
            group.append(row)
            if len(group) == _GROUP_ROWS:
                writer.write_table(arrow.Table.from_pylist(group, schema))
                group = []
        writer.write_table(arrow.Table.from_pylist(group, schema))


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    arrow = import_pyarrow(path.name)
    with arrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=list(columns) or None):
            for row in batch.to_pylist():
                if row.get(EMBEDDING) is not None:
                    row[EMBEDDING] = np.asarray(row[EMBEDDING], np.float16)
                yield row


def _check_fingerprint(path: Path, fingerprint: str) -> None:
    with import_pyarrow(path.name).parquet.ParquetFile(path) as file:
        if (file.schema_arrow.metadata or {}).get(_KEY) != fingerprint.encode():
            raise BatchError(f"{path} is of another run; move it away, and its photos are classified again.")


def _write_ndjson(file: IO[bytes], kinds: Mapping[str, str], rows: Iterable[Row], fingerprint: str) -> None:
    encoder = msgspec.json.Encoder(enc_hook=lambda vector: vector.tolist())
    for row in rows:
        file.write(encoder.encode({name: row.get(name) for name in kinds}) + b"\n")


def _read_ndjson(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    with path.open("rb") as file:
        for line in file:
            row = decoder.decode(line)
            yield {name: row[name] for name in columns} if columns else row


def _write_csv(file: IO[bytes], kinds: Mapping[str, str], rows: Iterable[Row], fingerprint: str) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    write_rows(text, [list(kinds)])
    write_rows(text, ([row.get(name) for name in kinds] for row in rows))
    text.detach()  # which flushes, and leaves the file open


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            if None in row or None in row.values():  # more or fewer cells than columns
                raise ValueError
            values = {name: plain(value) if value else None for name, value in row.items()}
            yield {name: values[name] for name in columns} if columns else values


WRITERS: dict[str, Callable[[IO[bytes], Mapping[str, str], Iterable[Row], str], None]] = {
    PARQUET: _write_parquet,
    NDJSON: _write_ndjson,
    CSV: _write_csv,
}
READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    PARQUET: _read_parquet,
    NDJSON: _read_ndjson,
    CSV: _read_csv,
}
