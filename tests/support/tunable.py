"""A small real network with random weights, and what a head learns of a few photos by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from safetensors.torch import save_file

from app.model import Model
from app.model.backbones.untrained import untrained_backbone
from app.model.digests import file_sha256
from app.model.engines.torch_engine import TorchEngine
from app.model.labels import Label
from app.model.records import RECORDS, ModelRecord
from app.model.weights import Weights
from app.photos.decoding import Geometry
from app.settings import Settings
from app.training.backbones import Chosen
from app.training.embeddings import embed
from app.training.findings import examine
from app.training.learning import Lesson, learn
from app.training.photosets import PhotoSet, open_photo_set

SMALL = dataclasses.replace(RECORDS["mobilenet_v3_small"], geometry=Geometry(36, 32))
PICTURES = {"cat": skimage.data.chelsea, "coffee": skimage.data.coffee, "rocket": skimage.data.rocket}
SIDE = 100


def write_parts(folder: Path, count: int) -> Path:
    """Write random parts of a picture for each class, with noise, so that few are near-duplicates."""
    random = np.random.default_rng(5)
    for label, picture in PICTURES.items():
        (folder / label).mkdir(parents=True)
        pixels = picture()
        for number in range(count):
            top, left = (int(random.integers(0, size - SIDE)) for size in pixels.shape[:2])
            part = pixels[top : top + SIDE, left : left + SIDE] + random.normal(0, 25, (SIDE, SIDE, 3))
            Image.fromarray(part.clip(0, 255).astype(np.uint8)).save(folder / label / f"{number}.png")
    return folder


def small_model(folder: Path, record: ModelRecord = SMALL) -> Model:
    """Make a network that takes 32 pixels a side, with random weights in a file, and the engine that computes it."""
    path = folder / "small.safetensors"
    network = untrained_backbone(record).network
    save_file(network.state_dict(), path)
    weights = Weights(path, file_sha256(path), record, "made by a test")
    labels = tuple(Label(number, None, f"class {number}", None) for number in range(1000))
    engine = TorchEngine(weights, classes=1000, precision="fp32", cpus=1)
    return Model(engine, labels, weights)


def teach(photos: Path, model: Model, settings: Settings) -> tuple[Chosen, PhotoSet, Lesson]:
    """Learn a head of a folder of photos."""
    photo_set = open_photo_set(photos)
    embedded = embed(photo_set, model, settings, lambda done, total: None)
    findings = examine(embedded, photo_set.classes, lambda done, total: None)
    chosen = Chosen(model, settings, findings, {})
    return chosen, photo_set, learn(chosen, photo_set, has_flip=True, seed=0, step=lambda name, done, total: None)


def interrupt_at(start: str) -> Callable[[str], None]:
    """Press Ctrl-C once when a line begins so."""
    waiting = [start]

    def said(line: str) -> None:
        if waiting and line.startswith(waiting[0]):
            waiting.clear()
            raise KeyboardInterrupt

    return said


class Killed(Exception):
    """Ends a run as a kill does: nothing in the code expects it."""


def kill_at(start: str) -> Callable[[str], None]:
    """End the run when a line begins so."""

    def said(line: str) -> None:
        if line.startswith(start):
            raise Killed

    return said
