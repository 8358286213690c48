"""`Models`: the models that answer in one process; loaded on first use, replaced as a whole, refreshed on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ..errors import ModelUnavailable, TopthreeError
from ..telemetry import metrics
from . import Model
from .engines import Inference
from .graphs import EngineOnUse
from .served import Served, carried_over, refreshed


class Models:
    """The models of a process; any thread may call its methods.

    `load` loads the backbone, and is called again at the next use if it fails. `known` computes the known photo on a
    backbone, with which heads are checked; both may raise ModelUnavailable. `failure` is the reason of the last load
    or check if that failed.
    """

    def __init__(self, load: Callable[[], Served], known: Callable[[Model], Inference]) -> None:
        self._load = load
        self._known = known
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._failed_loads = 0
        self.loaded: Served | None = None
        self.failure: ModelUnavailable | None = None

    def get(self) -> Served:
        """Return the models, loading them first if there are none; raises ModelUnavailable with the reason."""
        if self.loaded is None:
            failed_before = self._failed_loads
            with self._lock:  # threads that wait for another one's load share its result, a failure too
                if self._failed_loads > failed_before and self.failure:
                    raise ModelUnavailable(self.failure.detail, self.failure.reason)
                if self.loaded is None:
                    self._load_first()
        assert self.loaded is not None
        return self.loaded

    def build(self) -> Served:
        """Load the models again; those in use stay in use. Raises ModelUnavailable with the reason."""
        try:
            fresh = carried_over(self._load(), self.loaded)
            return refreshed(fresh, lambda: self._known(fresh.backbone))
        except TopthreeError as error:
            raise ModelUnavailable(error.public, str(error)) from error
        except (RuntimeError, OSError, ValueError, ImportError) as error:  # of engines
            raise ModelUnavailable(TopthreeError.public, str(error)) from error

    def use(self, served: Served) -> None:
        """Answer with these models from the next request on; requests in progress keep those they began with."""
        with self._lock:
            self._put(served)

    def refresh(self) -> None:
        """Take the versions that the folder of models holds now, each read and checked; cheap if nothing has changed.

        Does nothing before the first load. A fine-tuned version may have to be prepared first, for half a minute.
        """
        with self._refreshing:
            before = self.loaded
            if before is None:
                return
            served = refreshed(before, lambda: self._known(before.backbone))
            with self._lock:  # only now, so that the models can be used and replaced in that time
                if served is not before and self.loaded is before:
                    self._put(served)

    def make_ready(self, models: Sequence[Model], max_seconds: float | None) -> None:
        """Open the graphs of fine-tuned models that are not in memory; waits without a limit if none is given.

        Raises Overloaded if that takes longer, and ModelUnavailable with the reason if it fails.
        """
        for model in models:
            if isinstance(model.engine, EngineOnUse):
                model.engine.open(max_seconds)

    def note_failure(self, error: ModelUnavailable) -> None:
        """Store the text of a failure, without the frames that its traceback would keep in memory."""
        self.failure = ModelUnavailable(error.detail, error.reason)

    def _load_first(self) -> None:
        try:
            self._put(self.build())
        except ModelUnavailable as error:
            self.note_failure(error)
            self._failed_loads += 1
            raise
        self.failure = None

    def _put(self, served: Served) -> None:
        self.loaded = served
        metrics.set_models([model.identity for model in served.models.values()])
