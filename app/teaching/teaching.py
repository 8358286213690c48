"""`Teaching`: all that the routes of projects do, for one process; any thread may call its methods."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..classifier import Answer, Classifier
from ..errors import BadRequest, ModelUnavailable, NameTaken, NotFound, Problem
from ..model import Model
from ..model.engines import Engine
from ..model.labels import tidy_name
from ..model.own_format import OwnModel
from ..model.verdicts import Outputs
from ..photos.heatmaps import encode
from ..queueing.scheduling import Deadline, side_by_side
from . import contents, database
from .contents import NewPhoto
from .database import NONE
from .grouping import group_new, regroup
from .photos import Description, Listed, Taken, Upload, outcome
from .projects import Projects
from .snapshot import Kind, Snapshot, take
from .solving import Solved, solve

THUMBNAIL_SIDE = 96
# A large project takes 50 to 100 MB.
MAX_REMEMBERED = 4
# Embeddings that are computed again are kept in steps of this number of photos, up to this share of a request's time.
_RENEW_STEP = 32
_RENEW_SHARE = 0.5
# The digest of the first of a photo's near-duplicates, which may be its own; in queries where `p` is the photo.
_FIRST_OF_GROUP = "(SELECT o.sha256 FROM photos o WHERE o.first = p.first ORDER BY o.id LIMIT 1)"


@dataclass(eq=False)
class _Remembered:
    """What a process remembers of one file: its last state and head; the lock is held while they are renewed."""

    path: Path
    kind: Kind
    lock: threading.Lock = field(default_factory=threading.Lock)
    state: Snapshot | None = None
    solved: Solved | None = None
    renewed: int = 0  # the last photo whose embedding was computed again, or could not be

    def offer(self, state: Snapshot) -> None:
        """Remember a state that was committed, unless a newer one is remembered."""
        known = self.state
        if known is None or known.facts.revision < state.facts.revision or not known.is_grouped:
            self.state = state


class Teaching:
    """The projects of a service, and their heads on the classifier's backbone."""

    def __init__(self, projects: Projects, classifier: Classifier, *, max_pixels: int) -> None:
        self.projects = projects
        self._classifier = classifier
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._remembered: OrderedDict[Path, _Remembered] = OrderedDict()
        self._kind: tuple[Engine, Kind] | None = None

    # Projects

    def create(self, name: str, *, keep_photos: bool) -> bool:
        """Create a project, and return whether it is new; of an older one only `keep_photos` is changed."""
        if name not in self.projects.names():
            try:
                self.projects.create(name, lambda path: database.create(path, keep_photos=keep_photos))
                return True
            except NameTaken:
                if name not in self.projects.names():  # it is taken by a name that differs in case
                    raise
        self._set_keeping(name, keep_photos)
        return False

    def _set_keeping(self, name: str, keep_photos: bool) -> None:
        with database.writing(self.projects.path(name), erases=not keep_photos) as connection:
            if contents.read_facts(connection).keep_photos != keep_photos:
                connection.execute("UPDATE project SET keep_photos = ?", (keep_photos,))
                if not keep_photos:
                    connection.execute("DELETE FROM originals")
                database.note_change(connection)

    def delete(self, name: str) -> None:
        """Delete a project from the disk and from this process's memory."""
        path = self.projects.path(name)
        self.projects.delete(name)
        with self._lock:
            self._remembered.pop(path, None)

    def describe(self, name: str) -> Description:
        """Return what is known of a project."""
        path = self.projects.path(name)
        with database.reading(path) as connection:
            query = "SELECT count(*) FROM embeddings WHERE weights_sha256 = ? AND length(vector) = ?"
            fresh = connection.execute(query, self._kind_of_backbone().values).fetchone()[0]
            return Description(
                facts=contents.read_facts(connection),
                classes=contents.read_classes(connection),
                bytes=self.projects.bytes_of(name),
                stale=contents.count_photos(connection) - fresh,
                backbone=self._backbone().weights.record.name,
            )

    # Classes

    def put_class(self, name: str, label: str, new_label: str | None, label_zh: str | None) -> bool:
        """Make a class, or change its names, and return whether it is new."""
        with database.writing(self.projects.path(name)) as connection:
            try:
                number = contents.find_class(connection, label)
            except NotFound:
                contents.add_class(connection, label if new_label is None else new_label, label_zh or "")
                database.note_change(connection)
                return True
            if new_label is not None or label_zh is not None:
                _refuse_none(label)
                contents.rename_class(connection, number, new_label, label_zh)
                database.note_change(connection)
            return False

    def delete_class(self, name: str, label: str) -> None:
        """Delete a class with its photos."""
        _refuse_none(label)
        path = self.projects.path(name)
        held = self._remember(path)
        with database.writing(path, erases=True) as connection:
            number = contents.find_class(connection, label)
            photos = [row[0] for row in connection.execute("SELECT id FROM photos WHERE class = ?", (number,))]
            self._erase(connection, held, photos)
            connection.execute("DELETE FROM classes WHERE id = ?", (number,))
            database.note_change(connection)
        self._renew_state(held)

    # Photos

    def add(self, name: str, label: str, uploads: Sequence[Upload], deadline: Deadline) -> tuple[int, list[Taken]]:
        """Add photos to a class; return the project's revision and what became of each.

        A photo that cannot be used has its problem in its place; if the service could take no photo, that problem is
        raised. Raises NotFound for a class, and ProjectFull, after which nothing of this call is kept.
        """
        path = self.projects.path(name)
        held = self._remember(path)
        with database.reading(path) as connection:
            contents.find_class(connection, label)
            keep_photos = contents.read_facts(connection).keep_photos
        found = self._compute(uploads, deadline, keep_photos=keep_photos)
        problems = [each for each in found if isinstance(each, Problem) and each.status >= 500]
        if problems and len(problems) == len(found):
            raise problems[0]
        photos = [each for each in found if isinstance(each, NewPhoto)]
        with self.projects.locked(), database.writing(path) as connection:
            self.projects.require_room(sum(photo.size for photo in photos))
            held.offer(take(connection, held.kind, held.state))
            class_id = contents.find_class(connection, label)
            if not contents.read_facts(connection).keep_photos:  # it may have been turned off since
                photos = [replace(photo, original=None) for photo in photos]
            labels = {row.id: row.label for row in contents.read_classes(connection)}
            before = [_put(connection, photo, class_id, held.kind.values[0]) for photo in photos]
            if None in before:
                group_new(connection, take(connection, held.kind, held.state))
            near = [_first_of_group(connection, photo.sha256) for photo in photos]
            is_changed = any(number != class_id for number in before)
            revision = database.note_change(connection) if is_changed else contents.read_facts(connection).revision
        taken = iter(
            outcome(photo, None if number is None else labels[number], first, labels[class_id])
            for photo, number, first in zip(photos, before, near, strict=True)
        )
        return revision, [
            Taken(upload.file, problem=each) if isinstance(each, Problem) else next(taken)
            for upload, each in zip(uploads, found, strict=True)
        ]

    def move(self, name: str, digests: Sequence[str], label: str) -> tuple[int, int]:
        """Give photos another class; return the project's revision and how many photos had a different one."""
        with database.writing(self.projects.path(name)) as connection:
            class_id = contents.find_class(connection, label)
            photos = [number for number, _ in contents.find_photos(connection, map(bytes.fromhex, digests)).values()]
            moved = contents.move_photos(connection, photos, class_id)
            revision = database.note_change(connection) if moved else contents.read_facts(connection).revision
            return revision, moved

    def remove(self, name: str, digests: Sequence[str]) -> tuple[int, int]:
        """Delete photos; return the project's revision and how many there were."""
        path = self.projects.path(name)
        held = self._remember(path)
        with database.writing(path, erases=True) as connection:
            photos = [number for number, _ in contents.find_photos(connection, map(bytes.fromhex, digests)).values()]
            self._erase(connection, held, photos)
            revision = database.note_change(connection) if photos else contents.read_facts(connection).revision
        self._renew_state(held)
        return revision, len(photos)

    def list_photos(self, name: str, label: str | None, offset: int, limit: int) -> tuple[int, int, list[Listed]]:
        """Return the project's revision, how many photos a class has, or all, and some of them, the newest first.

        Their probabilities are those of the head of this revision, if it was solved already.
        """
        path = self.projects.path(name)
        held = self._remember(path)
        with database.reading(path) as connection:
            revision = contents.read_facts(connection).revision
            chosen, values = "1", list[int]()
            if label is not None:
                chosen, values = "p.class = ?", [contents.find_class(connection, label)]
            total = connection.execute(f"SELECT count(*) FROM photos p WHERE {chosen}", values).fetchone()[0]
            query = (
                f"SELECT p.sha256, c.label, p.file, {_FIRST_OF_GROUP} FROM photos p JOIN classes c ON c.id = p.class "
                f"WHERE {chosen} ORDER BY p.id DESC LIMIT ? OFFSET ?"
            )
            rows = connection.execute(query, (*values, limit, offset)).fetchall()
        solved = held.solved
        is_fresh = solved is not None and solved.state.facts.revision == revision
        probabilities = solved.probabilities() if solved is not None and is_fresh else {}
        photos = [
            Listed(digest.hex(), label_of, file, _other(first, digest), probabilities.get(digest.hex()))
            for digest, label_of, file, first in rows
        ]
        return revision, total, photos

    def thumbnail(self, name: str, digest: str) -> bytes:
        """Return the small JPEG of a photo; raises NotFound."""
        with database.reading(self.projects.path(name)) as connection:
            query = "SELECT thumbnail FROM photos WHERE sha256 = ?"
            row = connection.execute(query, (bytes.fromhex(digest),)).fetchone()
        if row is None:
            raise NotFound("The project has no photo with this digest.")
        return bytes(row[0])

    # The head

    def solve(self, name: str, deadline: Deadline) -> Solved:
        """Return the head of the project's newest revision, solving it first if necessary."""
        path = self.projects.path(name)
        held = self._remember(path)
        with held.lock:  # those that wait share the result
            self._renew_embeddings(held, deadline)
            state = self._renew_state(held)
            if held.solved is None or held.solved.state is not state:
                held.solved = solve(state)
            return held.solved

    def revision(self, name: str) -> int:
        """Return the project's newest revision."""
        with database.reading(self.projects.path(name)) as connection:
            return contents.read_facts(connection).revision

    def model(self, name: str, deadline: Deadline) -> Model:
        """Return the project's newest head as a model that answers; raises NotTaught."""
        return self.solve(name, deadline).model(name, self._backbone())

    def own_model(self, name: str, deadline: Deadline) -> OwnModel:
        """Return the project's newest head as a model of one's own that can be published; raises NotTaught."""
        return self.solve(name, deadline).own_model(name, self._backbone())

    # Inside

    def _backbone(self) -> Model:
        return self._classifier.load_model()

    def _kind_of_backbone(self) -> Kind:
        backbone, known = self._backbone(), self._kind
        if known is None or known[0] is not backbone.engine:
            self._kind = known = backbone.engine, Kind.of(backbone)
        return known[1]

    def _remember(self, path: Path) -> _Remembered:
        """Return what is remembered of a file; what is deleted, and what was not used for longest, is forgotten."""
        kind = self._kind_of_backbone()
        with self._lock:
            for gone in [each for each in self._remembered if not each.exists()]:
                del self._remembered[gone]
            held = self._remembered.pop(path, None)
            if held is None or held.kind != kind:
                held = _Remembered(path, kind)
            self._remembered[path] = held
            while len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return held

    def _renew_state(self, held: _Remembered) -> Snapshot:
        """Return the newest state; the same object if nothing has changed."""
        with database.reading(held.path) as connection:
            before = held.state
            if before is not None and contents.read_facts(connection).revision == before.facts.revision:
                state = before
            else:
                state = take(connection, held.kind, before)
        while not state.is_grouped:
            with database.writing(held.path) as connection:
                group_new(connection, take(connection, held.kind, state))
            with database.reading(held.path) as connection:
                state = take(connection, held.kind, state)
        held.offer(state)
        return state

    def _erase(self, connection: sqlite3.Connection, held: _Remembered, photos: Sequence[int]) -> None:
        """Delete photos, and divide the groups of near-duplicates that they have held together."""
        query = "SELECT first FROM photos WHERE id = ? AND first IS NOT NULL"
        rows = [connection.execute(query, (photo,)).fetchone() for photo in photos]
        groups = {row[0] for row in rows if row is not None}
        contents.delete_photos(connection, photos)
        left = "SELECT 1 FROM photos WHERE first = ? LIMIT 1"
        groups = {group for group in groups if connection.execute(left, (group,)).fetchone()}
        if groups:
            regroup(connection, take(connection, held.kind, held.state), groups)

    def _compute(
        self, uploads: Sequence[Upload], deadline: Deadline, *, keep_photos: bool
    ) -> list[NewPhoto | Problem]:
        """Return each upload as a photo to add, or its problem, in their order."""

        def work(upload: Upload) -> NewPhoto:
            if isinstance(upload.photo, Problem):
                raise upload.photo
            answer = self._embed(upload.photo, deadline)
            assert answer.embedding is not None
            assert answer.thumbnail is not None
            digest = bytes.fromhex(answer.image["sha256"])
            thumbnail = encode(answer.thumbnail, "JPEG")
            return NewPhoto(digest, upload.file, thumbnail, answer.embedding, upload.photo if keep_photos else None)

        found: list[NewPhoto | Problem] = [ModelUnavailable("The photo was not computed.")] * len(uploads)
        for place, future in side_by_side(work, uploads, self._classifier.max_parallel):
            error = future.exception()
            if isinstance(error, Problem):
                found[place] = error
            else:
                found[place] = future.result()  # raises what is not a problem of this photo
        return found

    def _embed(self, data: bytes, deadline: Deadline) -> Answer:
        outputs = Outputs(top=1, embedding=True, thumbnail_side=THUMBNAIL_SIDE)
        return self._classifier.classify(data, outputs, max_pixels=self._max_pixels, deadline=deadline)

    def _renew_embeddings(self, held: _Remembered, deadline: Deadline) -> None:
        """Compute the embeddings that are of another backbone again, for photos that are kept, as long as time allows.

        What is not done is done by later calls; a photo that cannot be read any more is tried once.
        """
        query = (
            "SELECT o.photo, o.bytes FROM originals o LEFT JOIN embeddings e ON e.photo = o.photo "
            "AND e.weights_sha256 = ? AND length(e.vector) = ? "
            "WHERE e.photo IS NULL AND o.photo > ? ORDER BY o.photo LIMIT ?"
        )
        seconds = deadline.remaining_seconds
        until = time.monotonic() + (60.0 if seconds is None else seconds * _RENEW_SHARE)
        while time.monotonic() < until:
            with database.reading(held.path) as connection:
                rows = connection.execute(query, (*held.kind.values, held.renewed, _RENEW_STEP)).fetchall()
            if not rows:
                return
            results = self._compute([Upload("", data) for _, data in rows], deadline, keep_photos=False)
            found = {row[0]: each for row, each in zip(rows, results, strict=True) if isinstance(each, NewPhoto)}
            if found:
                with database.writing(held.path) as connection:
                    for photo, each in found.items():
                        contents.put_embedding(connection, photo, each.vector, held.kind.values[0])
                        connection.execute("UPDATE photos SET first = NULL WHERE id = ?", (photo,))
                    database.note_change(connection)
            if any(isinstance(each, Problem) and each.status >= 500 for each in results):
                return
            held.renewed = rows[-1][0]


def _refuse_none(label: str) -> None:
    if tidy_name(label) == NONE:
        raise BadRequest("The class of photos that show none of the others cannot be renamed or deleted.")


def _put(connection: sqlite3.Connection, photo: NewPhoto, class_id: int, weights_sha256: bytes) -> int | None:
    """Add a photo, or give it the class, and return the class that it had before, None for a new photo."""
    known = contents.find_photos(connection, [photo.sha256]).get(photo.sha256)
    if known is None:
        contents.insert_photo(connection, photo, class_id, weights_sha256)
        return None
    contents.move_photos(connection, [known[0]], class_id)
    return known[1]


def _first_of_group(connection: sqlite3.Connection, sha256: bytes) -> str | None:
    """Return the digest of the first of a photo's near-duplicates, None if it is the first itself."""
    query = f"SELECT {_FIRST_OF_GROUP} FROM photos p WHERE p.sha256 = ?"
    return _other(connection.execute(query, (sha256,)).fetchone()[0], sha256)


def _other(first: bytes | None, sha256: bytes) -> str | None:
    return None if first is None or first == sha256 else first.hex()
