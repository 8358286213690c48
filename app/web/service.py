"""`Service`, which holds everything of one application, and `RequestState`, which holds what is known of a request."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import flask

if TYPE_CHECKING:
    from ..classifier import Classifier
    from ..model import Model
    from ..processes.readiness import Readiness
    from ..queueing.admission import Admission
    from ..queueing.cache import ResultCache
    from ..search.served import ServedIndex
    from ..settings import Settings
    from ..teaching.publishing import Publisher
    from ..teaching.teaching import Teaching
    from ..telemetry.traces import Trace, Tracing
    from .assets import Assets
    from .forms import Part
    from .keys import KeyRing
    from .language import Language
    from .ratecounts import Count, RateLimits

_NAME = "topthree"


@dataclass
class Service:
    """Everything that one application holds, for all its requests.

    `readiness` counts only this process until a worker replaces it by the one that all workers share. `teaching` and
    `publisher` are None if teaching is turned off, and `index` is None if there is no index of photos.
    """

    settings: Settings
    classifier: Classifier
    admission: Admission
    results: ResultCache
    keys: KeyRing
    limits: RateLimits | None
    readiness: Readiness
    tracing: Tracing | None
    assets: Assets
    languages: Mapping[str, Language]
    teaching: Teaching | None
    publisher: Publisher | None
    index: ServedIndex | None

    def attach(self, app: flask.Flask) -> None:
        """Make this the service of an application."""
        app.extensions[_NAME] = self


@dataclass
class RequestState:
    """What is known of one request.

    `caller` is the name of its API key, if it has a valid one. `form` is a form that was read for its key, and not yet
    for its photo. `admitted_bytes` is None until the request is admitted. `models` are those that
    answer, each as NAME or NAME/VERSION. The functions in `at_end` are called when
    the request has ended, its last byte included.
    """

    id: str
    began: float = field(default_factory=time.monotonic)
    trace: Trace | None = None
    caller: str | None = None
    counts: list[Count] = field(default_factory=list)
    form: list[Part] | None = None
    admitted_bytes: int | None = None
    models: list[str] = field(default_factory=list)
    at_end: ExitStack = field(default_factory=ExitStack)

    def note_models(self, models: Sequence[Model]) -> None:
        """Remember the models that answer, for the log and the trace."""
        self.models = [f"{each.name}/{each.version}" if each.version else each.name for each in models]
        if self.trace is not None:
            self.trace.note_models(self.models)


def service() -> Service:
    """Return the service of the current application."""
    return service_of(flask.current_app)


def service_of(app: flask.Flask) -> Service:
    """Return the service of an application."""
    found: Service = app.extensions[_NAME]
    return found


def begin_request(request_id: str) -> RequestState:
    """Create the state of the current request."""
    flask.g.topthree = state = RequestState(request_id)
    return state


def request_state() -> RequestState:
    """Return the state of the current request."""
    state: RequestState = flask.g.topthree
    return state


def end_request(_: BaseException | None = None) -> None:
    """Undo, in reverse order, everything that was done for the length of the current request."""
    state: RequestState | None = flask.g.pop("topthree", None)
    if state is not None:
        state.at_end.close()
