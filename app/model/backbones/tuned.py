"""Fine-tuned backbones: which tensors are the trunk's, and how a version's weights become a network again."""

from __future__ import annotations

import functools

import torch
from torch import nn

from ...errors import WeightsError
from ..heads import Floats
from ..own_format import OwnModel, verify_trunk
from ..records import ModelRecord
from ..weights import Weights
from . import Backbone, build_network, family_of
from .checkpoints import State, read_state
from .families import Parts

# Batch norms count their batches; only training reads that.
_COUNTER = "num_batches_tracked"


class OwnHead(nn.Module):
    """The head of a model of one's own: one linear layer on the mean of all cells, divided by its length (L2)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, weight: Floats, bias: Floats) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(weight.copy()))
        self.register_buffer("bias", torch.from_numpy(bias.copy()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (n, C, h, w) to logits (n, classes)."""
        embedding = nn.functional.normalize(features.mean(dim=(2, 3)))
        return nn.functional.linear(embedding, self.weight, self.bias)


def trunk_names(network: nn.Module, record: ModelRecord) -> list[str]:
    """Return the names of a network's tensors that a fine-tuned model keeps: all but those of its published head."""
    heads = tuple(f"{name}." for name in head_modules(record))
    return [name for name in network.state_dict() if not name.startswith(heads) and not name.endswith(_COUNTER)]


def load_tuned(weights: Weights, own: OwnModel) -> Backbone:
    """Build the network of a fine-tuned model in eval mode: its own trunk, and its head in place of the published one.

    `weights` are its `weights.safetensors`, with the record of the backbone that the tuning began from. Raises
    OwnModelError for a file that is damaged, and WeightsError for one of another architecture, each in one sentence.
    """
    assert own.trunk is not None
    verify_trunk(own.trunk)
    state, record = read_state(weights), weights.record
    family = family_of(record)
    network = build_network(family, record.architecture, len(own.labels))
    for name in head_modules(record):
        network.set_submodule(name, nn.Identity())
    _load(weights, network, state)
    parts = Parts(family.split(network).features, OwnHead(own.weight, own.bias))
    return Backbone(network, parts, record).eval().requires_grad_(False)


def _load(weights: Weights, network: nn.Module, state: State) -> None:
    """Put a trunk's tensors into a network.

    Raises WeightsError if one is missing, unknown or of another shape, or holds a number that is not finite.
    """
    expected = network.state_dict()
    counters = {name: torch.tensor(0) for name in expected if name.endswith(_COUNTER)}
    found = counters | state
    wrong = next((name for name in sorted(expected | found) if not _is_alike(name, found, expected)), None)
    if wrong is not None:
        raise WeightsError(
            f"{weights.path} does not fit {weights.record.name}: {wrong} is missing, unknown or of another shape."
        )
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise WeightsError(f"{weights.path} is damaged: it holds numbers that are not finite.")
    network.load_state_dict(found, assign=True)
    network.float()


def _is_alike(name: str, state: State, expected: State) -> bool:
    return name in state and name in expected and state[name].shape == expected[name].shape


@functools.cache
def head_modules(record: ModelRecord) -> tuple[str, ...]:
    """List the modules with tensors that a model's published head uses and its trunk does not; computes nothing."""
    family, side = family_of(record), record.geometry.crop
    network = build_network(family, record.architecture, 1000).to("meta").eval()
    parts = family.split(network)
    in_trunk: set[nn.Module] = set()
    in_head: set[nn.Module] = set()
    with torch.inference_mode():
        features = _run(network, parts.features, torch.zeros((1, 3, side, side), device="meta"), in_trunk)
        _run(network, parts.head, features, in_head)
    only_head = in_head - in_trunk
    return tuple(name for name, module in network.named_modules() if module in only_head and _has_tensors(module))


def _run(network: nn.Module, part: nn.Module, value: torch.Tensor, called: set[nn.Module]) -> torch.Tensor:
    """Compute a part of a network, and add the network's modules that it calls to a set."""
    hooks = [module.register_forward_pre_hook(lambda module, _: called.add(module)) for module in network.modules()]
    try:
        result: torch.Tensor = part(value)
    finally:
        for hook in hooks:
            hook.remove()
    return result


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
