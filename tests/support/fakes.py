"""Engines and models with known answers, for tests that steer what is computed."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.classifier import Classifier
from app.model import KNOWN_CLASS, KNOWN_PHOTO, Model
from app.model.engines import Inference, Pixels
from app.model.heads import Head
from app.model.labels import imagenet_labels
from app.model.records import RECORDS
from app.model.served import Served
from app.model.weights import Weights
from app.photos import supervisor
from app.photos.decoders import Decoders
from app.photos.decoding import decode

RESNET18 = RECORDS["resnet18"]

CLASSES = 1000


@functools.cache
def known_crop() -> Pixels:
    """The photo that every model is checked with, as a model sees it."""
    return decode(KNOWN_PHOTO.read_bytes(), max_pixels=10**6).crop(RESNET18.geometry)


class FakeEngine:
    """Answer with the colour at a crop's centre: red is the first class, green the second, blue the third.

    The known photo is known to it too.
    """

    name = "fake"
    precision = "fp32"
    batches = False
    head = Head(np.ones((CLASSES, 4), np.float32))
    grid = (7, 7)

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        logits = np.zeros((len(batch), CLASSES), np.float32)
        centre = batch.shape[1] // 2
        for row, crop in zip(logits, batch, strict=True):
            for score, class_id in zip((30, 29, 28), crop[centre, centre], strict=True):
                row[class_id] = max(row[class_id], score)
            if np.array_equal(crop, known_crop()):
                row[KNOWN_CLASS] = 31
        return Inference(logits, np.ones((len(batch), 4, 7, 7), np.float32))


def fake_model(engine: FakeEngine | None = None) -> Model:
    """Make a loaded model around a fake engine, as if ResNet-18's own weights were there."""
    weights = Weights(Path("resnet18.pth"), RESNET18.sha256, RESNET18, "cache")
    return Model(engine or FakeEngine(), imagenet_labels(), weights)


def fake_classifier(engine: FakeEngine | None = None) -> Classifier:
    """Make a classifier that answers at once, with what `FakeEngine` says."""
    return make_classifier(lambda: fake_model(engine))


def make_classifier(load: Callable[[], Model], *, cpus: int = 1) -> Classifier:
    """Make a classifier that decodes in processes that all tests of this process share."""
    return Classifier(lambda: Served(load()), decoders(), cpus=cpus)


class SharedDecoders(Decoders):
    """Decoders that a classifier cannot close, since other tests go on with them."""

    def close(self) -> None:
        """Leave them running."""


@functools.cache
def decoders() -> Decoders:
    """Start decoders that end with this process."""
    shared = SharedDecoders(3, max_bytes=64 * 2**20, memory_bytes=2**30)
    atexit.register(super(SharedDecoders, shared).close)
    return shared


def share_decoders(patch: pytest.MonkeyPatch, *modules: str) -> None:
    """Have classifiers that a command makes, and more modules, decode in the processes that tests of this one share.

    Processes of its own would take each call a second of processor time to start.
    """
    for module in ("app.classifier", *modules):
        patch.setattr(f"{module}.Decoders", lambda count, **limits: decoders())


def be_patient() -> None:
    """Give decoders of this process the time that they may take to start beside many other tests."""
    for limit in ("MAX_HELLO_SECONDS", "MAX_SILENT_SECONDS", "MAX_START_SECONDS", "MAX_WAIT_SECONDS"):
        setattr(supervisor, limit, 120.0)


def fallback_model() -> Model:
    """Make a model that says it is the packaged fallback."""
    model = fake_model()
    weights = dataclasses.replace(model.weights, source="packaged fallback", reason="The host cannot be reached.")
    return dataclasses.replace(model, weights=weights)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Encode a picture as a file's bytes."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def colour_png(red: int, green: int = 1, blue: int = 2, size: tuple[int, int] = (300, 260)) -> bytes:
    """Make a PNG of one colour, whose classes `FakeEngine` therefore knows."""
    return encode(Image.new("RGB", size, (red, green, blue)))
