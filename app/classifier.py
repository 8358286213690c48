"""`Classifier`: photos in, predictions out; loads its model once per process, on first use."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .engines import Engine, Floats, Pixels, TorchEngine
from .errors import LabelsError, ModelUnavailable, WeightsError
from .images import Photo
from .labels import Label, imagenet_labels, read_labels
from .plan import make_plan
from .scheduling import Scheduler
from .settings import Settings
from .weights import Weights, find_weights

log = logging.getLogger(__name__)

LARGEST_BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """One class with its rank, from 1, and its softmax probability, rounded to 6 digits."""

    rank: int
    class_id: int
    wnid: str | None
    label: str
    label_zh: str | None
    confidence: float


@dataclass(frozen=True)
class Model:
    """A loaded model with the names of its classes and where its weights came from."""

    engine: Engine
    labels: tuple[Label, ...]
    weights: Weights

    @property
    def identity(self) -> dict[str, object]:
        """Say which model answered, as every answer does."""
        return {
            "name": self.weights.record.name,
            "weights_sha256": self.weights.sha256,
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "fallback": self.weights.is_fallback,
        }


def load_model(settings: Settings) -> Model:
    """Find the weights, check them against the labels, and load them into the engine."""
    labels = read_labels(settings.labels) if settings.labels else imagenet_labels()
    weights = find_weights(settings)
    threads = make_plan(settings).compute_threads
    model = Model(TorchEngine(weights, classes=len(labels), compute_threads=threads), labels, weights)
    log.info("Serving %s from %s (%s).", weights.record.name, weights.path, weights.source)
    if weights.is_fallback:
        log.warning("This is the packaged fallback, not ResNet-18: %s", weights.reason)
    return model


class Classifier:
    """The one model of a process. `load` builds it on first use; a load that fails is tried again at the next."""

    def __init__(self, load: Callable[[], Model]) -> None:
        self._load = load
        self._loading = threading.Lock()
        self._model: Model | None = None
        self._scheduler = Scheduler()
        self.is_warm = False
        self.failure: str | None = None

    @property
    def model(self) -> Model:
        """Return the model, loading it first if none is loaded; raises ModelUnavailable with the reason."""
        if self._model is None:
            with self._loading:
                if self._model is None:  # another thread may have loaded it while this one waited
                    self._model = self._try_load()
        return self._model

    @property
    def loaded_model(self) -> Model | None:
        """Return the model if it is loaded; never loads it."""
        return self._model

    def _try_load(self) -> Model:
        try:
            model = self._load()
        except (WeightsError, LabelsError) as error:
            self.failure = str(error)
            raise ModelUnavailable(str(error)) from error
        self.failure = None
        return model

    def warm_up(self) -> None:
        """Load the model and classify a drawn picture, so that the first visitor does not wait for it."""
        side = self.model.weights.record.geometry.crop
        ramp = np.linspace(0, 255, side, dtype=np.uint8)
        crop = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.uint8(128)), axis=-1)
        self._logits([np.ascontiguousarray(crop)])
        self.is_warm = True

    def predict(self, photos: Sequence[Photo], *, top: int = 3) -> list[list[Prediction]]:
        """Return the `top` most likely classes of each photo, the likeliest first."""
        model = self.model
        crops = [photo.crop(model.weights.record.geometry) for photo in photos]
        return [_predictions(logits, model.labels, top) for logits in self._logits(crops)]

    def _logits(self, crops: list[Pixels]) -> list[Floats]:
        infer = self.model.engine.infer
        rows: list[Floats] = []
        for start in range(0, len(crops), LARGEST_BATCH):
            batch = np.stack(crops[start : start + LARGEST_BATCH])
            rows.extend(self._scheduler.run(functools.partial(infer, batch)).logits)
        return rows


def softmax(logits: Floats) -> Floats:
    """Turn the logits of one photo into probabilities that add up to 1."""
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def _predictions(logits: Floats, labels: tuple[Label, ...], top: int) -> list[Prediction]:
    probabilities = softmax(logits)
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [
        Prediction(
            rank,
            label.class_id,
            label.wnid,
            label.label,
            label.label_zh,
            round(float(probabilities[label.class_id]), 6),
        )
        for rank, label in enumerate((labels[index] for index in order), start=1)
    ]
