"""A project's state in memory, as the solver needs it; a new one takes over what has not changed."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..model import Model
from ..model.heads import Floats, of_length_one
from .contents import ClassRow, Facts, read_classes, read_facts, read_vector

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The photos of one revision that have an embedding of the backbone, in the order in which they were added.

    `rows` (photos, channels) are of length 1. `groups` has the number of the first photo of each photo's
    near-duplicates, 0 if that was not looked up yet. `stale` counts the photos whose embedding is of another backbone.
    """

    facts: Facts
    classes: list[ClassRow]
    ids: Ids
    sha256: list[bytes]
    class_ids: Ids
    groups: Ids
    rows: Floats = field(repr=False)
    stale: int

    @property
    def is_grouped(self) -> bool:
        """Return whether the near-duplicates of every photo were looked up."""
        return bool((self.groups > 0).all())


@dataclass(frozen=True)
class Kind:
    """What makes embeddings comparable: the digest of the backbone's weights, and their length.

    A project's file from elsewhere may hold embeddings of any length, which are none of this backbone's.
    """

    weights_sha256: str
    channels: int

    @classmethod
    def of(cls, backbone: Model) -> Kind:
        """Return the kind of a backbone's embeddings; a black picture shows their length."""
        side = backbone.weights.record.geometry.crop
        black = np.zeros((1, side, side, 3), np.uint8)
        return cls(backbone.weights.sha256, backbone.engine.infer(black).embeddings.shape[1])

    @property
    def values(self) -> tuple[bytes, int]:
        """Return the digest and the bytes of an embedding, as the tables have them."""
        return bytes.fromhex(self.weights_sha256), 4 * self.channels


def take(connection: sqlite3.Connection, kind: Kind, before: Snapshot | None) -> Snapshot:
    """Return the state that a connection sees; embeddings that `before` has are not read again."""
    query = (
        "SELECT p.id, p.sha256, p.class, coalesce(p.first, 0) FROM photos p JOIN embeddings e ON e.photo = p.id "
        "WHERE e.weights_sha256 = ? AND length(e.vector) = ? ORDER BY p.id"
    )
    found = connection.execute(query, kind.values).fetchall()
    numbers = np.array([(row[0], row[2], row[3]) for row in found], np.int64).reshape(-1, 3)
    photos = connection.execute("SELECT count(*) FROM photos").fetchone()[0]
    return Snapshot(
        facts=read_facts(connection),
        classes=read_classes(connection),
        ids=numbers[:, 0],
        sha256=[row[1] for row in found],
        class_ids=numbers[:, 1],
        groups=numbers[:, 2],
        rows=_rows(connection, numbers[:, 0], before),
        stale=photos - len(found),
    )


def _rows(connection: sqlite3.Connection, ids: Ids, before: Snapshot | None) -> Floats:
    """Return the embeddings of photos: numbers are never given twice, so a known number is the same photo."""
    known = before.ids if before is not None else np.zeros(0, np.int64)
    is_known = np.isin(ids, known)
    if before is not None and len(ids) == len(known) and is_known.all():
        return before.rows
    query = "SELECT vector FROM embeddings WHERE photo = ?"
    new = [read_vector(connection.execute(query, (int(number),)).fetchone()[0]) for number in ids[~is_known]]
    channels = len(new[0]) if new else before.rows.shape[1] if before is not None else 0
    rows = np.empty((len(ids), channels), np.float32)
    if before is not None and is_known.any():
        rows[is_known] = before.rows[np.searchsorted(known, ids[is_known])]
    if new:
        rows[~is_known] = of_length_one(np.stack(new))
    return rows
