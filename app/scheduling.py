"""Who runs when.

Three parts, in the order that a photo meets them:

- `Admission`, at the door, before a body is parsed: so many requests and so many bytes may be in the house, what
  comes beyond is refused at once, with the time that it takes to drain what is there.
- `Slots`, on a CPU. Decoding and inference of one photo hold one of about as many slots as there are processors,
  so that the work of many requests is not interleaved on one core. Waiting requests are served strictly in the
  order they came, which keeps the slowest answer near the median. A request that is alone may use the whole
  machine, and `Turn.alone` says so at the moment it matters.
- `Batcher`, on a GPU. One thread feeds the device; whatever waits when the device becomes free is the next
  batch. There is no waiting window: a lone photo is never delayed, and load itself makes the batches.

A `Deadline` goes along: work whose time has passed, or that nobody waits for any more, is not begun.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from . import metrics
from .errors import ClientClosedRequest, DeadlineExceeded, Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")

# The longest that a refused client is told to stay away, however slow the drain.
LONGEST_RETRY_SECONDS = 60
# How much the newest departure counts in the mean of the time between two.
_NEWEST_WEIGHT = 0.1
_TOO_LATE = "The deadline passed before the photo's turn came. Nothing was computed."


@dataclass(frozen=True)
class Deadline:
    """Until when an answer is of use, by the monotonic clock, and whether anybody still waits for it."""

    expires: float = math.inf
    is_abandoned: Callable[[], bool] = bool

    @property
    def remaining_seconds(self) -> float | None:
        """Tell how long is left, at least 0; None where there is no end."""
        return None if self.expires == math.inf else max(0.0, self.expires - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Tell whether work for it would be in vain."""
        return self.remaining_seconds == 0 or self.is_abandoned()

    def check(self) -> None:
        """Raise DeadlineExceeded when the time has passed, ClientClosedRequest when the client has left."""
        if self.remaining_seconds == 0:
            raise DeadlineExceeded(_TOO_LATE)
        if self.is_abandoned():
            raise ClientClosedRequest("The client closed its connection before its turn came.")


NO_DEADLINE = Deadline()


