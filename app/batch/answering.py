"""`Answering`: photos become rows, in this process."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ..classifier import Classifier
from ..errors import Problem
from ..model import Model
from ..model.verdicts import Outputs
from ..photos.folders import FileProblem
from ..queueing.scheduling import read_and_compute
from .entries import Entry, shown
from .listing import read_entry, readers
from .pictures import THUMBNAIL_SIDE, save_heatmap
from .rows import Columns, Row, answer_row, problem_row
from .store import Store

Key = TypeVar("Key")


@dataclass(frozen=True)
class Options:
    """The options of a job: columns, folder for heat maps, whether to try failed photos again, and its slice.

    The job works on the shards that are `number` modulo `jobs`.
    """

    columns: Columns
    max_pixels: int
    heatmaps: Path | None = None
    retry_failed: bool = False
    number: int = 0
    jobs: int = 1

    def outputs(self) -> Outputs:
        """Return the results to compute for each photo."""
        is_drawn = self.heatmaps is not None
        return Outputs(
            top=self.columns.top,
            heatmap=is_drawn,
            thumbnail_side=THUMBNAIL_SIDE if is_drawn else 0,
            embedding=self.columns.embeddings,
        )


class Answers(Protocol):
    """Where photos become rows: in this process, or in those of a cluster."""

    def rows(self, items: Iterable[tuple[Key, Entry]], *, from_store: bool) -> Generator[tuple[Key, Row]]:
        """Yield the row of each photo with its key, in any order.

        `from_store` says whether any of them is in a store. Raises BatchStopped if it cannot go on, and
        ModelUnavailable.
        """


class Answering:
    """Photos are read ahead by a few threads, and decoded and computed by the classifier."""

    def __init__(self, classifier: Classifier, models: Sequence[Model], options: Options, store: Store) -> None:
        self._classifier = classifier
        self._models = models
        self._options = options
        self._outputs = options.outputs()
        self._store = store

    def rows(self, items: Iterable[tuple[Key, Entry]], *, from_store: bool) -> Generator[tuple[Key, Row]]:
        """Yield the row of each photo with its key, in the order of the photos; see `Answers`."""
        yield from read_and_compute(
            self._read,
            self._classify,
            items,
            readers=readers(from_store=from_store),
            computers=self._classifier.threads_of_job,
        )

    def _read(self, item: tuple[Key, Entry]) -> tuple[Key, str, bytes | Problem | FileProblem]:
        key, entry = item
        return key, shown(entry.path), read_entry(entry, self._store)

    def _classify(self, photo: tuple[Key, str, bytes | Problem | FileProblem]) -> tuple[Key, Row]:
        key, name, content = photo
        return key, self._answer(name, content) if isinstance(content, bytes) else problem_row(name, content)

    def _answer(self, name: str, content: bytes) -> Row:
        answer = self._classifier.classify_or_explain(
            content, self._outputs, max_pixels=self._options.max_pixels, models=self._models
        )
        if isinstance(answer, Problem):
            return problem_row(name, answer, content)
        if self._options.heatmaps is not None:
            save_heatmap(self._options.heatmaps, answer)
        return answer_row(name, answer)
