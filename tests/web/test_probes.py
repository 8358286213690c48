"""Probes: alive at once, ready only when every planned worker has named the known photo."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import flask
import pytest
from fakes import FakeEngine, colour_png, fake_classifier, fake_model, make_classifier
from flask.testing import FlaskClient
from shapes import assert_problem, form

from app import create_app
from app.errors import BrokenImage, BundleError, KeysError, LabelsError, WeightsError
from app.model import Model
from app.model.engines import Inference, Pixels
from app.processes.readiness import Readiness
from app.settings import Settings
from app.web.probes import HALT_SERVICE, keep_watch_in_background, warm_up_in_background
from app.web.service import service_of

PATIENCE_SECONDS = 10


def refuse() -> Model:
    """Fail as a loader without weights does."""
    raise WeightsError("The weights are not there.")


def join_warm_up() -> None:
    """Wait for the warm-up thread to end."""
    for thread in threading.enumerate():
        if thread.name == "warm-up":
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Let a blocked loader go on, at the latest when the test ends."""
    event = threading.Event()
    yield event
    event.set()
    join_warm_up()


@pytest.fixture
def loading_app(make_settings: Callable[..., Settings], released: threading.Event) -> flask.Flask:
    """An application whose model loads until `released` is set."""
    started = threading.Event()

    def load() -> Model:
        started.set()
        assert released.wait(PATIENCE_SECONDS)
        return fake_model()

    app = create_app(make_settings(), make_classifier(load))
    warm_up_in_background(app, Readiness(planned=1), slot=0)
    assert started.wait(PATIENCE_SECONDS)
    return app


def test_alive_while_the_model_loads(loading_app: flask.Flask) -> None:
    answer = loading_app.test_client().get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "alive"})


def test_ready_only_after_the_warm_up(loading_app: flask.Flask, released: threading.Event) -> None:
    client = loading_app.test_client()
    answer = client.get("/readyz")
    assert assert_problem(answer, 503, "model-unavailable") == "0 of 1 workers have a model."
    released.set()
    join_warm_up()
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert (answer.json["status"], answer.json["workers"], answer.json["model"]["name"]) == ("ready", 1, "resnet18")


def test_not_ready_says_when_to_ask_again(loading_app: flask.Flask) -> None:
    assert int(loading_app.test_client().get("/readyz").headers["Retry-After"]) > 0


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_never_stored(client: FlaskClient, path: str) -> None:
    assert client.get(path).headers["Cache-Control"] == "no-store"


def test_probes_load_nothing(make_settings: Callable[..., Settings]) -> None:
    loads: list[int] = []
    classifier = make_classifier(lambda: loads.append(1) or fake_model())
    client = create_app(make_settings(), classifier).test_client()
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    assert loads == []


def test_a_loaded_model_that_has_not_answered_is_not_ready(make_settings: Callable[..., Settings]) -> None:
    classifier = fake_classifier()
    client = create_app(make_settings(), classifier).test_client()
    assert classifier.load_model() is classifier.loaded_model
    assert_problem(client.get("/readyz"), 503, "model-unavailable")


def test_ready_needs_every_planned_worker(app: flask.Flask, client: FlaskClient) -> None:
    readiness = Readiness(planned=2)
    warm_up_in_background(app, readiness, slot=1)
    join_warm_up()
    assert "1 of 2 workers" in assert_problem(client.get("/readyz"), 503, "model-unavailable")
    readiness.mark(0, True)
    assert client.get("/readyz").json["workers"] == 2
    readiness.mark(0, False)
    assert_problem(client.get("/readyz"), 503, "model-unavailable")


@pytest.mark.parametrize("asked", [{"weights": "own.pth"}, {"precision": "int8"}])
def test_a_failure_of_named_weights_stops_the_service(
    make_settings: Callable[..., Settings], asked: dict[str, str]
) -> None:
    halts: list[int] = []
    app = create_app(make_settings(**asked), make_classifier(refuse))
    warm_up_in_background(app, Readiness(planned=1), slot=0, halt=halts.append)
    join_warm_up()
    assert halts == [HALT_SERVICE]


def test_after_another_failure_the_load_is_tried_again(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture, released: threading.Event
) -> None:
    failed = threading.Event()
    loads = iter([refuse, refuse, fake_model])
    app = create_app(make_settings(), make_classifier(lambda: next(loads)()))

    def pause(seconds: float) -> None:
        failed.set()
        assert released.wait(PATIENCE_SECONDS)

    warm_up_in_background(app, Readiness(planned=1), slot=0, pause=pause)
    assert failed.wait(PATIENCE_SECONDS)
    client = app.test_client()
    assert client.get("/healthz").status_code == 200
    assert assert_problem(client.get("/readyz"), 503, "model-unavailable") == WeightsError.public
    assert "No model is ready: The weights are not there." in caplog.text
    released.set()
    join_warm_up()
    assert client.get("/readyz").status_code == 200


class MoodyEngine(FakeEngine):
    """An engine that fails as a library does, for as long as it is broken."""

    is_broken = False

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        if self.is_broken:
            raise RuntimeError("The device is gone.")
        return super().infer(batch, alone=alone)


