"""`Model`: an engine with the names of its classes; how it is loaded, and how a known photo checks it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelUnavailable
from ..processes.plan import choose_engine, make_plan
from ..settings import Settings
from .artifact import Manifest, Prepared
from .calibration import Calibration, find_calibration
from .certainty import NO_JUDGE, Judge
from .engines import (
    DeviceClient,
    DeviceEngine,
    Engine,
    Inference,
    OpenVINOEngine,
    Pixels,
    check_classes,
    choose_precision,
)
from .groups import groups_of
from .heads import Floats, Head, own_logits
from .labels import Label, load_labels
from .opening import open_serving
from .own_format import OwnModel
from .records import DEFAULT_NAME
from .weights import BUNDLE, Weights

log = logging.getLogger(__name__)

# A cup of coffee, which published models take for class 967, espresso.
KNOWN_PHOTO = Path(__file__).with_name("check.webp")
KNOWN_CLASS = 967
KNOWN_PIXELS = 1_000_000
# Most models name it first; a model that computes nonsense names it among the first five once in 200 times.
KNOWN_WITHIN = 5


@dataclass(frozen=True)
class Model:
    """A loaded model with the names of its classes, where its weights came from, and what judges its answers.

    `own` is a model of one's own, whose head computes from the engine's features in place of the published head.
    """

    engine: Engine
    labels: tuple[Label, ...]
    weights: Weights
    manifest: Manifest | None = None
    judge: Judge = NO_JUDGE
    own: OwnModel | None = None

    @property
    def name(self) -> str:
        """Return the name by which a request asks for the model."""
        return self.own.name if self.own else self.weights.record.name

    @property
    def version(self) -> int:
        """Return the version of a model of one's own, 0 for a published model and for a head without a version."""
        return self.own.version if self.own else 0

    @functools.cached_property
    def head(self) -> Head | None:
        """Return the head that turns features into heat maps; None for a published model without them."""
        return Head(self.own.weight) if self.own else self.engine.head

    def logits(self, inference: Inference) -> Floats:
        """Return the logits (n, classes) of what the engine computed for n crops."""
        if self.own is None:
            return inference.logits
        return own_logits(inference.embeddings, self.own.weight, self.own.bias)

    @property
    def identity(self) -> dict[str, Any]:
        """Return the facts that identify the model in answers and metrics."""
        facts: dict[str, Any] = {
            "name": self.name,
            "display_name": self.name if self.own else self.weights.record.display_name,
            "weights_sha256": self.weights.sha256,
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "fallback": self.weights.is_fallback and self.own is None,
        }
        if self.own is not None:
            facts |= {"version": self.version} if self.version else {}  # a head that is not published has none
            facts |= {"backbone": self.own.backbone, "head_sha256": self.own.sha256}
        return facts

    @functools.cached_property
    def fingerprint(self) -> str:
        """Return a digest of the identity, all names and the calibration.

        Models whose answers may differ have different ones.
        """
        parts = (self.identity, self.labels, self.judge.calibration)
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def load_model(settings: Settings, device: DeviceClient | None = None) -> tuple[Model, OwnModel | None]:
    """Find the weights or their prepared model, compare them with the labels, and load them into an engine.

    With a `device`, torch's engine is in its process. Return the published model, and the model of one's own that the
    bundle of TOPTHREE_BUNDLE holds, if any.
    """
    bundled: OwnModel | None = None
    carried: Calibration | None = None
    if choose_engine(settings.engine) == "torch":
        model = _load_torch(settings) if device is None else _load_on_device(settings, device)
    else:
        prepared = open_serving(settings)
        model = load_prepared(settings, prepared)
        bundled, carried = prepared.own, prepared.calibration
    if bundled is not None and bundled.trunk is not None:
        return with_own(model, bundled), bundled
    weights = model.weights
    model = dataclasses.replace(model, judge=_make_judge(model, find_calibration(settings.cache, weights, carried)))
    log.info("Loaded %s from %s (%s).", weights.record.name, weights.path, weights.source)
    if weights.is_fallback:
        log.warning(
            "Using the built-in model, %s, instead of %s: %s %s",
            weights.record.name,
            DEFAULT_NAME,
            weights.reason,
            _advice(weights),
        )
    return model, bundled


def _load_torch(settings: Settings) -> Model:
    from .backbones import find_weights_to_load  # which imports torch
    from .engines.torch_engine import TorchEngine

    labels = load_labels(settings.labels)
    weights = find_weights_to_load(settings)
    cpus = make_plan(settings).cpus_per_worker
    return Model(TorchEngine(weights, classes=len(labels), precision=settings.precision, cpus=cpus), labels, weights)


def _load_on_device(settings: Settings, device: DeviceClient) -> Model:
    labels = load_labels(settings.labels)
    engine = DeviceEngine(device)
    return Model(engine, labels, engine.facts.weights)


def load_prepared(settings: Settings, prepared: Prepared) -> Model:
    """Load an artifact into OpenVINO's engine; the published head alone answers, and is not judged."""
    labels = load_labels(prepared.labels)
    check_classes(prepared, len(labels))
    plan = make_plan(settings)
    precision = choose_precision(settings.precision or prepared.manifest.precision)
    engine = OpenVINOEngine(prepared, precision=precision, cpus=plan.cpus_per_worker, threads_alone=plan.cpus)
    return Model(engine, labels, prepared.weights, prepared.manifest)


def with_own(model: Model, own: OwnModel) -> Model:
    """Return a model with the head, the names and the calibration of one's own; its features must suit the head."""
    judge = Judge(own.calibration, groups_of(own.labels), own.bias, own.centres)
    return dataclasses.replace(model, labels=own.labels, own=own, judge=judge)


def _make_judge(model: Model, calibration: Calibration | None) -> Judge:
    if calibration is None:
        return NO_JUDGE
    bias = None if calibration.unlike_below is None else head_bias(model)
    return Judge(calibration, groups_of(model.labels), bias)


def head_bias(model: Model) -> Floats | None:
    """Return the bias (classes) of the published last layer, which the rejection score needs.

    It is None if the head is not a single linear layer.
    """
    head, side = model.engine.head, model.weights.record.geometry.crop
    if head is None or head.hidden_weight is not None:
        return None
    black = model.engine.infer(np.zeros((1, side, side, 3), np.uint8))
    return np.asarray(black.logits[0] - head.logits(black.features[0]))


def _advice(weights: Weights) -> str:
    if weights.source == BUNDLE:
        return f"To serve {DEFAULT_NAME}, make the bundle on a machine that can download its weights."
    return "'topthree weights --fetch' tries the download again."


def check_model(model: Model, crop: Pixels) -> None:
    """Check how a model classifies the crop of the known photo, with all processors and with one.

    With published weights the known class must be among the first five; with any others there must be a finite number
    for each class. Raises ModelUnavailable with the wrong result.
    """
    for alone in (True, False):
        _check_logits(model, model.engine.infer(crop[None], alone=alone).logits)


def _check_logits(model: Model, logits: Floats) -> None:
    if logits.shape != (1, len(model.labels)) or not np.isfinite(logits).all():
        raise ModelUnavailable("The model does not work: it gave no finite number for each class of the known photo.")
    first = np.argsort(-logits[0], kind="stable")[:KNOWN_WITHIN]
    if model.weights.is_published and KNOWN_CLASS not in first:
        raise ModelUnavailable(
            f"The model does not work: the known photo of an espresso, class {KNOWN_CLASS}, got class {first[0]}."
        )