class Admission:
    """The door: how many requests and how many bytes of theirs may be in the house at once."""

    def __init__(self, most_requests: int, most_bytes: int) -> None:
        self._most_requests = most_requests
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._last_left = time.monotonic()
        self._seconds_between = 0.0
        self.requests = 0
        self.bytes = 0

    def enter(self, size: int) -> Callable[[], None]:
        """Admit a request whose body has up to `size` bytes; raises Overloaded at once when there is no room.

        Returns what the request calls, once, when it leaves.
        """
        with self._lock:
            if full := self.refusal_if_full():
                raise full
            if self.bytes + size > self._most_bytes:
                raise self._refusal(f"{self.bytes:,} bytes of photos are waiting already.")
            if not self.requests:
                self._last_left = time.monotonic()  # an idle time tells nothing of how fast work is done
            self.requests += 1
            self.bytes += size
        metrics.change_upload_bytes(size)
        return lambda: self._leave(size)

    def enlarge(self, size: int) -> Callable[[], None]:
        """Admit so many bytes more of a request that is in; raises Overloaded where there is no room for them.

        Returns what the request calls, once, when it leaves.
        """
        with self._lock:
            if self.bytes + size > self._most_bytes:
                raise self._refusal(f"{self.bytes:,} bytes of photos are waiting already.")
            self.bytes += size
        metrics.change_upload_bytes(size)
        return lambda: self._release(size)

    def _release(self, size: int) -> None:
        metrics.change_upload_bytes(-size)
        with self._lock:
            self.bytes -= size

    def refusal_if_full(self) -> Overloaded | None:
        """Return what one request more is told, None while there is room for it."""
        if self.requests < self._most_requests:
            return None
        return self._refusal(f"{self.requests} requests are waiting already.")

    def _leave(self, size: int) -> None:
        self._release(size)
        with self._lock:
            self.requests -= 1
            now = time.monotonic()
            between, self._last_left = now - self._last_left, now
            self._seconds_between += (between - self._seconds_between) * (
                _NEWEST_WEIGHT if self._seconds_between else 1
            )

    def _refusal(self, detail: str) -> Overloaded:
        """Tell how long the present requests take to leave, by the measured time between two departures."""
        seconds = min(LONGEST_RETRY_SECONDS, max(1, math.ceil(self.requests * self._seconds_between)))
        return Overloaded(f"{detail} Try again in {seconds} s.", seconds)


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int
) -> Iterator[tuple[int, Future[Result]]]:
    """Yield each item's place and its done future, as soon as it is; where the caller stops, no other is begun."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="classify")
    try:
        # In the caller's context, so that what is logged names its request.
        places = {pool.submit(copy_context().run, work, item): place for place, item in enumerate(items)}
        for future in as_completed(places):
            yield places[future], future
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Turn:
    """A held slot: how long its holder waited for it, and whether nobody else holds or awaits one."""

    slots: Slots
    waited_seconds: float

    @property
    def alone(self) -> bool:
        """Tell whether this is, right now, the only request, here and in other processes."""
        return self.slots.in_flight == 1 and not self.slots.elsewhere()


class Slots:
    """A number of slots, handed over in the order of arrival.

    `elsewhere` counts the requests that other processes have in flight on the same processors.
    """

    def __init__(self, count: int) -> None:
        self.elsewhere: Callable[[], int] = int  # none, while this process is the only one
        self._free = count
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()
        self.in_flight = 0

    @property
    def waiting(self) -> int:
        """Count those who wait for a slot."""
        return len(self._waiting)

    @contextmanager
    def take(self, deadline: Deadline = NO_DEADLINE) -> Iterator[Turn]:
        """Hold a slot; raises DeadlineExceeded or ClientClosedRequest where its turn comes too late."""
        arrived = time.monotonic()
        with metrics.counting_waiting():
            self._acquire(deadline)
        try:
            deadline.check()
            with metrics.counting_in_flight():
                yield Turn(self, time.monotonic() - arrived)
        finally:
            self._release()

    def _acquire(self, deadline: Deadline) -> None:
        with self._lock:
            self.in_flight += 1
            if self._free:
                self._free -= 1
                return
            granted = threading.Event()
            self._waiting.append(granted)
        if not granted.wait(deadline.remaining_seconds):
            with self._lock:
                if not granted.is_set():  # else the slot came at the last moment; `take` gives it back
                    self._waiting.remove(granted)
                    self.in_flight -= 1
                    deadline.check()
                    raise DeadlineExceeded(_TOO_LATE)  # the clock and the wait may differ by a hair; there is no slot

    def _release(self) -> None:
        with self._lock:
            self.in_flight -= 1
            if self._waiting:
                self._waiting.popleft().set()  # the slot passes on without becoming free: nobody can jump the queue
            else:
                self._free += 1


class Batcher(Generic[Item, Result]):
    """Compute items in batches on one thread, which starts with the first item and ends with `close`."""

    def __init__(self, compute: Callable[[Sequence[Item]], Sequence[Result]], *, largest_batch: int) -> None:
        self._compute = compute
        self._largest_batch = largest_batch
        self._waiting: deque[tuple[Item, Deadline, Future[Result]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, item: Item, deadline: Deadline = NO_DEADLINE) -> Future[Result]:
        """Queue an item, whose future fails where its deadline passes first; raises Overloaded after `close`."""
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
        """Compute what waits, then end the thread."""
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
            count = min(len(self._waiting), self._largest_batch)
            return [self._waiting.popleft() for _ in range(count)]

    def _deliver(self, batch: Sequence[tuple[Item, Future[Result]]]) -> None:
        """Compute a batch; where that fails, compute its items one by one, so that only the bad one fails."""
        if not batch:
            return
        try:
            results = self._compute([item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results came back for {len(batch)} items.")
        except Exception as error:  # whatever it is belongs to the waiting callers, not to this thread
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for single in batch:
                    self._deliver([single])
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)


def _is_due(deadline: Deadline, future: Future[Result]) -> bool:
    """Tell whether an item is still to be computed; if not, tell its waiter why."""
    try:
        deadline.check()
    except (DeadlineExceeded, ClientClosedRequest) as error:
        future.set_exception(error)
        return False
    return True
