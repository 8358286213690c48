"""How the networks of each family are built, and where they are divided: up to the last feature map, and after it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn


@dataclass(frozen=True)
class Parts:
    """A network in two: `features` maps normalised pixels to the last feature map, `head` the map to logits."""

    features: nn.Module
    head: nn.Module


@dataclass(frozen=True)
class Step:
    """A part of a network that is computed after the one before it, and the modules that hold its parameters."""

    compute: Callable[[torch.Tensor], torch.Tensor]
    modules: tuple[nn.Module, ...]


@dataclass(frozen=True)
class Family:
    """One way to build and divide a network.

    `build` takes an architecture's name and the number of classes. `classifier` names the last linear layer, and
    `rename` turns the names of an older state dict into today's. `builds_empty` is true if it can be built on
    torch's device `meta`, without numbers.
    """

    build: Callable[[str, int], nn.Module]
    classifier: str
    split: Callable[[Any], Parts]
    rename: Callable[[str], str] = str
    builds_empty: bool = True


class Pooled(nn.Module):
    """A head that averages the map and applies its layers to the mean."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers) if len(layers) > 1 else layers[0]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (n, C, h, w) to logits (n, classes)."""
        logits: torch.Tensor = self.layers(features.mean(dim=(2, 3)))
        return logits


class LiteFeatures(nn.Module):
    """EfficientNet-Lite up to its last feature map, without the pooling and classifier of its package."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, normalised: torch.Tensor) -> torch.Tensor:
        """Map normalised pixels (n, 3, side, side) to features (n, C, h, w)."""
        network: Any = self.network
        features: torch.Tensor = network.extract_features(normalised)
        return features

    def steps(self) -> list[Step]:
        """Return what `forward` computes, in order; the share of blocks that training drops grows with depth."""
        network: Any = self.network
        dropped = float(network._global_params.drop_connect_rate or 0.0)
        count = len(network._blocks)
        return [
            Step(
                lambda values: network._swish(network._bn0(network._conv_stem(values))),
                (network._conv_stem, network._bn0),
            ),
            *(
                Step(functools.partial(block, drop_connect_rate=dropped * place / count), (block,))
                for place, block in enumerate(network._blocks)
            ),
            Step(
                lambda values: network._swish(network._bn1(network._conv_head(values))),
                (network._conv_head, network._bn1),
            ),
        ]


def _torchvision(architecture: str, classes: int) -> nn.Module:
    import torchvision.models  # which takes as long as torch itself; the built-in model needs none of it

    network: nn.Module = torchvision.models.get_model(architecture, weights=None, num_classes=classes)
    return network


def _lite(architecture: str, classes: int) -> nn.Module:
    network: nn.Module = EfficientNet.from_name(architecture.replace("_", "-", 1), num_classes=classes)
    return network


def _split_resnet(network: Any) -> Parts:
    return Parts(nn.Sequential(*list(network.children())[:-2]), Pooled(network.fc))


def _split_regnet(network: Any) -> Parts:
    return Parts(nn.Sequential(network.stem, network.trunk_output), Pooled(network.fc))


def _split_densenet(network: Any) -> Parts:
    return Parts(nn.Sequential(network.features, nn.ReLU()), Pooled(network.classifier))


def _split_pooling(network: Any) -> Parts:
    return Parts(network.features, Pooled(*network.classifier))


def _split_vgg(network: Any) -> Parts:
    return Parts(network.features, nn.Sequential(network.avgpool, nn.Flatten(), network.classifier))


def _split_convnext(network: Any) -> Parts:
    return Parts(network.features, nn.Sequential(network.avgpool, network.classifier))


def _split_lite(network: Any) -> Parts:
    return Parts(LiteFeatures(network), Pooled(network._fc))


def _rename_densenet(name: str) -> str:
    """Undo the dots of `norm.1` and `conv.2`, with which the published files were written."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name)


FAMILIES: dict[str, Family] = {
    "resnet": Family(_torchvision, "fc", _split_resnet),
    # Its builder computes widths with tensors.
    "regnet": Family(_torchvision, "fc", _split_regnet, builds_empty=False),
    "densenet": Family(_torchvision, "classifier", _split_densenet, _rename_densenet),
    "mobilenet_v2": Family(_torchvision, "classifier.1", _split_pooling),
    "mobilenet_v3": Family(_torchvision, "classifier.3", _split_pooling),
    "efficientnet": Family(_torchvision, "classifier.1", _split_pooling),
    "vgg": Family(_torchvision, "classifier.6", _split_vgg),
    "convnext": Family(_torchvision, "classifier.2", _split_convnext),
    "efficientnet_lite": Family(_lite, "_fc", _split_lite),
}
