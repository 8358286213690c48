"""The classifier loads once, forgets failures, and turns logits into named predictions."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes import CLASSES, FakeEngine, colour_png, fake_classifier, fake_model, make_classifier

from app.errors import (
    ClientClosedRequest,
    DeadlineExceeded,
    ModelUnavailable,
    WeightsError,
)
from app.model import Model
from app.model.engines import Inference, Pixels
from app.model.verdicts import Outputs
from app.queueing.scheduling import Deadline, in_order, side_by_side

PIXELS = 10**7
PATIENCE_SECONDS = 20


def test_two_first_requests_load_once() -> None:
    loads, both_are_here = [], threading.Barrier(2)

    def load() -> Model:
        loads.append(1)
        return fake_model()

    classifier = make_classifier(load)

    def ask(_: int) -> Model:
        both_are_here.wait(PATIENCE_SECONDS)
        return classifier.load_model()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert first is second
    assert len(loads) == 1


def test_a_failed_load_is_told_and_tried_again() -> None:
    outcomes = [WeightsError("The disk is gone."), fake_model()]

    def load() -> Model:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    classifier = make_classifier(load)
    with pytest.raises(ModelUnavailable, match="The disk is gone"):
        classifier.classify(colour_png(1), max_pixels=PIXELS)
    assert classifier.failure is not None
    assert (classifier.failure.reason, classifier.failure.detail) == ("The disk is gone.", WeightsError.public)
    assert classifier.classify(colour_png(7), max_pixels=PIXELS).predictions[0].class_id == 7
    assert classifier.failure is None


def test_a_failed_load_fails_all_who_waited_for_it_once() -> None:
    loads, waiting = [], threading.Semaphore(0)

    class CountingLock:
        lock = threading.Lock()

        def __enter__(self) -> None:
            waiting.release()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    def load() -> Model:
        loads.append(1)
        for _ in range(4):
            assert waiting.acquire(timeout=PATIENCE_SECONDS)
        raise WeightsError("The disk is gone.")

    classifier = make_classifier(load)
    classifier._models._lock = CountingLock()

    def ask(_: int) -> None:
        with pytest.raises(ModelUnavailable, match="The disk is gone"):
            classifier.load_model()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    assert len(loads) == 1


def test_nothing_is_loaded_before_the_first_use() -> None:
    classifier = fake_classifier()
    assert classifier.loaded_model is None
    classifier.warm_up()
    assert classifier.loaded_model is not None


def test_predictions_are_ranked_named_and_rounded() -> None:
    answer = fake_classifier().classify(colour_png(134, 517, 281 % 256), Outputs(top=2), max_pixels=PIXELS)
    first, second = answer.predictions
    assert (first.rank, first.class_id, first.wnid, first.label, first.label_zh) == (
        1,
        134,
        "n02012849",
        "crane bird",
        "鹤",
    )
    assert second.rank == 2
    assert first.confidence > second.confidence
    assert first.confidence == round(first.confidence, 6)


def test_all_probabilities_add_up_to_one() -> None:
    answer = fake_classifier().classify(colour_png(3), Outputs(top=CLASSES), max_pixels=PIXELS)
    assert [prediction.rank for prediction in answer.predictions] == list(range(1, CLASSES + 1))
    assert sum(prediction.confidence for prediction in answer.predictions) == pytest.approx(1, abs=1e-3)


def test_heat_maps_come_with_the_crop_they_cover() -> None:
    answer = fake_classifier().classify(colour_png(5, size=(512, 256)), Outputs(heatmap=True), max_pixels=PIXELS)
    assert answer.heatmaps is not None
    assert np.asarray(answer.heatmaps).shape == (3, 7, 7)
    assert answer.image["crop"] == {"left": 0.28125, "top": 0.0625, "right": 0.71875, "bottom": 0.9375}


class RecordingEngine(FakeEngine):
    """Remembers for each inference whether it could use the whole machine, and can be held."""

    def __init__(self) -> None:
        self.alone: list[bool] = []
        self.started, self.go_on = threading.Event(), threading.Event()

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        self.alone.append(alone)
        self.started.set()
        assert self.go_on.wait(PATIENCE_SECONDS)
        return super().infer(batch)


def test_a_lone_photo_may_use_the_whole_machine_and_the_next_ones_may_not() -> None:
    engine = RecordingEngine()
    classifier = make_classifier(lambda: fake_model(engine), cpus=2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(classifier.classify, colour_png(1), max_pixels=PIXELS)
        assert engine.started.wait(PATIENCE_SECONDS)
        engine.started.clear()
        second = pool.submit(classifier.classify, colour_png(2), max_pixels=PIXELS)
        assert engine.started.wait(PATIENCE_SECONDS)
        engine.go_on.set()
        assert [future.result().predictions[0].class_id for future in (first, second)] == [1, 2]
    assert engine.alone == [True, False]


@pytest.mark.parametrize(
    ("deadline", "failure"),
    [(Deadline(expires=0), DeadlineExceeded), (Deadline(is_abandoned=lambda: True), ClientClosedRequest)],
)
def test_what_nobody_waits_for_is_not_computed(deadline: Deadline, failure: type[Exception]) -> None:
    engine = RecordingEngine()
    with pytest.raises(failure):
        make_classifier(lambda: fake_model(engine)).classify(colour_png(1), max_pixels=PIXELS, deadline=deadline)
    assert engine.alone == []


class BatchingEngine(FakeEngine):
    """An engine for which many photos at once pay."""

    batches = True

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        self.sizes.append(len(batch))
        return super().infer(batch)


def test_a_batching_engine_gets_batches_and_every_photo_its_own_answer() -> None:
    engine = BatchingEngine()
    classifier = make_classifier(lambda: fake_model(engine), cpus=1)
    photos = [colour_png(number) for number in range(40)]
    work = functools.partial(classifier.classify, max_pixels=PIXELS)
    answers = in_order(side_by_side(work, photos, classifier.max_parallel))
    assert [answer.predictions[0].class_id for answer in answers] == list(range(40))
    assert sum(engine.sizes) == 40
    classifier.close()


def test_times_are_measured_for_each_stage() -> None:
    answer = fake_classifier().classify(colour_png(1), max_pixels=PIXELS)
    assert answer.decode_seconds > 0
    assert answer.infer_seconds > 0
    assert answer.queue_seconds >= 0
