"""Heads of a few classes, for tests of models of one's own."""

from __future__ import annotations

import numpy as np

from app.model.labels import Label
from app.model.own_format import Accuracy, OwnModel
from app.model.records import RECORDS

RESNET18 = RECORDS["resnet18"]


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
        "weights_sha256": RESNET18.sha256 + "0" * (64 - len(RESNET18.sha256)),
        "recipe": {"kind": "head", "strength": 0.1},
        "seed": 1,
        "data_sha256": "d" * 64,
        "photos": 30,
        "accuracy": Accuracy(90.0, 80.5, 95.5),
        "calibration": None,
        "created": "2026-01-02T03:04:05Z",
    }
    return OwnModel(**(values | changes))
