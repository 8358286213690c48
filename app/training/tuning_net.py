"""The network that is tuned: a backbone's features as steps in a row, and a head on their mean of length 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..model.backbones import Backbone
from ..model.backbones.stages import stage_starts, steps_of
from ..model.backbones.tuned import trunk_names
from ..model.heads import Floats
from ..model.records import ModelRecord
from .photosets import PhotoSetError
from .tuning_result import Tuned

# How much smaller the rate of the stem is than that of the last stage (Howard and Ruder, ACL 2018).
STEM_RATE = 0.1
# The numbers of a head on embeddings of length 1 are about a hundred times as large as those of the trunk.
HEAD_RATE = 10.0
WEIGHT_DECAY = 0.05
_WEIGHT, _BIAS = "head.weight", "head.bias"

Tensors = dict[str, torch.Tensor]


class Tunable(nn.Module):
    """Maps crops to logits as a head on a backbone does, so that tuning begins with exactly that model.

    `stages` are the steps with which the stages of the backbone begin.
    """

    def __init__(self, backbone: Backbone, record: ModelRecord, weight: Floats, bias: Floats) -> None:
        super().__init__()
        self.backbone = backbone
        self.steps = steps_of(backbone.features)
        self.stages = stage_starts(self.steps, record.geometry.crop)
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float32))
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float32))
        self._trunk = trunk_names(backbone.network, record)

    def features(self, values: torch.Tensor, first: int = 0, last: int | None = None) -> torch.Tensor:
        """Compute the steps from `first` to before `last`, by default to the end; step 0 takes uint8 crops."""
        if first == 0:
            values = self.backbone.normalise(values).contiguous(memory_format=torch.channels_last)
        for step in self.steps[first:last]:
            values = step.compute(values)
        return values

    def forward(self, values: torch.Tensor, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (n, classes) and embeddings (n, channels) of the inputs of the step `first`."""
        embeddings = self.features(values, first).float().mean(dim=(2, 3))
        with torch.autocast(embeddings.device.type, enabled=False):
            logits = functional.linear(functional.normalize(embeddings, dim=1), self.weight, self.bias)
        return logits, embeddings

    def tensors(self) -> Tensors:
        """Return the tensors that tuning changes: the trunk by the backbone's own names, and the head."""
        state = self.backbone.network.state_dict(keep_vars=True)
        return {name: state[name] for name in self._trunk} | {_WEIGHT: self.weight, _BIAS: self.bias}

    def load(self, tensors: Tensors) -> None:
        """Set all tensors to those that `tensors` or `copy` returned earlier; raises PhotoSetError for any others."""
        ours = self.tensors()
        if tensors.keys() != ours.keys() or any(tensors[name].shape != value.shape for name, value in ours.items()):
            raise PhotoSetError("The network that was kept is damaged: leave out --resume to begin again.")
        with torch.no_grad():
            for name, value in ours.items():
                value.copy_(tensors[name])

    def copy(self) -> Tensors:
        """Return copies of `tensors`."""
        return {name: value.detach().clone() for name, value in self.tensors().items()}

    def tuned(self) -> Tuned:
        """Return the network as arrays."""
        arrays = {name: np.asarray(value.detach().float().cpu().numpy()) for name, value in self.tensors().items()}
        weight, bias = arrays.pop(_WEIGHT), arrays.pop(_BIAS)
        return Tuned(arrays, weight, bias)

    def groups_of_parameters(self, rate: float) -> list[dict[str, object]]:
        """Return AdamW's groups: the rate shrinks by the same factor from stage to stage, to a tenth at the stem.

        The head's is ten times that of the last stage. Biases and norms do not decay.
        """
        groups: list[dict[str, object]] = [
            {"params": [self.weight, self.bias], "peak": rate * HEAD_RATE, "weight_decay": 0.0},
        ]
        count = len(self.stages)
        for number, parameters in enumerate(self.parameters_by_stage()):
            peak = rate * STEM_RATE ** ((count - 1 - number) / max(1, count - 1))
            for is_matrix, decay in ((True, WEIGHT_DECAY), (False, 0.0)):
                chosen = [value for value in parameters if (value.ndim > 1) == is_matrix]
                groups.append({"params": chosen, "peak": peak, "weight_decay": decay})
        return [group for group in groups if group["params"]]

    def parameters_by_stage(self) -> list[list[nn.Parameter]]:
        """Return the parameters of each stage, from the stem on."""
        ends = [*self.stages[1:], len(self.steps)]
        return [
            [value for step in self.steps[start:end] for module in step.modules for value in module.parameters()]
            for start, end in zip(self.stages, ends, strict=True)
        ]

    def unfreeze(self, stages: int) -> None:
        """Let only the last `stages` of the trunk learn; the head always does. The others stay in eval mode."""
        for distance, parameters in enumerate(reversed(self.parameters_by_stage())):
            for value in parameters:
                value.requires_grad_(distance < stages)
        frozen = self.stages[-stages] if stages < len(self.stages) else 0
        for step in self.steps[:frozen]:
            for module in step.modules:
                module.eval()

    def set_mode(self, *, training: bool, frozen_norms: bool) -> None:
        """Set the mode of all modules; frozen batch norms go on using the backbone's statistics."""
        self.train(training)
        if frozen_norms:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()


def mean_of(states: Sequence[Tensors]) -> Tensors:
    """Return the mean of several states of one network (Izmailov et al., UAI 2018)."""
    return {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}


def map_shape(network: Tunable, side: int) -> tuple[int, ...]:
    """Return the shape (channels, height, width) of the map that the last stage takes."""
    network.set_mode(training=False, frozen_norms=True)
    with torch.inference_mode():
        return tuple(network.features(_blank(network, side), 0, network.stages[-1]).shape[1:])


def activation_bytes(network: Tunable, side: int) -> int:
    """Estimate the bytes that one photo of `side` pixels takes while all layers learn: all outputs, twice."""
    network.set_mode(training=False, frozen_norms=True)
    sizes: list[int] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.numel()))
        for module in network.backbone.features.modules()
        if not list(module.children())
    ]
    try:
        with torch.inference_mode():
            network.features(_blank(network, side))
    finally:
        for hook in hooks:
            hook.remove()
    return 2 * 4 * sum(sizes)


def _blank(network: Tunable, side: int) -> torch.Tensor:
    return torch.zeros((1, side, side, 3), dtype=torch.uint8, device=network.weight.device)
