"""Heads of a few classes, for tests of models of one's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from fakes import FakeEngine, decoders, fake_model

from app.classifier import Classifier
from app.model import Model
from app.model.labels import Label
from app.model.own_format import Accuracy, OwnModel
from app.model.own_models import write_version
from app.model.records import RECORDS
from app.model.served import Served

RESNET18 = RECORDS["resnet18"]
SHA256 = RESNET18.sha256.ljust(64, "0")


def own_model(*names: str, channels: int = 4, favourite: int = 0, **changes: object) -> OwnModel:
    """Make a head on ResNet-18 whose most likely class is always the same one."""
    names = names or ("cat", 'dog, "big"', "杯")
    bias = np.zeros(len(names), np.float32)
    bias[favourite] = 3
    values = {
        "weight": np.arange(len(names) * channels, dtype=np.float32).reshape(len(names), channels) / 100,
        "bias": bias,
        "labels": tuple(Label(index, None, name, None) for index, name in enumerate(names)),
        "backbone": "resnet18",
        "weights_sha256": SHA256,
        "recipe": {"kind": "head", "strength": 0.1},
        "seed": 1,
        "data_sha256": "d" * 64,
        "photos": 30,
        "accuracy": Accuracy(90.0, 80.5, 95.5),
        "calibration": None,
        "created": "2026-01-02T03:04:05Z",
    }
    return OwnModel(**(values | changes))


def backbone_model(engine: FakeEngine | None = None) -> Model:
    """Make the fake model with the digest of the weights on which `own_model` is a head."""
    model = fake_model(engine)
    return dataclasses.replace(model, weights=dataclasses.replace(model.weights, sha256=SHA256))


def classifier_with_heads(root: Path, default: str = "", engine: FakeEngine | None = None) -> Classifier:
    """Make a classifier that answers at once, with the heads `pets` and `tools` besides the fake backbone."""
    backbone = backbone_model(engine)
    for name, favourite in (("pets", 1), ("tools", 0)):
        write_version(root, name, own_model(favourite=favourite))
    return Classifier(lambda: Served(backbone, root, default), decoders())
