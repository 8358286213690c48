"""The layers of a network: their shapes and numbers, and the feature maps of inner ones."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...errors import WeightsError
from ..records import ModelRecord
from . import Backbone, family_of

_MORE = "'topthree inspect MODEL --depth 3' lists more."


@dataclass(frozen=True)
class Layer:
    """One module of a network: its name and kind, the shape of its output for one photo, and its parameters.

    `depth` is the number of listed modules that contain it: a list of modules is not called, and not listed.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    depth: int


def layers_of(record: ModelRecord, side: int) -> list[Layer]:
    """List a network's modules in the order in which they are called for a crop of `side` pixels; computes nothing."""
    family = family_of(record)
    network = family.build(record.architecture, 1000).to("meta").eval()
    found: list[Layer] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                parameters = sum(value.numel() for value in module.parameters())
                found.append(Layer(name, type(module).__name__, tuple(output.shape[1:]), parameters, 0))

        return hook

    for name, module in network.named_modules():
        if name:
            module.register_forward_hook(note(name))
    with torch.inference_mode():
        network(torch.zeros((1, 3, side, side), device="meta"))
    listed = {layer.name for layer in found}
    return [replace(layer, depth=sum(outer in listed for outer in _outer_names(layer.name))) for layer in found]


def _outer_names(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def feature_maps(
    backbone: Backbone, crops: npt.NDArray[np.uint8], layers: Sequence[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Compute the feature maps (n, C, h, w) of some layers for crops (n, side, side, 3), by the layers' names.

    Raises WeightsError for a name that the network does not have, with the nearest ones, and for a layer without an
    output of its own, such as a list of layers.
    """
    modules = dict(backbone.network.named_modules())
    for layer in layers:
        if layer not in modules:
            near = difflib.get_close_matches(layer, modules, n=3) or [name for name in modules if name][:5]
            raise WeightsError(
                f"The network has no layer {layer!r}; there are, among others, {', '.join(near)}. {_MORE}"
            )
    found: dict[str, npt.NDArray[np.float32]] = {}

    def keep(layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                found[layer] = output.numpy().copy()

        return hook

    hooks = [modules[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        with torch.inference_mode():
            # The parts of a backbone leave out layers between them, such as the one that pools.
            backbone.network(backbone.normalise(torch.from_numpy(np.require(crops, requirements="W"))))
    finally:
        for hook in hooks:
            hook.remove()
    for layer in layers:
        if layer not in found:
            raise WeightsError(f"The layer {layer!r} has no output of its own. {_MORE}")
    return {layer: found[layer] for layer in layers}
