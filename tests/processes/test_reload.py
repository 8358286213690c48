"""SIGHUP: all workers change model and keys, or none does; what has begun ends as it began."""

from __future__ import annotations

import dataclasses
import queue
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flask
import pytest
from fakes import FakeEngine, colour_png, fake_model, make_classifier

from app import create_app
from app.errors import WeightsError
from app.model import Model
from app.model.engines import Inference, Pixels
from app.model.labels import Label
from app.model.served import Served
from app.processes.reload import Reloader, ReloadState, Step, reload_workers
from app.settings import Settings
from app.web.keys import KeySet
from app.web.service import service_of

PATIENCE_SECONDS = 20
PHOTO = colour_png(7, 251, 80)
FIRST = f"first  enabled  {'1' * 64}\n"
SECOND = f"second  enabled  {'2' * 64}\n"


def named(name: str, engine: FakeEngine | None = None) -> Model:
    """Make a model that calls its eighth class by this name; the weights are the same."""
    model = fake_model(engine)
    return dataclasses.replace(model, labels=(*model.labels[:7], Label(7, None, name, None), *model.labels[8:]))


class Files:
    """What a loader finds at its next call: a model, or a failure."""

    def __init__(self, content: Model | Exception) -> None:
        self.content = content

    def load(self) -> Model:
        """Load what is there."""
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


class Master:
    """gunicorn's master as far as it matters here; workers are threads of this process."""

    def __init__(self) -> None:
        self.WORKERS: dict[int, SimpleNamespace] = {}
        self.SIG_QUEUE: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.reloaders: dict[int, Reloader] = {}
        self.threads: list[threading.Thread] = []
        self.leaving: list[int] = []

    def kill_workers(self, sig: int) -> None:
        """Let all workers follow, as their handlers do."""
        assert sig == signal.SIGHUP
        self.threads += [self.reloaders[pid].follow() for pid in self.WORKERS if pid in self.reloaders]

    def wait_for_signals(self, timeout: float) -> list[int]:
        """Wait as gunicorn does."""
        try:
            return [self.SIG_QUEUE.get(timeout=timeout)]
        except queue.Empty:
            return []

    def reap_workers(self) -> None:
        """Take away who has left."""
        for pid in self.leaving:
            self.WORKERS.pop(pid, None)

    def murder_workers(self) -> None:
        """Nobody hangs."""


class Service:
    """Two workers with an application each, their master, and the files that they all load from."""

    def __init__(self, settings: Settings) -> None:
        self.master, self.state = Master(), ReloadState()
        self.files = [Files(named("old")), Files(named("old"))]
        self.apps: list[flask.Flask] = []
        for slot, files in enumerate(self.files):
            self.apps.append(create_app(settings, make_classifier(files.load)))
            service_of(self.apps[slot]).classifier.warm_up()
            self.master.WORKERS[slot] = SimpleNamespace(slot=slot)
            self.master.reloaders[slot] = Reloader(*self._jobs(self.apps[slot]), self.state, slot)

    def _jobs(self, app: flask.Flask) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        """Return what prepares model and keys, and what puts them to use, as gunicorn.conf.py does."""
        found = service_of(app)

        def use(prepared: tuple[Served, KeySet]) -> None:
            found.classifier.use(prepared[0])
            found.keys.use(prepared[1])

        return lambda: (found.classifier.build(), found.keys.read()), use

    def reload(self, **times: float) -> None:
        """Do what SIGHUP does, and wait for the end of all threads."""
        reload_workers(self.master, self.state, **times)
        for thread in self.master.threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()

    @property
    def names(self) -> list[str]:
        """What each worker calls the photo."""
        answers = [app.test_client().post("/api/v1/predict?top=1", data=PHOTO) for app in self.apps]
        return [answer.json["predictions"][0]["label"] for answer in answers]


@pytest.fixture
def service(make_settings: Callable[..., Settings]) -> Service:
    """Two warm workers."""
    return Service(make_settings())


