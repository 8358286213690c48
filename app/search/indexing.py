"""Adding photos to an index: each is read, decoded and computed once, and becomes a row, or a failure."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from ..classifier import Classifier
from ..errors import DeadlineExceeded, Overloaded, Problem, TopthreeError
from ..model import Model
from ..model.heads import Floats
from ..model.verdicts import Outputs
from ..photos.folders import FileProblem
from ..photos.heatmaps import encode
from ..queueing.scheduling import Counts, read_and_compute
from .hashes import perceptual_hash
from .library import Row
from .writer import Failure, Writer

# The longest side of a thumbnail in pixels; the perceptual hash is that of the thumbnail.
THUMBNAIL_SIDE = 96
# A commit comes after this number of photos or seconds; a job that is killed loses the photos since the last one.
COMMIT_PHOTOS = 1024
COMMIT_SECONDS = 10.0
# Problems of the machine at that moment; the next job tries such a photo again without being asked.
_NOT_THE_PHOTO = (Overloaded.slug, DeadlineExceeded.slug)
_OUTPUTS = Outputs(top=1, thumbnail_side=THUMBNAIL_SIDE, embedding=True)


@dataclass(frozen=True)
class Source:
    """A photo to add: its path in the index, and how to read its bytes, at least one, or the problem with them."""

    path: str
    read: Callable[[], bytes | Problem | FileProblem]


@dataclass(frozen=True)
class Indexed:
    """A photo that was computed, as it is added to an index."""

    row: Row
    vector: Floats
    hash: int
    thumbnail: bytes


class Indexer:
    """One job that adds photos to an index; `note` is called whenever the progress has changed."""

    def __init__(self, classifier: Classifier, model: Model, writer: Writer, *, max_pixels: int) -> None:
        self.progress = Counts()
        self.note: Callable[[Counts], None] = lambda progress: None
        self._classifier = classifier
        self._model = model
        self._writer = writer
        self._max_pixels = max_pixels

    def run(self, photos: Iterable[Source], *, readers: int, retry_failed: bool = False) -> None:
        """Add the photos that are not in the index; those that failed are tried again only if `retry_failed`.

        Photos that were computed stay in the index if the job is stopped, unless the disk is full; the progress then
        leaves them out. Raises BatchStopped if the disk is full or the store fails, and ModelUnavailable.
        """
        computing = read_and_compute(
            lambda photo: (photo.path, photo.read()),
            self._compute,
            self._missing(photos, retry_failed),
            readers=readers,
            computers=self._classifier.threads_of_job,
        )
        try:
            self._add(computing)
        finally:
            self.progress.done -= self._writer.pending

    def _add(self, computing: Generator[Indexed | Failure]) -> None:
        """Add what was computed, with a commit now and then, at the end, and when the job is stopped."""
        committed = time.monotonic()
        try:
            with closing(computing):
                for found in computing:
                    self._take(found)
                    now = time.monotonic()
                    if self._writer.pending >= COMMIT_PHOTOS or now - committed >= COMMIT_SECONDS:
                        self._writer.commit()
                        committed = now
        except (KeyboardInterrupt, TopthreeError):
            self._writer.commit()
            raise
        self._writer.commit(at_end=True)

    def _missing(self, photos: Iterable[Source], retry_failed: bool) -> Iterator[Source]:
        """Yield the photos to compute, each path once."""
        writer = self._writer
        failed_before = {path for path, slug in writer.failed.items() if slug not in _NOT_THE_PHOTO}
        begun: set[str] = set()
        for photo in photos:
            if photo.path in writer.paths or photo.path in begun or (photo.path in failed_before and not retry_failed):
                self.progress.done += 1
                self.progress.failed += photo.path in failed_before and photo.path not in writer.paths
                continue
            begun.add(photo.path)
            yield photo

    def _compute(self, item: tuple[str, bytes | Problem | FileProblem]) -> Indexed | Failure:
        path, content = item
        if not isinstance(content, bytes):
            return _failure(path, content)
        answer = self._classifier.classify_or_explain(
            content, _OUTPUTS, max_pixels=self._max_pixels, models=[self._model]
        )
        if isinstance(answer, Problem):
            return _failure(path, answer, content)
        assert answer.thumbnail is not None
        assert answer.embedding is not None
        image = answer.image
        row = Row(path, image["sha256"], image["width"], image["height"], image["format"], len(content))
        return Indexed(row, answer.embedding, perceptual_hash(answer.thumbnail), encode(answer.thumbnail, "JPEG"))

    def _take(self, found: Indexed | Failure) -> None:
        if isinstance(found, Failure):
            self._writer.fail(found)
            self.progress.failed += 1
        else:
            self._writer.add(found.row, found.vector, found.hash, found.thumbnail)
        self.progress.done += 1
        self.progress.computed += 1
        self.note(self.progress)


def _failure(path: str, problem: Problem | FileProblem, content: bytes | None = None) -> Failure:
    digest = hashlib.sha256(content).hexdigest() if content else None
    return Failure(path, digest, problem.slug, str(problem))
