"""`Job`: the photos of a listing are classified shard by shard, and each shard's rows are written as one part.

The path of a photo: it is listed into the spool; when its shard's turn comes it is read ahead by one of a few threads,
decoded and computed by the classifier, and becomes a row. When the last photo of the shard is answered, the part is
written while the next shard is computed. A failure before the part is renamed costs the work on that shard, and no
more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from ..errors import BatchStopped
from ..queueing.scheduling import Counts
from .answering import Answers, Options
from .entries import Entry, shard_of, shown, unique
from .locks import ShardLocks
from .parts import Parts
from .rows import ERROR, Row
from .spool import Spool
from .status import note_listed
from .walking import UNREADABLE_FOLDER


@dataclass
class Work:
    """One shard in this process: its rows so far, how many are still to come, and the paths that they replace."""

    shard: int
    missing: int
    replaced: frozenset[str]
    rows: list[Row] = field(default_factory=list)


class Job:
    """One process's work on an output folder; `note` is called whenever the progress has changed."""

    def __init__(self, answers: Answers, parts: Parts, options: Options) -> None:
        self.progress = Counts()
        self.note: Callable[[Counts], None] = lambda progress: None
        self._answers = answers
        self._parts = parts
        self._options = options
        self._locks = ShardLocks(parts.folder)
        self._left = parts.leftovers()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._written: Future[None] | None = None
        self._rows_written = 0

    def run(self, entries: Iterable[Entry]) -> Counts:
        """Classify the photos of this job's slice that have no row yet, and write their parts.

        Raises BatchStopped if the output folder is full or the store fails, and ModelUnavailable; the progress then
        leaves out the photos whose parts were not written.
        """
        try:
            with closing(self._locks), self._writer, closing(self._list(entries)) as spool:
                busy = self._work_on(range(self._options.number, self._parts.run.shards, self._options.jobs), spool)
                self.progress.busy = len(self._work_on(busy, spool))
        finally:
            self.progress.done -= self.progress.computed - self._rows_written
        return self.progress

    def _list(self, entries: Iterable[Entry]) -> Spool:
        try:
            with ExitStack() as stack:
                spool = stack.enter_context(closing(Spool(self._parts.folder, self._parts.run.shards)))
                note_listed(self._parts.folder, self._fill(spool, entries))
                stack.pop_all()  # which leaves it open
        except OSError as error:
            raise BatchStopped(f"{self._parts.folder} cannot be written: {error.strerror}.") from error
        self.progress.photos = spool.count
        self.note(self.progress)
        return spool

    def _fill(self, spool: Spool, entries: Iterable[Entry]) -> int:
        """Add the photos of this job's slice, and return how many there are in all."""
        listed = 0
        for entry in entries:
            listed += 1
            shard = shard_of(entry.path, self._parts.run.shards)
            if shard % self._options.jobs == self._options.number:
                spool.add(shard, entry)
        spool.flush()
        return listed

    def _work_on(self, shards: Iterable[int], spool: Spool) -> list[int]:
        """Compute the photos of some shards that have no row yet; return the shards that other processes work on."""
        busy: list[int] = []
        missing = self._missing(shards, spool, busy)
        with closing(self._answers.rows(missing, from_store=spool.has_addresses)) as rows:
            for work, row in rows:
                self._take(work, row)
        self._wait_until_written()
        return busy

    def _missing(self, shards: Iterable[int], spool: Spool, busy: list[int]) -> Iterator[tuple[Work, Entry]]:
        """Lock shard after shard and yield the photos that have no row yet, or whose row is to be replaced."""
        for shard in shards:
            if not self._locks.take(shard):
                busy.append(shard)
                continue
            self._parts.remove(self._left.get(shard, ()))
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
            # A folder that can be read now is no longer listed itself; its photos are.
            gone = {path for path, slug in failed.items() if slug == UNREADABLE_FOLDER and path not in entries}
            replaced = (failed.keys() & entries.keys()) | gone
        missing = [entry for path, entry in entries.items() if path not in outcomes or path in replaced]
        kept = outcomes.keys() - replaced
        self.progress.photos -= len(listed) - len(entries)
        self.progress.done += len(entries) - len(missing)
        self.progress.failed += sum(bool(outcomes[path]) for path in kept)
        return Work(shard, len(missing), frozenset(replaced)), missing

    def _take(self, work: Work, row: Row) -> None:
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
            self._rows_written += len(work.rows)
        self._locks.release(work.shard)