def test_readiness_follows_a_model_that_fails_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.classifier.DOUBT_SECONDS", 0.0)
    engine, turns, ended = MoodyEngine(), threading.Semaphore(0), threading.Semaphore(0)
    classifier, readiness = fake_classifier(engine), Readiness(planned=1)
    classifier.warm_up()

    def pause(_: float) -> None:
        ended.release()
        turns.acquire()  # in the end for good, as a daemon

    keep_watch_in_background(classifier, readiness, 0, pause=pause)
    assert ended.acquire(timeout=PATIENCE_SECONDS)
    for engine.is_broken in (True, False):
        with pytest.raises(BrokenImage):
            classifier.classify(colour_png(200)[:60], max_pixels=10**6)
        if not engine.is_broken:
            classifier.classify(colour_png(200), max_pixels=10**6)
        turns.release()
        assert ended.acquire(timeout=PATIENCE_SECONDS)
        assert readiness.warm_workers == int(not engine.is_broken)


INTERNAL = "/srv/models/own.pth of http://weights.internal:8080/resnet18.pth"


@pytest.mark.parametrize(
    "error",
    [
        *(kind(f"{INTERNAL} cannot be read.") for kind in (WeightsError, BundleError, LabelsError, KeysError)),
        OSError(5, "Input/output error", INTERNAL),
        *(kind(INTERNAL) for kind in (RuntimeError, ValueError, ImportError)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_answers_name_no_file_or_host_and_the_log_does(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail() -> Model:
        raise error

    app = create_app(make_settings(weights="own.pth"), make_classifier(fail))
    warm_up_in_background(app, Readiness(planned=1), slot=0, halt=lambda status: None)
    join_warm_up()
    client, photo = app.test_client(), form(colour_png(1))
    answers = [
        client.get("/readyz"),
        client.get("/api/v1/model"),
        client.post("/api/v1/predict", **form(colour_png(1))),
    ]
    for answer in answers:
        detail = assert_problem(answer, 503, "model-unavailable")
        assert detail.endswith("The service's log has the reason.")
        assert answer.headers["Retry-After"]
    answers += [client.post("/api/v1/predict/batch", **form(colour_png(1))), client.post("/", **photo)]
    assert [answer.status_code for answer in answers] == [503] * 5
    assert not any("/srv" in answer.text or "internal:" in answer.text for answer in answers)
    assert INTERNAL in caplog.text


def test_a_model_that_does_not_work_says_so(make_settings: Callable[..., Settings]) -> None:
    class Blind(FakeEngine):
        def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
            inference = super().infer(batch, alone=alone)
            return Inference(inference.logits * 0, inference.features)

    app = create_app(make_settings(weights="own.pth"), make_classifier(lambda: fake_model(Blind())))
    warm_up_in_background(app, Readiness(planned=1), slot=0, halt=lambda status: None)
    join_warm_up()
    detail = assert_problem(app.test_client().get("/readyz"), 503, "model-unavailable")
    assert detail == "The model does not work: the known photo of an espresso, class 967, got class 0."


def test_a_draining_service_is_not_ready_and_counts_requests(
    make_settings: Callable[..., Settings], released: threading.Event
) -> None:
    reached = threading.Event()

    class Gated(FakeEngine):
        def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
            reached.set()
            assert released.wait(PATIENCE_SECONDS)
            return super().infer(batch, alone=alone)

    app = create_app(make_settings(), make_classifier(lambda: fake_model(Gated())))
    readiness = service_of(app).readiness
    readiness.is_draining = True
    client = app.test_client()
    photo = threading.Thread(target=lambda: app.test_client().post("/api/v1/predict", data=colour_png(1)))
    photo.start()
    assert reached.wait(PATIENCE_SECONDS)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["type"], answer.json["in_flight"]) == (503, "/problems/draining", 1)
    released.set()
    photo.join(PATIENCE_SECONDS)
    assert client.get("/readyz").json["in_flight"] == 0
    readiness.is_draining = False
    assert_problem(client.get("/readyz"), 503, "model-unavailable")


def test_refused_requests_leave_nothing_in_flight(app: flask.Flask, client: FlaskClient) -> None:
    for path in ("/none", "/metrics", "/api/v1/labels?x=1"):
        assert client.get(path).status_code >= 400
    assert service_of(app).readiness.in_flight == 0


def test_each_worker_knows_what_the_others_have_in_flight() -> None:
    readiness = Readiness(planned=2)
    readiness.count(1)
    assert readiness.in_flight_elsewhere() == 0
    readiness.slot = 1  # as the other worker sees it
    assert readiness.in_flight_elsewhere() == 1
    readiness.count(1)
    assert readiness.in_flight_elsewhere() == 1


def test_a_worker_that_leaves_takes_its_requests_along() -> None:
    readiness = Readiness(planned=2)
    readiness.slot = 1
    readiness.count(2)
    assert readiness.in_flight == 2
    readiness.forget(1)
    assert readiness.in_flight == 0


def test_a_late_failure_does_not_stop_workers_that_are_ready(
    make_settings: Callable[..., Settings], released: threading.Event
) -> None:
    readiness, paused, halts = Readiness(planned=2), threading.Event(), []
    readiness.mark(0, True)

    def pause(seconds: float) -> None:
        paused.set()
        assert released.wait(PATIENCE_SECONDS)

    loads = iter([refuse, fake_model])
    app = create_app(make_settings(weights="own.pth"), make_classifier(lambda: next(loads)()))
    warm_up_in_background(app, readiness, slot=1, halt=halts.append, pause=pause)
    assert paused.wait(PATIENCE_SECONDS)
    released.set()
    join_warm_up()
    assert halts == []
    assert readiness.warm_workers == 2
