"""`Job`: the photos of a listing are classified shard by shard, and each shard's rows are written as one part.

The path of a photo: it is listed into the spool; when its shard's turn comes it is read ahead by one of a few threads,
decoded and computed by the classifier, and becomes a row. When the last photo of the shard is answered, the part is
written while the next shard is computed. Whatever happens before the part is renamed costs that shard's work and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ..classifier import Classifier, Outputs
from ..errors import BatchStopped, ModelUnavailable, Problem, TopthreeError
from ..model import Model
from ..queueing.scheduling import in_order, side_by_side
from .entries import Entry, shard_of, shown, unique
from .listing import read_entry
from .locks import ShardLocks
from .parts import Parts
from .pictures import THUMBNAIL_SIDE, save_heatmap
from .rows import DETAIL, ERROR, Columns, Row, answer_row, problem_row
from .spool import Spool
from .status import note_listed
from .store import Store, StoreProblem
from .walking import UNREADABLE_FOLDER

# Reading from a store is waiting for it.
READERS, STORE_READERS = 4, 16
# So many failures of the store one after the other are not those of single objects.
MAX_STORE_FAILURES = 20


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


@dataclass
class Progress:
    """How far a job is: `photos` of its slice, those `done` and `failed`, and those `computed` in this process.

    `busy` counts the shards that other processes work on.
    """

    photos: int = 0
    done: int = 0
    failed: int = 0
    computed: int = 0
    busy: int = 0


@dataclass
class Work:
    """One shard in this process: its rows so far, how many are still to come, and the paths that they replace."""

    shard: int
    missing: int
    replaced: frozenset[str]
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Photo:
    """A photo on its way: its shard's work, its name in the rows, and its bytes or the problem."""

    work: Work
    name: str
    content: bytes | TopthreeError


@dataclass(frozen=True)
class Outcome:
    """A photo's row, and whether it is missing an answer because the store failed."""

    work: Work
    row: Row
    is_store_failure: bool = False


class Job:
    """One process's work on an output folder; `note` is called whenever the progress has changed."""

    def __init__(
        self, classifier: Classifier, models: Sequence[Model], parts: Parts, options: Options, store: Store
    ) -> None:
        self.progress = Progress()
        self.note: Callable[[Progress], None] = lambda progress: None
        self._classifier = classifier
        self._models = models
        self._parts = parts
        self._options = options
        self._store = store
        self._outputs = options.outputs()
        self._locks = ShardLocks(parts.folder)
        self._left = parts.leftovers()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._written: Future[None] | None = None
        self._store_failures = 0

    def run(self, entries: Iterable[Entry]) -> Progress:
        """Classify the photos of this job's slice that have no row yet, and write their parts.

        Raises BatchStopped if the output folder is full or the store fails, and ModelUnavailable.
        """
        with closing(self._locks), self._writer, closing(self._list(entries)) as spool:
            busy = self._work_on(range(self._options.number, self._parts.run.shards, self._options.jobs), spool)
            self.progress.busy = len(self._work_on(busy, spool))
        return self.progress

    def _list(self, entries: Iterable[Entry]) -> Spool:
        options, run = self._options, self._parts.run
        listed = 0
        try:
            spool = Spool(self._parts.folder, run.shards)
            for entry in entries:
                listed += 1
                shard = shard_of(entry.path, run.shards)
                if shard % options.jobs == options.number:
                    spool.add(shard, entry)
            note_listed(self._parts.folder, listed)
        except OSError as error:
            raise BatchStopped(f"{self._parts.folder} cannot be written: {error.strerror}.") from error
        self.progress.photos = spool.count
        self.note(self.progress)
        return spool

    def _work_on(self, shards: Iterable[int], spool: Spool) -> list[int]:
        """Do what is missing of some shards, and return those that other processes work on."""
        busy: list[int] = []
        readers = STORE_READERS if spool.has_addresses else READERS
        # One more than there are slots waits for a slot, so that none is idle.
        threads = self._classifier.max_parallel + self._classifier.slots.count
        reading = side_by_side(self._read, self._missing(shards, spool, busy), readers)
        with closing(reading), closing(side_by_side(self._classify, in_order(reading), threads)) as computing:
            for outcome in in_order(computing):
                self._take(outcome)
        self._wait_until_written()
        return busy

    def _missing(self, shards: Iterable[int], spool: Spool, busy: list[int]) -> Iterator[tuple[Work, Entry]]:
        """Lock shard after shard and yield the photos that have no row yet, or whose row is to be replaced."""
        for shard in shards:
            if not self._locks.take(shard):
                busy.append(shard)
                continue
            for left in self._left.get(shard, ()):
                left.unlink(missing_ok=True)
            work, entries = self._plan(shard, list(spool.read(shard)))
            if not entries:
                self._finish(work)
            for entry in entries:
                yield work, entry

    def _plan(self, shard: int, listed: list[Entry]) -> tuple[Work, list[Entry]]:
        """Compare a shard's photos with the rows that it has."""
        entries = {shown(entry.path): entry for entry in unique(listed)}
        outcomes = self._parts.outcomes(shard)
        replaced: set[str] = set()
        if self._options.retry_failed:
            failed = {path: slug for path, slug in outcomes.items() if slug}
            # A folder that can be read by now is not listed any more; its photos are.
            gone = {path for path, slug in failed.items() if slug == UNREADABLE_FOLDER and path not in entries}
            replaced = (failed.keys() & entries.keys()) | gone
        missing = [entry for path, entry in entries.items() if path not in outcomes or path in replaced]
        kept = outcomes.keys() - replaced
        self.progress.photos -= len(listed) - len(entries)
        self.progress.done += len(entries) - len(missing)
        self.progress.failed += sum(bool(outcomes[path]) for path in kept)
        return Work(shard, len(missing), frozenset(replaced)), missing

    def _read(self, item: tuple[Work, Entry]) -> Photo:
        work, entry = item
        return Photo(work, shown(entry.path), read_entry(entry, self._store))

    def _classify(self, photo: Photo) -> Outcome:
        work, name, content = photo.work, photo.name, photo.content
        if isinstance(content, TopthreeError):
            return Outcome(work, problem_row(name, content), isinstance(content, StoreProblem))
        try:
            answer = self._classifier.classify(
                content, self._outputs, max_pixels=self._options.max_pixels, models=self._models
            )
        except ModelUnavailable:  # not the fault of this photo, and the same for the next
            raise
        except Problem as problem:
            return Outcome(work, problem_row(name, problem, content))
        if self._options.heatmaps is not None:
            save_heatmap(self._options.heatmaps, answer)
        return Outcome(work, answer_row(name, answer))

    def _take(self, outcome: Outcome) -> None:
        work, row = outcome.work, outcome.row
        self._store_failures = self._store_failures + 1 if outcome.is_store_failure else 0
        if self._store_failures >= MAX_STORE_FAILURES:
            raise BatchStopped(f"The last {MAX_STORE_FAILURES} photos could not be had. {row[DETAIL]}")
        work.rows.append(row)
        work.missing -= 1
        self.progress.done += 1
        self.progress.computed += 1
        self.progress.failed += bool(row.get(ERROR))
        self.note(self.progress)
        if not work.missing:
            self._finish(work)

    def _finish(self, work: Work) -> None:
        """Have a shard's part written in the background, if there is anything to write; two are never waiting."""
        self._wait_until_written()
        self._written = self._writer.submit(self._write, work)

    def _wait_until_written(self) -> None:
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def _write(self, work: Work) -> None:
        if work.rows or work.replaced:
            self._parts.write(work.shard, self._options.columns, work.rows, work.replaced)
        self._locks.release(work.shard)
