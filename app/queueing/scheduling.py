"""The order in which photos are decoded and computed.

Three parts, in the order that a photo meets them, once `Admission` has admitted its request:

- `MemoryBudget`, for a photo that takes more memory than most while it is decoded.
- `Slots`, on a CPU. Decoding and inference of one photo hold one of about as many slots as there are processors, so
  that the work of many requests is not interleaved on one core. Waiting requests are served in the order of arrival,
  which keeps the slowest answer near the median; a large file lets a few small ones pass. A request that is alone may
  use the whole machine, which `Turn.is_exclusive` says.
- `Batcher`, on a GPU. One thread feeds the device; all photos that wait when the device becomes free are the next
  batch. There is no waiting window: a lone photo is never delayed, and batches form under load.

Each has a `Deadline`: work that would be done too late, or whose client has disconnected, is not begun.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..errors import ClientClosedRequest, DeadlineExceeded, Overloaded
from ..telemetry import metrics

Item = TypeVar("Item")
Content = TypeVar("Content")
Result = TypeVar("Result")

# A file of n MiB lets n smaller than 1 MiB pass: only to take it in costs about as much as to answer one of them.
_PASSED_BYTES = 2**20
# How much the newest duration counts in a moving mean.
_NEWEST_WEIGHT = 0.1
# How soon a photo that waits for memory notices that its client has disconnected.
_LOOK_SECONDS = 0.25
_TOO_LATE = "The deadline passed before the photo was answered."


@dataclass
class Counts:
    """How far a job is: all its `photos`, those `done` and `failed`, and those `computed` by this process.

    `busy` counts the parts of the job that other processes work on.
    """

    photos: int = 0
    done: int = 0
    failed: int = 0
    computed: int = 0
    busy: int = 0


@dataclass(frozen=True)
class Deadline:
    """The time until which an answer is useful, by the monotonic clock, and whether its client has disconnected."""

    expires: float = math.inf
    is_abandoned: Callable[[], bool] = bool

    @property
    def remaining_seconds(self) -> float | None:
        """Return the remaining seconds, at least 0; None if there is no limit."""
        return None if self.expires == math.inf else max(0.0, self.expires - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Return whether an answer would come too late."""
        return self.remaining_seconds == 0 or self.is_abandoned()

    def check(self, needed_seconds: float = 0.0) -> None:
        """Raise DeadlineExceeded if too little time is left, ClientClosedRequest if the client has disconnected."""
        left = self.remaining_seconds
        if left is not None and left <= needed_seconds:
            raise DeadlineExceeded(_TOO_LATE)
        if self.is_abandoned():
            raise ClientClosedRequest("The client closed its connection before its turn came.")


NO_DEADLINE = Deadline()


def moving_mean(mean: float, newest: float) -> float:
    """Return a mean of durations with the newest added; the mean before the first is 0."""
    return mean + (newest - mean) * (_NEWEST_WEIGHT if mean else 1)


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[tuple[int, Future[Result]]]:
    """Work on items in several threads; yield each item's place and its future, in the order in which they end.

    An item is taken, in the caller's thread, only when it can be queued for a thread, so that `items` may be endless.
    If the caller stops early, no other item is begun.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="classify")
    waiting = enumerate(items)
    places: dict[Future[Result], int] = {}
    try:
        while True:
            # As many again are queued, so that no thread waits for the caller. Each runs in the caller's context, in
            # which log messages name its request.
            for place, item in itertools.islice(waiting, 2 * threads - len(places)):
                places[pool.submit(copy_context().run, work, item)] = place
            if not places:
                return
            for future in wait(places, return_when=FIRST_COMPLETED).done:
                yield places.pop(future), future
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(done: Iterable[tuple[int, Future[Result]]]) -> Iterator[Result]:
    """Yield the results of `side_by_side` in the order of their items; raises what an item's work raised."""
    early: dict[int, Future[Result]] = {}
    due = 0
    for place, future in done:
        early[place] = future
        while due in early:
            yield early.pop(due).result()
            due += 1


def read_and_compute(
    read: Callable[[Item], Content],
    compute: Callable[[Content], Result],
    items: Iterable[Item],
    *,
    readers: int,
    computers: int,
) -> Generator[Result]:
    """Read items in some threads and compute their contents in others; yield the results in the order of the items."""
    reading = side_by_side(read, items, readers)
    with closing(reading), closing(side_by_side(compute, in_order(reading), computers)) as computing:
        yield from in_order(computing)


class Turn:
    """A held slot: how long its holder waited for it, and whether no other request holds or awaits one."""

    def __init__(self, slots: Slots, waited_seconds: float) -> None:
        self.waited_seconds = waited_seconds
        self._slots = slots
        self.is_held = True

    @property
    def is_exclusive(self) -> bool:
        """Return whether this is, right now, the only request, here and in other processes."""
        return self._slots.in_flight == 1 and not self._slots.elsewhere()

    def give_up(self) -> None:
        """Give the slot to the next request; only the thread that holds it may call this, once or more often."""
        if self.is_held:
            self.is_held = False
            self._slots.release()


@dataclass(eq=False)
class _Waiting:
    """A request that waits for a slot, and how many small ones may pass it."""

    lets_pass: int
    granted: threading.Event = field(default_factory=threading.Event)


