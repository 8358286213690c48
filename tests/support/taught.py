"""Projects for tests: an engine whose embedding follows the photo's colour, and photos of few colours."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from fakes import FakeEngine, colour_png, decoders, fake_model
from own_heads import SHA256

from app.classifier import Classifier
from app.model import Model
from app.model.engines import Inference, Pixels
from app.model.served import Served
from app.queueing.scheduling import NO_DEADLINE
from app.teaching import database
from app.teaching.photos import Taken, Upload
from app.teaching.projects import Projects
from app.teaching.teaching import Teaching

CHANNELS = 64
COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200), "grey": (120, 120, 120)}
_DIRECTIONS = np.random.default_rng(3).normal(0, 1, (3, CHANNELS))
_SHIFTS = np.random.default_rng(4).uniform(0, 2 * np.pi, CHANNELS)


class ColourEngine(FakeEngine):
    """Compute features from the colour at a crop's centre: like colours have like embeddings."""

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch."""
        found = super().infer(batch, alone=alone)
        centre = batch.shape[1] // 2
        angles = batch[:, centre, centre].astype(np.float64) @ _DIRECTIONS / 70 + _SHIFTS
        features = np.maximum(np.sin(angles), 0).astype(np.float32)
        return Inference(found.logits, np.repeat(features[:, :, None, None], 49, axis=2).reshape(-1, CHANNELS, 7, 7))


def colour_classifier(models: Path | None = None, weights_sha256: str = SHA256) -> Classifier:
    """Make a classifier of `ColourEngine`, whose weights have this digest."""
    model = fake_model(ColourEngine())
    weights = dataclasses.replace(model.weights, sha256=weights_sha256)
    backbone: Model = dataclasses.replace(model, weights=weights)
    return Classifier(lambda: Served(backbone, models), decoders())


def photo_of(colour: str, seed: int) -> bytes:
    """Make a photo near a colour."""
    random = np.random.default_rng([seed, *colour.encode()])
    return colour_png(*(int(each) for each in np.clip(random.normal(COLOURS[colour], 25), 0, 255)))


def make_teaching(root: Path, classifier: Classifier | None = None, *, max_bytes: int = 2**30) -> Teaching:
    """Make the teaching of one process."""
    return Teaching(Projects(root, max_bytes), classifier or colour_classifier(), max_pixels=10**6)


def teach(teaching: Teaching, name: str, photos: dict[str, int], *, keep_photos: bool = False) -> list[Taken]:
    """Make a project, unless there is one, with classes named after colours and so many photos of each."""
    teaching.create(name, keep_photos=keep_photos)
    taken = []
    for colour, count in photos.items():
        teaching.put_class(name, colour, None, None)
        uploads = [Upload(f"{colour}-{seed}.png", photo_of(colour, seed)) for seed in range(count)]
        taken += teaching.add(name, colour, uploads, NO_DEADLINE)[1]
    return taken


def count_photos(teaching: Teaching, name: str) -> int:
    """Count the photos in a project's file."""
    with database.reading(teaching.projects.path(name)) as connection:
        return int(connection.execute("SELECT count(*) FROM photos").fetchone()[0])
