"""The torch modules that can serve. Only torch's engine, and commands that prepare, import this package."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from ...errors import WeightsError
from ...parsers import is_model_file
from ...settings import Settings
from ..download import Progress
from ..records import RECORDS, TIMM, ModelRecord, find_record
from ..weights import Weights, explicit_weights, find_weights
from .checkpoints import State, read_state, with_own_head
from .families import FAMILIES, Family, Parts
from .timm_family import timm_family, timm_record, timm_weights


class Backbone(nn.Module):
    """Map uint8 RGB of shape (n, side, side, 3) to float32 logits (n, classes) and features (n, C, h, w).

    `network` is the model as its own package builds it, of which `features` and `head` are parts.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, parts: Parts, record: ModelRecord) -> None:
        super().__init__()
        self.network = network
        self.features = parts.features
        self.head = parts.head
        self.register_buffer("mean", torch.tensor(record.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(record.std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 RGB of shape (n, side, side, 3) into the network's input (n, 3, side, side)."""
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalise, extract the last feature map and classify it."""
        features = self.features(self.normalise(pixels))
        return self.head(features), features


def find_weights_to_load(settings: Settings, *, progress: Progress | None = None) -> Weights:
    """Find the weights to serve as `find_weights` does, and also those of timm's models, which need timm."""
    if is_model_file(settings.model):
        raise WeightsError(
            f"TOPTHREE_MODEL names {settings.model}, which only serves; name a model of 'topthree backbones' here."
        )
    if not settings.model.startswith(TIMM):
        return find_weights(settings, progress=progress)
    record = timm_record(settings.model)
    if settings.weights is None:
        return timm_weights(record)
    # Without an address, its prepared model is not taken for one of the hub's weights later.
    return explicit_weights(settings, dataclasses.replace(record, source=""))


def load_backbone(weights: Weights, classes: int) -> Backbone:
    """Build the weights' model in eval mode and load them.

    The file is read once, so that the bytes that were hashed are loaded. Raises WeightsError, in one sentence, for a
    file that was replaced after it was verified, is damaged, of another architecture, or of another number of classes
    than the labels name.
    """
    record = weights.record
    family = family_of(record)
    state = _named_as_today(read_state(weights), family)
    head = state.get(f"{family.classifier}.weight")
    if head is not None and head.ndim and len(head) != classes:
        raise WeightsError(
            f"{weights.path} has {len(head)} classes, but the labels name {classes}; "
            "set TOPTHREE_LABELS to a file with one name for each class."
        )
    network = build_network(family, record.architecture, classes)
    try:
        network.load_state_dict(state, assign=True)
        network.float()
    except (RuntimeError, TypeError, AttributeError) as error:
        raise WeightsError(_why_it_does_not_fit(weights, state, error)) from error
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        raise WeightsError(f"{weights.path} holds numbers that are not finite.")
    return Backbone(network, family.split(network), record).eval().requires_grad_(False)


def any_record(name: str) -> ModelRecord:
    """Return the record of a model in our table, or of a model of timm if the name begins with `timm/`."""
    return timm_record(name) if name.startswith(TIMM) else find_record(name)


def family_of(record: ModelRecord) -> Family:
    """Return how a model is built and divided."""
    return timm_family(record) if record.name.startswith(TIMM) else FAMILIES[record.family]


def _named_as_today(state: State, family: Family) -> State:
    return with_own_head({family.rename(name): value for name, value in state.items()}, family.classifier)


def build_network(family: Family, architecture: str, classes: int) -> nn.Module:
    """Build a network, without weights if its builder allows that, since initialising them takes seconds."""
    with torch.device("meta" if family.builds_empty else "cpu"):
        return family.build(architecture, classes)


def _why_it_does_not_fit(weights: Weights, state: State, error: Exception) -> str:
    path, name = weights.path, weights.record.name
    stem = next((value for value in state.values() if value.ndim == 4), None)
    if stem is not None and stem.shape[1] == 1:
        return f"{path} takes pictures of one channel, and photos have three: train it on RGB."
    likely = [record.name for record in RECORDS.values() if record.name != name and _looks_like(state, record)]
    if likely:
        return f"{path} looks like {likely[0]}; set TOPTHREE_MODEL={' or '.join(likely)}."
    reason = " ".join(str(error).split())[:200]
    return f"{path} does not fit {name}: {reason}"


def _looks_like(state: State, record: ModelRecord) -> bool:
    """Return whether a state dict has a model's parameters, with any number of classes."""
    family = FAMILIES[record.family]
    state = _named_as_today(state, family)
    weight = state.get(f"{family.classifier}.weight")
    if weight is None or weight.ndim != 2:
        return False
    classes, channels = weight.shape
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    parameters = sum(value.numel() for name, value in state.items() if not name.endswith(statistics))
    if parameters + (1000 - classes) * (channels + 1) != record.parameters:
        return False
    expected = build_network(family, record.architecture, classes).state_dict()
    return all(name in state and state[name].shape == value.shape for name, value in expected.items() if value.ndim)
