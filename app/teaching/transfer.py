"""A project as one file: written as a copy, and opened again, also if it comes from somebody else.

A file that comes from elsewhere is never used as it is. It is opened for reading alone, in SQLite's mode for hostile
files; its tables must be, letter for letter, those that we make; and its rows are checked one by one and copied into a
new file.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import BadProjectFile, BadRequest, ProjectFull
from . import database
from .contents import MAX_CLASSES, MAX_FILE_NAME, MAX_PHOTOS, checked_label, checked_translation
from .database import APPLICATION_ID, FORMAT, NONE
from .projects import LEAVING, Projects

MAX_THUMBNAIL_BYTES = 64 * 1024
MAX_CHANNELS = 8192
_JPEG = b"\xff\xd8\xff"
_HEADER = b"SQLite format 3\0"
# A damaged file may lead SQLite in circles.
_MAX_SECONDS = 60.0
_STEPS_BETWEEN_LOOKS = 100_000
_DAMAGED = "The file is damaged, or is not a project of topthree."


def export(projects: Projects, name: str) -> tuple[BinaryIO, int]:
    """Return an open copy of a project's newest state, which has no name in any folder, and its size."""
    path = projects.path(name)
    with projects.locked(), tempfile.TemporaryDirectory(prefix=LEAVING, dir=projects.root) as folder:
        copy = Path(folder) / "project.sqlite"
        with database.reading(path) as connection:
            connection.execute("COMMIT")  # VACUUM begins a transaction of its own
            connection.execute("VACUUM INTO ?", (str(copy),))
        return copy.open("rb"), copy.stat().st_size


def adopt(projects: Projects, name: str, data: bytes, *, max_photo_bytes: int) -> None:
    """Make a project of the bytes of a project's file.

    Raises BadProjectFile, NameTaken, BadRequest for a name, ProjectFull and ProjectsUnavailable.
    """
    if not data.startswith(_HEADER):
        raise BadProjectFile("The file is not a project of topthree.")
    if len(data) != _size_in_header(data):  # SQLite takes the end of a file that was cut short for zeros
        raise BadProjectFile(_DAMAGED)

    def fill(path: Path) -> None:
        with tempfile.NamedTemporaryFile(dir=path.parent) as sent:
            sent.write(data)
            sent.flush()
            with _opened(Path(sent.name)) as source:
                _require_our_tables(source)
                keeps = _keep_photos(source)
                database.create(path, keep_photos=keeps)
                with database.writing(path) as connection:
                    _copy(source, connection, max_photo_bytes if keeps else None)

    projects.create(name, fill, size=len(data))