def test_all_workers_serve_what_the_files_hold_now(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert service.names == ["old", "old"]
    for files in service.files:
        files.content = named("new")
    service.reload()
    assert service.names == ["new", "new"]
    assert "Reload 1 is done: 2 workers" in caplog.text


def test_none_changes_where_one_cannot_and_the_next_reload_may(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.files[0].content, service.files[1].content = named("new"), WeightsError("The file is cut short.")
    service.reload()
    assert service.names == ["old", "old"]
    assert "The file is cut short." in caplog.text
    assert "Reload 1 failed, and nothing has changed: a worker failed" in caplog.text
    service.files[1].content = named("new")
    service.reload()
    assert service.names == ["new", "new"]


class BlindEngine(FakeEngine):
    """See the same in everything."""

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """See black."""
        return super().infer(batch * 0, alone=alone)


def test_a_model_that_does_not_see_is_not_used(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    for files in service.files:
        files.content = named("new", BlindEngine())
    service.reload()
    assert service.names == ["old", "old"]
    assert "The model does not work: the known photo" in caplog.text


def test_keys_change_with_the_model(
    make_settings: Callable[..., Settings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text(FIRST)
    service = Service(make_settings(api_keys_file=path))
    path.write_text(SECOND)
    service.reload()
    rings = [service_of(app).keys.current for app in service.apps]
    assert [[key.name for key in ring.keys] for ring in rings] == [["second"], ["second"]]
    path.write_text("nonsense\n")
    for files in service.files:
        files.content = named("new")
    service.reload()
    assert "line 1" in caplog.text
    assert [service_of(app).classifier.load_model().labels[7].label for app in service.apps] == ["old", "old"]


def test_a_worker_that_never_answers_is_one_that_failed(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.files[0].content = named("new")
    del service.master.reloaders[1]
    service.reload(prepare_seconds=0.2)
    assert "a worker took longer than 0.2 seconds" in caplog.text
    assert service.names[0] == "old"


def test_a_worker_that_dies_ends_the_reload(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    del service.master.reloaders[1]
    service.master.leaving.append(1)
    service.reload()
    assert "a worker left" in caplog.text


def test_a_signal_to_stop_ends_the_reload_and_is_obeyed(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    del service.master.reloaders[1]
    for each in (signal.SIGHUP, signal.SIGTERM):
        service.master.SIG_QUEUE.put(each)
    service.reload()
    assert "the service is stopping" in caplog.text
    assert [service.master.SIG_QUEUE.get_nowait() for _ in range(2)] == [signal.SIGHUP, signal.SIGTERM]


def test_a_worker_that_starts_during_a_reload_takes_part(service: Service) -> None:
    reloader = service.master.reloaders.pop(1)
    for files in service.files:
        files.content = named("new")
    master = threading.Thread(target=service.reload)
    master.start()
    first = service.master.reloaders[0]
    while service.state[0][1] is not Step.PREPARED:
        first.follow().join(PATIENCE_SECONDS)
    service.master.reloaders[1] = reloader
    reloader.follow()
    master.join(PATIENCE_SECONDS)
    assert service.names == ["new", "new"]


class GatedEngine(FakeEngine):
    """Wait before the photo is computed."""

    def __init__(self) -> None:
        self.reached, self.gate = threading.Event(), threading.Event()

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Wait where it is the photo."""
        if batch[0, 0, 0, 0] == 7:
            self.reached.set()
            assert self.gate.wait(PATIENCE_SECONDS)
        return super().infer(batch, alone=alone)


@pytest.mark.parametrize("batches", [False, True])
def test_a_request_that_has_begun_ends_with_its_model_and_is_not_kept_as_the_new_one_s(
    make_settings: Callable[..., Settings], batches: bool
) -> None:
    engine = GatedEngine()
    engine.batches = batches
    app = create_app(make_settings(), make_classifier(lambda: named("old", engine)))
    answers: list[str] = []

    def ask() -> None:
        answer = app.test_client().post("/api/v1/predict?top=1", data=PHOTO)
        answers.append(answer.json["predictions"][0]["label"])

    asking = threading.Thread(target=ask)
    asking.start()
    assert engine.reached.wait(PATIENCE_SECONDS)
    service_of(app).classifier.use(Served(named("new")))
    ask()
    engine.gate.set()
    asking.join(PATIENCE_SECONDS)
    ask()
    assert answers == ["new", "old", "new"]
    service_of(app).classifier.close()
