"""Who runs when: the only concurrent code.

Two disciplines, by what computes:

- On a CPU, `Slots`. Decoding and inference of one photo hold one of about as many slots as there are processors,
  so that the work of many requests is not interleaved on one core. Waiting requests are served strictly in the
  order they came, which keeps the slowest answer near the median. A request that is alone may use the whole
  machine, and `Turn.alone` says so at the moment it matters.
- On a GPU, `Batcher`. One thread feeds the device; whatever waits when the device becomes free is the next
  batch. There is no waiting window: a lone photo is never delayed, and load itself makes the batches.

Both refuse at once with Overloaded when as much waits as may wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from .errors import Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Turn:
    """A held slot: how long its holder waited for it, and whether nobody else holds or awaits one."""

    slots: Slots
    waited_seconds: float

    @property
    def alone(self) -> bool:
        """Tell whether this is, right now, the only request."""
        return self.slots.in_flight == 1


class Slots:
    """A number of slots, handed over in the order of arrival."""

    def __init__(self, count: int, most_waiting: int) -> None:
        self._free = count
        self._most_waiting = most_waiting
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()
        self.in_flight = 0

    @contextmanager
    def take(self) -> Iterator[Turn]:
        """Hold a slot; raises Overloaded at once when too many wait already."""
        arrived = time.monotonic()
        self._acquire()
        try:
            yield Turn(self, time.monotonic() - arrived)
        finally:
            self._release()

    def _acquire(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                self.in_flight += 1
                return
            if len(self._waiting) >= self._most_waiting:
                raise Overloaded(f"{len(self._waiting)} photos are waiting already. Try again in a moment.")
            self.in_flight += 1
            granted = threading.Event()
            self._waiting.append(granted)
        granted.wait()

    def _release(self) -> None:
        with self._lock:
            self.in_flight -= 1
            if self._waiting:
                self._waiting.popleft().set()  # the slot passes on without becoming free: nobody can jump the queue
            else:
                self._free += 1


class Batcher(Generic[Item, Result]):
    """Compute items in batches on one thread, which starts with the first item and ends with `close`."""

    def __init__(
        self, compute: Callable[[Sequence[Item]], Sequence[Result]], *, largest_batch: int, most_waiting: int
    ) -> None:
        self._compute = compute
        self._largest_batch = largest_batch
        self._most_waiting = most_waiting
        self._waiting: deque[tuple[Item, Future[Result]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, item: Item) -> Future[Result]:
        """Queue an item; raises Overloaded at once when too many wait, or after `close`."""
        future: Future[Result] = Future()
        with self._changed:
            if self._closed or len(self._waiting) >= self._most_waiting:
                raise Overloaded(f"{len(self._waiting)} photos are waiting already. Try again in a moment.")
            self._waiting.append((item, future))
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
            self._deliver(batch)

    def _next_batch(self) -> list[tuple[Item, Future[Result]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            count = min(len(self._waiting), self._largest_batch)
            return [self._waiting.popleft() for _ in range(count)]

    def _deliver(self, batch: Sequence[tuple[Item, Future[Result]]]) -> None:
        """Compute a batch; where that fails, compute its items one by one, so that only the bad one fails."""
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
