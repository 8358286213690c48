"""Fine-tuned models of a few classes: backbones whose tensors were changed a little, with a head on them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from own_heads import own_model

from app.model.backbones import load_backbone
from app.model.backbones.tuned import trunk_names
from app.model.backbones.untrained import untrained_backbone
from app.model.own_models import write_version
from app.model.records import RECORDS
from app.model.weights import packaged_weights

CLASSES = ("cat", "dog", "cup", "鸟", "car")
CHANNELS = {"resnet18": 512, "efficientnet_lite0": 1280}


@functools.cache
def published_trunk(backbone: str) -> dict[str, np.ndarray]:
    """Return the tensors of a backbone without its head: the packaged weights, or random ones for ResNet-18."""
    record = RECORDS[backbone]
    loaded = load_backbone(packaged_weights(""), 1000) if record.package else untrained_backbone(record)
    state = loaded.network.state_dict()
    return {name: state[name].numpy() for name in trunk_names(loaded.network, record)}


def tuned_trunk(backbone: str, seed: int) -> dict[str, np.ndarray]:
    """Return a backbone's tensors without its head, each changed by about a hundredth."""
    numbers = np.random.default_rng(seed)
    return {
        name: each * (1 + np.float32(0.01) * numbers.standard_normal(each.shape, np.float32))
        for name, each in published_trunk(backbone).items()
    }


def write_tuned(
    root: Path, name: str, *, backbone: str = "efficientnet_lite0", seed: int = 1, **changes: object
) -> int:
    """Write a fine-tuned model as the next version of a name; another seed makes other weights and another head."""
    numbers = np.random.default_rng(seed)
    values: dict[str, object] = {
        "backbone": backbone,
        "weight": (20 * numbers.normal(size=(len(CLASSES), CHANNELS[backbone]))).astype(np.float32),
        "bias": numbers.normal(size=len(CLASSES)).astype(np.float32),
        "recipe": {"kind": "tuned"},
    }
    return write_version(root, name, own_model(*CLASSES, **(values | changes)), tuned_trunk(backbone, seed))
