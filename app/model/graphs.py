"""`Graphs`: the graphs of fine-tuned models, which are opened when they are needed and closed for others.

Each model has an engine of its own, and many of them may lie in a folder, so only those that were used last stay in
memory, within a limit of the plan. A graph is opened in a thread of its own, one at a time: a request waits for it for
some seconds and is then rejected with the advice to try again, while the opening goes on. A photo that is being
computed keeps its graph until its answer, also if that is closed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field

from ..errors import ModelUnavailable, Overloaded, TopthreeError
from ..telemetry import metrics
from .engines import Engine, Inference, Pixels
from .heads import Head

log = logging.getLogger(__name__)

# A prepared model of ResNet-18's size opens in less than a second, one that has to be prepared in half a minute.
MAX_WAIT_SECONDS = 5.0
RETRY_SECONDS = 5
# How long a failure answers before the model is tried again.
FAILED_SECONDS = 30.0


@dataclass(frozen=True)
class _Failure:
    """Why a graph could not be opened, for clients and for the log, and until when that answers."""

    public: str
    reason: str
    until: float = field(default_factory=lambda: time.monotonic() + FAILED_SECONDS)


@dataclass(frozen=True)
class Opener:
    """How one fine-tuned model is opened, and about how much memory its graph takes.

    `key` is different for each pair of weights and head; `name` is the model's.
    """

    key: str
    name: str
    size_bytes: int
    open: Callable[[], Engine]


class EngineOnUse:
    """The engine of a fine-tuned model that is opened for its first photo, and again after it was closed."""

    name = "openvino"
    batches = False
    head: Head | None = None

    def __init__(self, graphs: Graphs, opener: Opener, precision: str) -> None:
        self._graphs = graphs
        self._opener = opener
        self.precision = precision
        self.grid = (0, 0)

    @property
    def key(self) -> str:
        """Return the key of the weights and the head."""
        return self._opener.key

    def open(self, max_seconds: float | None = None) -> Engine:
        """Return the open engine, which is opened first if necessary; waits without a limit if none is given.

        Raises Overloaded if that takes longer, and ModelUnavailable with the reason if it fails.
        """
        engine = self._graphs.take(self._opener, max_seconds)
        self.grid = engine.grid
        return engine

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch of shape (n, side, side, 3); `alone` allows it to use every processor."""
        return self.open().infer(batch, alone=alone)


class Graphs:
    """The open graphs of one process; any thread may call its methods.

    Together they take up to `max_bytes`, except that one is always open, however large it is.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._open: OrderedDict[str, tuple[Opener, Engine]] = OrderedDict()
        self._opening: dict[str, Future[Engine | _Failure]] = {}
        self._failures: dict[str, _Failure] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    @property
    def open_names(self) -> list[str]:
        """Return the names of the models that are open; the one that was used last is at the end."""
        with self._lock:
            return [opener.name for opener, _ in self._open.values()]

    def take(self, opener: Opener, max_seconds: float | None) -> Engine:
        """Return an open engine, as `EngineOnUse.open` does."""
        with self._lock:
            if opener.key in self._open:
                self._open.move_to_end(opener.key)
                return self._open[opener.key][1]
            opening = self._opening.get(opener.key) or self._begin(opener)
        try:
            found = opening.result(max_seconds)
        except TimeoutError as error:
            raise Overloaded(
                f"The model {opener.name} is being loaded. Try again in a moment.", RETRY_SECONDS
            ) from error
        if isinstance(found, _Failure):
            raise ModelUnavailable(found.public, found.reason)
        return found

    def keep_only(self, keys: Collection[str]) -> None:
        """Close the graphs of models that do not answer any more."""
        with self._lock:
            for key in self._open.keys() - set(keys):
                self._close(key)
            for key in self._failures.keys() - set(keys):
                del self._failures[key]

    def _begin(self, opener: Opener) -> Future[Engine | _Failure]:
        """Begin to open a graph in a thread, unless that has just failed; to be called with the lock held."""
        opening: Future[Engine | _Failure] = Future()
        failure = self._failures.get(opener.key)
        if failure is not None and time.monotonic() < failure.until:
            opening.set_result(failure)
            return opening
        threading.Thread(target=self._work, args=(opener, opening), name="open-model", daemon=True).start()
        self._opening[opener.key] = opening
        return opening

    def _work(self, opener: Opener, opening: Future[Engine | _Failure]) -> None:
        found: Engine | _Failure = _Failure(TopthreeError.public, f"The model {opener.name} cannot be opened.")
        with self._turn:
            self._make_room(opener)
            began = time.monotonic()
            try:
                found = opener.open()
                metrics.graph_opened(time.monotonic() - began)
            except TopthreeError as error:
                found = _Failure(error.public, f"The model {opener.name} cannot be opened: {error}")
            except (RuntimeError, OSError, ValueError, ImportError) as error:  # of engines
                found = _Failure(TopthreeError.public, f"The model {opener.name} cannot be opened: {error}")
            finally:  # also after any other failure, or those that wait would never hear of it
                self._note(opener, found)
                opening.set_result(found)

    def _note(self, opener: Opener, found: Engine | _Failure) -> None:
        with self._lock:
            before = self._failures.pop(opener.key, None)
            if isinstance(found, _Failure):
                self._failures[opener.key] = found
            else:
                self._open[opener.key] = opener, found
            del self._opening[opener.key]
            metrics.set_open_graphs(len(self._open))
        if isinstance(found, _Failure) and (before is None or before.reason != found.reason):
            log.error("%s", found.reason)

    def _make_room(self, opener: Opener) -> None:
        """Close the graphs that were not used for longest, until another one fits."""
        with self._lock:
            while self._open and self._open_bytes + opener.size_bytes > self.max_bytes:
                self._close(next(iter(self._open)))

    def _close(self, key: str) -> None:
        """Forget a graph, whose memory is freed when no photo uses it; to be called with the lock held."""
        opener, _ = self._open.pop(key)
        log.info("The model %s is closed; it is opened again on use.", opener.name)
        metrics.set_open_graphs(len(self._open))

    @property
    def _open_bytes(self) -> int:
        return sum(opener.size_bytes for opener, _ in self._open.values())
