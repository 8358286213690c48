"""A model shows that it sees before anything depends on it, and models whose answers may differ are told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from fakes import CLASSES, FakeEngine, fake_model, known_crop, make_classifier

from app import create_app
from app.classifier import Classifier
from app.errors import ModelUnavailable
from app.model import KNOWN_CLASS, Model, check_model
from app.model.engines import Inference, Pixels
from app.model.labels import Label
from app.model.weights import PACKAGED
from app.settings import Settings


class Engine(FakeEngine):
    """Give these logits for everything, and note how it was called."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits.astype(np.float32)
        self.calls: list[bool] = []

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Give the logits."""
        self.calls.append(alone)
        return Inference(self.logits, np.ones((1, 4, 7, 7), np.float32))


def logits(first: int = KNOWN_CLASS, classes: int = CLASSES, value: float = 1.0) -> np.ndarray:
    """Make logits whose largest is that of one class."""
    row = np.zeros((1, classes))
    row[0, first] = value
    return row


def unpublished(model: Model) -> Model:
    """Take a model's weights for somebody's own."""
    return dataclasses.replace(model, weights=dataclasses.replace(model.weights, sha256="0" * 64))


def test_known_photo_is_classified_in_every_way() -> None:
    engine = Engine(logits())
    check_model(fake_model(engine), known_crop())
    assert sorted(engine.calls) == [False, True]


def test_published_weights_must_know_the_photo() -> None:
    with pytest.raises(ModelUnavailable, match="class 967, got class 5"):
        check_model(fake_model(Engine(logits(5))), known_crop())


def test_own_weights_may_see_something_else_in_it() -> None:
    check_model(unpublished(fake_model(Engine(logits(5)))), known_crop())


@pytest.mark.parametrize("given", [logits(classes=999), logits(value=np.nan), logits(value=np.inf)])
def test_any_weights_must_give_a_finite_number_for_each_class(given: np.ndarray) -> None:
    with pytest.raises(ModelUnavailable, match="no finite number for each class"):
        check_model(unpublished(fake_model(Engine(given))), known_crop())


def test_real_packaged_model_knows_the_photo(packaged_classifier: Classifier) -> None:
    check_model(packaged_classifier.load_model(), known_crop())


def test_other_names_make_another_model() -> None:
    model = fake_model()
    renamed = dataclasses.replace(model, labels=(Label(0, None, "bird", None), *model.labels[1:]))
    assert model.identity == renamed.identity
    assert model.fingerprint == fake_model().fingerprint
    assert len({each.fingerprint for each in (model, renamed, unpublished(model))}) == 3


def test_why_a_fallback_serves_is_told_without_the_host(make_settings: Callable[..., Settings]) -> None:
    model = fake_model()
    reason = "http://mirror.internal:8080/resnet18.pth cannot be reached: /srv/cache is full."
    model = dataclasses.replace(model, weights=dataclasses.replace(model.weights, source=PACKAGED, reason=reason))
    answer = create_app(make_settings(), make_classifier(lambda: model)).test_client().get("/api/v1/model")
    said = "ResNet-18 could not be downloaded when the service was set up. Its log has the reason."
    assert (answer.json["fallback"], answer.json["fallback_reason"]) == (True, said)
    assert "internal" not in answer.text
