"""`Answering`: photos become rows, in this process."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ..classifier import Classifier
from ..errors import BatchStopped, ModelUnavailable, Problem, TopthreeError
from ..model import Model
from ..model.verdicts import Outputs
from ..queueing.scheduling import in_order, side_by_side
from .entries import Entry, shown
from .listing import read_entry
from .pictures import THUMBNAIL_SIDE, save_heatmap
from .rows import DETAIL, Columns, Row, answer_row, problem_row
from .store import Store, StoreProblem

# Reading from a store is waiting for it.
READERS, STORE_READERS = 4, 16
# So many failures of the store one after the other are not those of single objects.
MAX_STORE_FAILURES = 20

Key = TypeVar("Key")


@dataclass(frozen=True)
class Options:
    """What to do: the columns, the folder for heat maps, whether to try failed photos again, and the slice.

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
        self._store_failures = 0
        self._lock = threading.Lock()

    def rows(self, items: Iterable[tuple[Key, Entry]], *, from_store: bool) -> Generator[tuple[Key, Row]]:
        """Yield the row of each photo with its key, in the order of the photos; see `Answers`."""
        # One more than there are slots waits for a slot, so that none is idle.
        threads = self._classifier.max_parallel + self._classifier.slots.count
        reading = side_by_side(self._read, items, STORE_READERS if from_store else READERS)
        with closing(reading), closing(side_by_side(self._classify, in_order(reading), threads)) as computing:
            yield from in_order(computing)

    def _read(self, item: tuple[Key, Entry]) -> tuple[Key, str, bytes | TopthreeError]:
        key, entry = item
        return key, shown(entry.path), read_entry(entry, self._store)

    def _classify(self, photo: tuple[Key, str, bytes | TopthreeError]) -> tuple[Key, Row]:
        key, name, content = photo
        if isinstance(content, TopthreeError):
            row = problem_row(name, content)
            self._note(row, is_store_failure=isinstance(content, StoreProblem))
            return key, row
        self._note({}, is_store_failure=False)
        return key, self._answer(name, content)

    def _answer(self, name: str, content: bytes) -> Row:
        try:
            answer = self._classifier.classify(
                content, self._outputs, max_pixels=self._options.max_pixels, models=self._models
            )
        except ModelUnavailable:  # not the fault of this photo, and the same for the next
            raise
        except Problem as problem:
            return problem_row(name, problem, content)
        if self._options.heatmaps is not None:
            save_heatmap(self._options.heatmaps, answer)
        return answer_row(name, answer)

    def _note(self, row: Row, *, is_store_failure: bool) -> None:
        """Count the photos in a row that the store did not give; raises BatchStopped if they are too many."""
        with self._lock:
            self._store_failures = self._store_failures + 1 if is_store_failure else 0
            if self._store_failures >= MAX_STORE_FAILURES:
                raise BatchStopped(f"The last {MAX_STORE_FAILURES} photos could not be had. {row[DETAIL]}")
