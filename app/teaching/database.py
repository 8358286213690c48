"""One project as a SQLite file: its tables in steps, connections, and transactions.

Several processes and threads use a file at once: each opens a connection for a moment, SQLite lets one write at a
time, and the revision in the file says what has changed. What is deleted is overwritten with zeros.
"""

from __future__ import annotations

import datetime
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ..errors import Overloaded, ProjectFull, ProjectsUnavailable, UnknownProject
from ..model.room import is_full

log = logging.getLogger(__name__)

APPLICATION_ID = int.from_bytes(b"top3")
# The class of photos that show none of the other classes; each project has it from the beginning.
NONE = "~none"
BUSY_SECONDS = 10.0
_BUSY_AGAIN_SECONDS = 1
# What the connections to one file share in memory lies in a file of this size, while there are any.
_SHARED_BYTES = 32 * 1024
# Of each connection. A commit is on the disk before it is answered.
PRAGMAS = ("trusted_schema = OFF", "foreign_keys = ON", "secure_delete = ON", "synchronous = FULL")

# A new file gets all steps, an older one those that it lacks; `user_version` counts the steps that a file has.
STEPS = (
    f"""
    CREATE TABLE project (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        keep_photos INTEGER NOT NULL DEFAULT 0,
        revision INTEGER NOT NULL DEFAULT 1,
        published INTEGER NOT NULL DEFAULT 0,
        created TEXT NOT NULL,
        changed TEXT NOT NULL
    ) STRICT;
    CREATE TABLE classes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        label TEXT NOT NULL UNIQUE,
        folded TEXT NOT NULL UNIQUE,
        label_zh TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE TABLE photos (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        sha256 BLOB NOT NULL UNIQUE,
        class INTEGER NOT NULL REFERENCES classes (id) ON DELETE CASCADE,
        file TEXT NOT NULL DEFAULT '',
        thumbnail BLOB NOT NULL
    ) STRICT;
    CREATE INDEX photos_of_class ON photos (class);
    CREATE TABLE embeddings (
        photo INTEGER PRIMARY KEY REFERENCES photos (id) ON DELETE CASCADE,
        weights_sha256 BLOB NOT NULL,
        vector BLOB NOT NULL
    ) STRICT;
    CREATE TABLE originals (
        photo INTEGER PRIMARY KEY REFERENCES photos (id) ON DELETE CASCADE,
        bytes BLOB NOT NULL
    ) STRICT;
    INSERT INTO classes (label, folded) VALUES ('{NONE}', '{NONE}');
    """,
    # The first of its near-duplicates; NULL if that was not looked up yet.
    """
    ALTER TABLE photos ADD COLUMN first INTEGER;
    CREATE INDEX photos_of_group ON photos (first);
    """,
)
FORMAT = len(STEPS)


def now() -> str:
    """Return the time as the files have it: UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def create(path: Path, *, keep_photos: bool) -> None:
    """Create the file of an empty project; raises ProjectFull or ProjectsUnavailable."""
    with _reporting(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        # So that a file shrinks after a deletion; it has to be said before the first table.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        build(connection)
        time = now()
        connection.execute(
            "INSERT INTO project (id, keep_photos, created, changed) VALUES (1, ?, ?, ?)", (keep_photos, time, time)
        )


def build(connection: sqlite3.Connection, steps: int = FORMAT) -> None:
    """Bring a file to the format after this number of steps, as a whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number in range(format_of(connection), steps):  # another process may have done it by now
            for statement in STEPS[number].split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def format_of(connection: sqlite3.Connection) -> int:
    """Return how many steps a file has."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection that sees one state of a project.

    Raises UnknownProject if its file is gone, ProjectsUnavailable if it cannot be used, and Overloaded.
    """
    with _open(path) as connection:
        connection.execute("BEGIN")
        yield connection


@contextmanager
def writing(path: Path, *, erases: bool = False) -> Iterator[sqlite3.Connection]:
    """Yield a connection that alone may write; what it has changed is kept as a whole at the end, or not at all.

    `erases` also removes what was deleted from the journal. Raises what `reading` raises, and ProjectFull.
    """
    with _open(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        if erases:
            _empty_journal(connection, path)
            # What was deleted is zeros by now: on a full disk, the file only stays as large as it was.
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA incremental_vacuum").fetchall()
            _empty_journal(connection, path)


def _empty_journal(connection: sqlite3.Connection, path: Path) -> None:
    is_busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if is_busy:
        log.warning("%s is being read: what was deleted stays in its journal until all readers are done.", path)


def note_change(connection: sqlite3.Connection) -> int:
    """Give a project its next revision, and return it."""
    query = "UPDATE project SET revision = revision + 1, changed = ? RETURNING revision"
    return int(connection.execute(query, (now(),)).fetchone()[0])


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    with _reporting(path):
        # It must exist: a project that was deleted elsewhere is not made again.
        address = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_SECONDS)) as connection:
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}").fetchall()
            _update(connection, path)
            yield connection


def _update(connection: sqlite3.Connection, path: Path) -> None:
    found = format_of(connection)
    if found > FORMAT:
        log.error("%s has format %d, and this version of topthree reads format %d.", path, found, FORMAT)
        raise ProjectsUnavailable("This project was written by a newer version of topthree.")
    if found < FORMAT:
        build(connection)


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite into problems, whose sentences name no file; the log has the whole reason."""
    try:
        yield
    except sqlite3.Error as error:
        raise _problem_of(error, path) from error


def _problem_of(error: sqlite3.Error, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return disk_full()
    if code == sqlite3.SQLITE_BUSY:
        return busy()
    if code == sqlite3.SQLITE_CANTOPEN and not path.exists():
        return UnknownProject("There is no project of this name any more.")
    # SQLite needs some room to read, too, and does not say that it lacks it.
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR) and is_full(path.parent, error, _SHARED_BYTES):
        return disk_full()
    log.error("%s cannot be used: %s.", path, error)
    return ProjectsUnavailable("The project cannot be read or written. The service's log has the reason.")


def busy() -> Overloaded:
    """Return the problem of a project, or of the folder of projects, that others use for too long."""
    return Overloaded("Others are changing the projects. Try again in 1 s.", _BUSY_AGAIN_SECONDS)


def disk_full() -> ProjectFull:
    """Return the problem of a disk without room."""
    return ProjectFull("The disk of the projects is full; nothing was changed.")
