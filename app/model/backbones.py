"""The torch modules that can serve. Only the engine that needs torch, and offline jobs, import this file."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torchvision.models import resnet18

from ..errors import WeightsError
from .digests import bytes_sha256
from .weights import EFFICIENTNET_LITE0, ModelRecord, Weights

# What reading damaged or hostile bytes raises: a pickle can fail at any of its instructions.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.PickleError,
    safetensors.SafetensorError,
    struct.error,
)
_HEAD_WEIGHT = {"resnet18": "fc.weight", "efficientnet_lite0": "_fc.weight"}


class Backbone(nn.Module):
    """Map uint8 RGB of shape (n, 224, 224, 3) to float32 logits (n, classes) and features (n, C, 7, 7)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, features: nn.Module, head: nn.Linear, record: ModelRecord) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.register_buffer("mean", torch.tensor(record.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(record.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalise, extract the last feature map, pool it and classify."""
        normalised = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        features = self.features(normalised)
        return self.head(features.mean(dim=(2, 3))), features


class _LiteFeatures(nn.Module):
    """EfficientNet-Lite0 up to its last feature map, without the pooling and classifier of its package."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, normalised: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network.extract_features(normalised)  # type: ignore[operator]
        return features


def load_backbone(weights: Weights, classes: int) -> Backbone:
    """Build the weights' model in eval mode and load them.

    The file is read once, so that what was hashed is what is loaded. Raises WeightsError, in one sentence, for a file
    that is no longer the one that was verified, is damaged, of another architecture, or of another number of classes
    than the labels name.
    """
    state = _read_state(weights)
    head = state.get(_HEAD_WEIGHT[weights.record.name])
    if head is not None and head.ndim and len(head) != classes:
        raise WeightsError(
            f"{weights.path} has {len(head)} classes, but the labels name {classes}; "
            "set TOPTHREE_LABELS to a file with one name for each class."
        )
    build = _efficientnet_lite0 if weights.record.name == EFFICIENTNET_LITE0.name else _resnet18
    try:
        backbone = build(state, classes, weights.record)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{weights.path} does not fit {weights.record.name}: {reason}") from error
    if not all(bool(value.isfinite().all()) for value in backbone.state_dict().values()):
        raise WeightsError(f"{weights.path} holds numbers that are not finite.")
    return backbone.eval().requires_grad_(False)


def _read_state(weights: Weights) -> dict[str, torch.Tensor]:
    path, content = weights.path, _read_verified(weights)
    try:
        if path.suffix.lower() == ".safetensors":
            loaded: object = safetensors.torch.load(content)
        else:
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise WeightsError(f"{path} is not a weights file: it is damaged, or holds more than weights.") from error
    if isinstance(loaded, Mapping):  # training scripts put the state dict beside the optimiser's, under one of these
        loaded = next((loaded[key] for key in ("state_dict", "model") if key in loaded), loaded)
    state = dict(loaded) if isinstance(loaded, Mapping) else {}
    if not state or not all(isinstance(key, str) and isinstance(state[key], torch.Tensor) for key in state):
        raise WeightsError(f"{path} is not a state dict of tensors.")
    consume_prefix_in_state_dict_if_present(state, "module.")  # left by DataParallel
    return state


def _read_verified(weights: Weights) -> bytes:
    try:
        content = weights.path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{weights.path} cannot be read: {error.strerror or error}.") from error
    if bytes_sha256(content) != weights.sha256:
        raise WeightsError(f"{weights.path} was changed after its SHA-256 had been checked; start again.")
    return content


def _resnet18(state: Mapping[str, torch.Tensor], classes: int, record: ModelRecord) -> Backbone:
    network = resnet18(num_classes=classes)
    network.load_state_dict(state)
    features = nn.Sequential(*list(network.children())[:-2])  # all but the pooling and the classifier
    return Backbone(features, network.fc, record)


def _efficientnet_lite0(state: Mapping[str, torch.Tensor], classes: int, record: ModelRecord) -> Backbone:
    network = EfficientNet.from_name("efficientnet-lite0", num_classes=classes)
    network.load_state_dict(state)
    return Backbone(_LiteFeatures(network), network._fc, record)