def _size_in_header(data: bytes) -> int:
    """Return how many bytes a file of SQLite says it has: https://www.sqlite.org/fileformat2.html#the_database_header."""
    page_bytes = int.from_bytes(data[16:18]) or 1
    return (65_536 if page_bytes == 1 else page_bytes) * int.from_bytes(data[28:32])


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a hostile file: nothing of it is run, it cannot be written, and it has a time limit."""
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as source:
            source.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            until = time.monotonic() + _MAX_SECONDS
            source.set_progress_handler(lambda: time.monotonic() > until, _STEPS_BETWEEN_LOOKS)
            for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "query_only = ON"):
                source.execute(f"PRAGMA {pragma}").fetchall()
            yield source
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        raise BadProjectFile(_DAMAGED) from error


def _require_our_tables(source: sqlite3.Connection) -> None:
    """Raise BadProjectFile unless the file has exactly the tables of its format, and its pages are whole."""
    if source.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise BadProjectFile("The file is not a project of topthree.")
    found = database.format_of(source)
    if found > FORMAT:
        raise BadProjectFile(
            f"The project has format {found}, and this version of topthree reads up to format {FORMAT}: install a "
            "newer one."
        )
    if found < 1 or _tables(source) != _tables_of_format(found):
        raise BadProjectFile(_DAMAGED)
    if source.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
        raise BadProjectFile(_DAMAGED)


def _tables(connection: sqlite3.Connection) -> list[Any]:
    query = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name LIMIT 50"
    return connection.execute(query).fetchall()


def _tables_of_format(steps: int) -> list[Any]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as ours:
        database.build(ours, steps)
        return _tables(ours)


def _keep_photos(source: sqlite3.Connection) -> bool:
    rows = list(_select(source, "SELECT keep_photos FROM project LIMIT 2"))
    if len(rows) != 1:
        raise BadProjectFile(_DAMAGED)
    return bool(rows[0][0])


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, max_photo_bytes: int | None) -> None:
    """Copy all rows, each checked; photos get new numbers in their old order.

    The files of photos have up to `max_photo_bytes`; None leaves them out, since the project keeps none.
    """
    classes = _copy_classes(source, target)
    query = (
        "SELECT p.id, p.sha256, p.class, p.file, p.thumbnail, e.weights_sha256, e.vector, o.bytes FROM photos p "
        "JOIN embeddings e ON e.photo = p.id LEFT JOIN originals o ON o.photo = p.id ORDER BY p.id"
    )
    count, lengths = 0, dict[bytes, int]()
    try:
        for _, sha256, class_id, file, thumbnail, weights_sha256, vector, original in _select(source, query):
            count += 1
            if count > MAX_PHOTOS:
                raise ProjectFull(f"A project may have {MAX_PHOTOS:,} photos.")
            _check_photo(sha256, file, thumbnail, weights_sha256, vector)
            if max_photo_bytes is None:
                original = None
            else:
                _check_original(original, sha256, max_photo_bytes)
            if class_id not in classes or lengths.setdefault(weights_sha256, len(vector)) != len(vector):
                raise BadProjectFile(_DAMAGED)
            row = (sha256, classes[class_id], file[:MAX_FILE_NAME], thumbnail)
            insert = "INSERT INTO photos (sha256, class, file, thumbnail) VALUES (?, ?, ?, ?) RETURNING id"
            number = target.execute(insert, row).fetchone()[0]
            target.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (number, weights_sha256, vector))
            if original is not None:
                target.execute("INSERT INTO originals VALUES (?, ?)", (number, original))
    except sqlite3.IntegrityError as error:
        raise BadProjectFile(_DAMAGED) from error


def _select(source: sqlite3.Connection, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query; raises BadProjectFile where the file is damaged."""
    try:
        yield from source.execute(query, values)
    except sqlite3.Error as error:
        raise BadProjectFile(_DAMAGED) from error


def _copy_classes(source: sqlite3.Connection, target: sqlite3.Connection) -> dict[int, int]:
    """Copy the classes, and return the new number of each."""
    numbers = {}
    query = "SELECT id, label, label_zh FROM classes ORDER BY id LIMIT ?"
    rows = list(_select(source, query, MAX_CLASSES + 2))
    if len(rows) > MAX_CLASSES + 1:
        raise ProjectFull(f"A project may have {MAX_CLASSES:,} classes.")
    for number, label, label_zh in rows:
        if not (isinstance(label, str) and isinstance(label_zh, str)):
            raise BadProjectFile(_DAMAGED)
        if label == NONE:
            numbers[number] = target.execute("SELECT id FROM classes WHERE label = ?", (NONE,)).fetchone()[0]
            continue
        try:
            label, label_zh = checked_label(label), checked_translation(label_zh)
            numbers[number] = target.execute(
                "INSERT INTO classes (label, folded, label_zh) VALUES (?, ?, ?) RETURNING id",
                (label, label.casefold(), label_zh),
            ).fetchone()[0]
        except (BadRequest, sqlite3.IntegrityError) as error:
            raise BadProjectFile(_DAMAGED) from error
    return numbers


def _check_photo(sha256: object, file: object, thumbnail: object, weights_sha256: object, vector: object) -> None:
    is_sane = (
        isinstance(sha256, bytes)
        and isinstance(file, str)
        and isinstance(thumbnail, bytes)
        and isinstance(weights_sha256, bytes)
        and isinstance(vector, bytes)
        and len(sha256) == len(weights_sha256) == 32
        and thumbnail.startswith(_JPEG)
        and len(thumbnail) <= MAX_THUMBNAIL_BYTES
        and 0 < len(vector) <= 4 * MAX_CHANNELS
        and len(vector) % 4 == 0
        and np.isfinite(np.frombuffer(vector, "<f4")).all()
    )
    if not is_sane:
        raise BadProjectFile(_DAMAGED)


def _check_original(original: object, sha256: bytes, max_bytes: int) -> None:
    if original is None:
        return
    if not (isinstance(original, bytes) and len(original) <= max_bytes):
        raise BadProjectFile(_DAMAGED)
    if hashlib.sha256(original).digest() != sha256:
        raise BadProjectFile(_DAMAGED)