class Slots:
    """`count` slots, handed over in the order of arrival, but a photo of n MiB is passed by n smaller than 1 MiB.

    `elsewhere` counts the requests that other processes have in flight on the same processors.
    """

    def __init__(self, count: int) -> None:
        self.elsewhere: Callable[[], int] = int  # none, while this process is the only one
        self.count = self._free = count
        self._last_handover: float | None = None
        self._seconds_between = 0.0
        self._waiting: deque[_Waiting] = deque()
        self._passed = 0  # how many have passed the first that waits
        self._lock = threading.Lock()
        self.in_flight = 0

    @property
    def expected_seconds(self) -> float:
        """Estimate how long it would take to answer one photo more, its wait included; 0 while no request waits."""
        waiting = len(self._waiting)
        return self._seconds_between * (waiting + 1) + self._seconds_held if waiting else 0.0

    @property
    def _seconds_held(self) -> float:
        return self._seconds_between * self.count

    @contextmanager
    def take(self, deadline: Deadline = NO_DEADLINE, size: int = 0) -> Iterator[Turn]:
        """Hold a slot for a file of `size` bytes, or for one that is decoded already.

        Raises DeadlineExceeded or ClientClosedRequest if its turn comes too late.
        """
        arrived = time.monotonic()
        with metrics.counting_waiting():
            has_waited = self._acquire(deadline, size // _PASSED_BYTES)
        turn = Turn(self, time.monotonic() - arrived)
        try:
            # A request that got a slot at once always runs; otherwise a bad estimate could never recover.
            deadline.check(self._seconds_held if has_waited else 0.0)
            with metrics.counting_in_flight():
                yield turn
        finally:
            turn.give_up()

    def _acquire(self, deadline: Deadline, lets_pass: int) -> bool:
        """Get a slot, and return whether it had to be waited for."""
        with self._lock:
            self.in_flight += 1
            if self._free:
                self._free -= 1
                return False
            waiting = _Waiting(lets_pass)
            self._waiting.append(waiting)
        if not waiting.granted.wait(deadline.remaining_seconds):
            with self._lock:
                if not waiting.granted.is_set():  # else the slot came at the last moment; `take` gives it back
                    self._waiting.remove(waiting)
                    self.in_flight -= 1
                    deadline.check()
                    raise DeadlineExceeded(_TOO_LATE)  # the clock and the wait may differ by a hair; there is no slot
        return True

    def release(self) -> None:
        """Take a slot back, and hand it to the next request that waits."""
        with self._lock:
            self.in_flight -= 1
            if not self._waiting:
                self._free += 1
                self._last_handover = None
                return
            # Handed over under the lock, so that a request that arrives now cannot jump the queue.
            self._next().granted.set()
            self._note_handover()

    def _next(self) -> _Waiting:
        """Remove the next request from those that wait: the first, or a small one that it lets pass."""
        first = chosen = self._waiting[0]
        if self._passed < first.lets_pass:
            chosen = next((each for each in self._waiting if not each.lets_pass), first)
        self._passed = 0 if chosen is first else self._passed + 1
        self._waiting.remove(chosen)
        return chosen

    def _note_handover(self) -> None:
        """Measure the time between two handovers; all slots were held in between, so it depends only on the work."""
        now = time.monotonic()
        if self._last_handover is not None:
            self._seconds_between = moving_mean(self._seconds_between, now - self._last_handover)
        self._last_handover = now


class MemoryBudget:
    """Memory for large photos, handed out in the order of arrival."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._free_bytes = total_bytes
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, size: int, deadline: Deadline = NO_DEADLINE) -> Iterator[None]:
        """Hold `size` bytes; waits while others hold them, and raises what `Deadline.check` raises.

        `size` must not be above the total, or this waits without end.
        """
        ticket = object()
        with metrics.counting_waiting(), self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._free_bytes < size:
                    deadline.check()
                    left = deadline.remaining_seconds
                    self._changed.wait(_LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS))
                self._free_bytes -= size
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free_bytes += size
                self._changed.notify_all()


class Batcher(Generic[Item, Result]):
    """Compute items in batches on one thread, which starts with the first item and ends with `close`."""

    def __init__(self, compute: Callable[[Sequence[Item]], Sequence[Result]], *, max_batch: int) -> None:
        self._compute = compute
        self._max_batch = max_batch
        self._waiting: deque[tuple[Item, Deadline, Future[Result]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, item: Item, deadline: Deadline = NO_DEADLINE) -> Future[Result]:
        """Queue an item, whose future fails if its deadline passes first; raises Overloaded after `close`."""
        future: Future[Result] = Future()
        with self._changed:
            if self._closed:
                raise Overloaded("This process is stopping.")
            self._waiting.append((item, deadline, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
                self._thread.start()
            self._changed.notify()
        return future

    def close(self) -> None:
        """Compute the waiting items, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._deliver([(item, future) for item, deadline, future in batch if _is_due(deadline, future)])

    def _next_batch(self) -> list[tuple[Item, Deadline, Future[Result]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            count = min(len(self._waiting), self._max_batch)
            return [self._waiting.popleft() for _ in range(count)]

    def _deliver(self, batch: Sequence[tuple[Item, Future[Result]]]) -> None:
        """Compute a batch; if that fails, compute its items one by one, so that only the bad one fails."""
        if not batch:
            return
        try:
            results = self._compute([item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results came back for {len(batch)} items.")
        except Exception as error:  # any failure belongs to the waiting callers, not to this thread
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for single in batch:
                    self._deliver([single])
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)


def _is_due(deadline: Deadline, future: Future[Result]) -> bool:
    """Return whether an item must still be computed; if not, its future fails with the reason."""
    try:
        deadline.check()
    except (DeadlineExceeded, ClientClosedRequest) as error:
        future.set_exception(error)
        return False
    return True
