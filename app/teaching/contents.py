"""What a project holds: classes and photos, read and changed through a connection of `database`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import BadRequest, NameTaken, NotFound, ProjectFull
from ..model.heads import Floats
from ..model.labels import name_fault, tidy_name
from .database import NONE

MAX_PHOTOS = 20_000
MAX_CLASSES = 1_000
MAX_FILE_NAME = 200
# The names of the class of photos that show none of the others, as a published head has them.
NONE_LABEL, NONE_LABEL_ZH = "none of these", "以上都不是"
_RESERVED = (NONE.casefold(), NONE_LABEL.casefold())


@dataclass(frozen=True)
class ClassRow:
    """A class: its number in the file, its names, and how many photos it has."""

    id: int
    label: str
    label_zh: str
    photos: int


@dataclass(frozen=True)
class Facts:
    """What is known of a project as a whole; times are UTC, as ISO 8601 writes them.

    `published` is the version that was published last, 0 for no version.
    """

    keep_photos: bool
    revision: int
    published: int
    created: str
    changed: str


@dataclass(frozen=True)
class NewPhoto:
    """A photo to add: its file's digest and name, a small JPEG, its embedding, and its bytes if they are kept."""

    sha256: bytes
    file: str
    thumbnail: bytes
    vector: Floats
    original: bytes | None

    @property
    def size(self) -> int:
        """Return about how many bytes the photo takes on disk."""
        return len(self.thumbnail) + self.vector.nbytes + len(self.original or b"") + 512


def read_facts(connection: sqlite3.Connection) -> Facts:
    """Return what is known of the project."""
    query = "SELECT keep_photos, revision, published, created, changed FROM project"
    keep_photos, *others = connection.execute(query).fetchone()
    return Facts(bool(keep_photos), *others)


def read_classes(connection: sqlite3.Connection) -> list[ClassRow]:
    """Return all classes in the order in which they were made; `~none` comes last."""
    query = (
        "SELECT c.id, c.label, c.label_zh, count(p.id) FROM classes c LEFT JOIN photos p ON p.class = c.id "
        "GROUP BY c.id ORDER BY c.label = ?, c.id"
    )
    return [ClassRow(*row) for row in connection.execute(query, (NONE,))]


def find_class(connection: sqlite3.Connection, label: str) -> int:
    """Return the number of a class; raises NotFound."""
    row = connection.execute("SELECT id FROM classes WHERE label = ?", (tidy_name(label),)).fetchone()
    if row is None:
        raise NotFound(f"The project has no class named '{label[:64]}'.")
    return int(row[0])


def checked_label(label: str) -> str:
    """Return the name of a class in its one form; raises BadRequest for a name that a class cannot have."""
    label = tidy_name(label)
    if not label:
        raise BadRequest("The name of a class is empty.")
    if (fault := name_fault(label)) is not None:
        raise BadRequest(fault)
    if label.casefold() in _RESERVED:
        raise BadRequest(f"The name '{label}' belongs to the photos that show none of the classes.")
    return label


def checked_translation(label_zh: str) -> str:
    """Return the Chinese name of a class in its one form; raises BadRequest as `checked_label` does."""
    label_zh = tidy_name(label_zh)
    if (fault := name_fault(label_zh)) is not None:
        raise BadRequest(fault)
    return label_zh


def add_class(connection: sqlite3.Connection, label: str, label_zh: str = "") -> None:
    """Add a class; raises BadRequest, NameTaken and ProjectFull."""
    label, label_zh = checked_label(label), checked_translation(label_zh)
    _refuse_twin(connection, label, 0)
    if connection.execute("SELECT count(*) FROM classes").fetchone()[0] > MAX_CLASSES:
        raise ProjectFull(f"A project may have {MAX_CLASSES:,} classes.")
    connection.execute(
        "INSERT INTO classes (label, folded, label_zh) VALUES (?, ?, ?)", (label, label.casefold(), label_zh)
    )


def rename_class(connection: sqlite3.Connection, number: int, label: str | None, label_zh: str | None) -> None:
    """Change the names of a class, those that are given; raises BadRequest and NameTaken."""
    if label is not None:
        label = checked_label(label)
        _refuse_twin(connection, label, number)
        connection.execute("UPDATE classes SET label = ?, folded = ? WHERE id = ?", (label, label.casefold(), number))
    if label_zh is not None:
        label_zh = checked_translation(label_zh)
        connection.execute("UPDATE classes SET label_zh = ? WHERE id = ?", (label_zh, number))


def _refuse_twin(connection: sqlite3.Connection, label: str, but: int) -> None:
    query = "SELECT label FROM classes WHERE folded = ? AND id != ?"
    twin = connection.execute(query, (label.casefold(), but)).fetchone()
    if twin is not None:
        raise NameTaken(f"The project has a class named '{twin[0]}' already.")


def find_photos(connection: sqlite3.Connection, digests: Iterable[bytes]) -> dict[bytes, tuple[int, int]]:
    """Return the number and the class of each photo that the project has, by digest."""
    query = "SELECT id, class FROM photos WHERE sha256 = ?"
    rows = ((digest, connection.execute(query, (digest,)).fetchone()) for digest in digests)
    return {digest: (row[0], row[1]) for digest, row in rows if row is not None}


def count_photos(connection: sqlite3.Connection) -> int:
    """Return the number of all photos."""
    return int(connection.execute("SELECT count(*) FROM photos").fetchone()[0])


def insert_photo(connection: sqlite3.Connection, photo: NewPhoto, class_id: int, weights_sha256: bytes) -> int:
    """Add a photo and return its number; raises ProjectFull."""
    if count_photos(connection) >= MAX_PHOTOS:
        raise ProjectFull(f"A project may have {MAX_PHOTOS:,} photos.")
    number = connection.execute(
        "INSERT INTO photos (sha256, class, file, thumbnail) VALUES (?, ?, ?, ?) RETURNING id",
        (photo.sha256, class_id, photo.file[:MAX_FILE_NAME], photo.thumbnail),
    ).fetchone()[0]
    put_embedding(connection, number, photo.vector, weights_sha256)
    if photo.original is not None:
        connection.execute("INSERT INTO originals VALUES (?, ?)", (number, photo.original))
    return int(number)


def put_embedding(connection: sqlite3.Connection, photo: int, vector: Floats, weights_sha256: bytes) -> None:
    """Store the embedding of a photo in place of any other; if the photo is gone by now, nothing is stored."""
    connection.execute(
        "INSERT OR REPLACE INTO embeddings SELECT id, ?, ? FROM photos WHERE id = ?",
        (weights_sha256, vector.astype("<f4").tobytes(), photo),
    )


def read_vector(data: bytes) -> Floats:
    """Return an embedding as it is stored."""
    return np.frombuffer(data, "<f4").astype(np.float32)


def move_photos(connection: sqlite3.Connection, photos: Sequence[int], class_id: int) -> int:
    """Give photos another class, and return how many had a different one."""
    query = "UPDATE photos SET class = ? WHERE id = ? AND class != ?"
    return sum(connection.execute(query, (class_id, photo, class_id)).rowcount for photo in photos)


def delete_photos(connection: sqlite3.Connection, photos: Iterable[int]) -> None:
    """Delete photos with all that belongs to them."""
    connection.executemany("DELETE FROM photos WHERE id = ?", ((photo,) for photo in photos))
