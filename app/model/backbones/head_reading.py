"""Reading a network's head as matrices, so that heat maps need no torch; the matrices are verified."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ..heads import HARDSWISH, RELU, Head

# How far the logits of the matrices may be from the network's own, as a share of the largest.
_TOLERANCE = 1e-3
_ACTIVATIONS: tuple[tuple[type[nn.Module], str], ...] = ((nn.ReLU, RELU), (nn.Hardswish, HARDSWISH))


def read_head_of(head: nn.Module, features: torch.Tensor) -> Head | None:
    """Read the layers of a head that pools and then has one linear layer, or one with an activation before it.

    `features` (1, C, h, w) is any feature map. Returns None for a head of another form, which has no heat maps. The
    matrices are compared with the head itself on a random map.
    """
    found = _to_head(_layers_in_order(head, features))
    return found[0] if found and _computes_the_same(head, *found, features.shape) else None


def _layers_in_order(head: nn.Module, features: torch.Tensor) -> list[nn.Module]:
    """List a head's modules that have numbers or are activations, in the order in which they are called."""
    called: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: called.append(module))
        for module in head.modules()
        if list(module.parameters(recurse=False)) or _activation(module)
    ]
    try:
        with torch.inference_mode():
            head(features)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _to_head(layers: Sequence[nn.Module]) -> tuple[Head, torch.Tensor] | None:
    """Return the head and the last layer's bias; None for layers of another form."""
    if not layers or not isinstance(last := layers[-1], nn.Linear):
        return None
    bias = last.bias if last.bias is not None else torch.zeros(last.out_features)
    weight = last.weight.detach().numpy().copy()
    if len(layers) == 1:
        return Head(weight), bias
    affine = _scale_and_shift(layers[-2])
    before = layers[:-2] if affine else layers[:-1]
    activation = _activation(before[-1]) if before else ""
    hidden = _to_hidden(before[:-1])
    if not activation or not hidden:
        return None
    read = Head(weight, *hidden, activation)
    return (_with_affine(read, *affine) if affine else read), bias


def _scale_and_shift(module: nn.Module) -> tuple[float, float] | None:
    """Return the two numbers of timm's `LearnableAffineBlock`, None for any other module."""
    numbers = dict(module.named_parameters(recurse=False))
    if numbers.keys() != {"scale", "bias"} or any(value.numel() != 1 for value in numbers.values()):
        return None
    return numbers["scale"].item(), numbers["bias"].item()


def _activation(module: nn.Module) -> str:
    return next((name for kind, name in _ACTIVATIONS if isinstance(module, kind)), "")


def _with_affine(head: Head, scale: float, shift: float) -> Head:
    """Fold `scale * activation + shift` into the matrices, with one more hidden unit, always 3, for the shift."""
    assert head.hidden_weight is not None
    assert head.hidden_bias is not None
    weight = np.hstack([scale * head.weight, shift * head.weight.sum(axis=1, keepdims=True)])
    hidden_weight = np.vstack([head.hidden_weight, np.zeros_like(head.hidden_weight[:1])])
    hidden_bias = np.append(head.hidden_bias, np.float32(3.0))  # which both ReLU and Hardswish leave as it is
    weight[:, -1] /= 3.0
    return Head(weight.astype(np.float32), hidden_weight, hidden_bias, head.activation)


def _to_hidden(layers: Sequence[nn.Module]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the matrix and bias of a linear layer or a 1x1 convolution, with the batch norm after it folded in."""
    if not layers or not isinstance(first := layers[0], nn.Linear | nn.Conv2d) or len(layers) > 2:
        return None
    if isinstance(first, nn.Conv2d) and first.kernel_size != (1, 1):
        return None
    weight = first.weight.detach().flatten(1)
    bias = first.bias.detach() if first.bias is not None else torch.zeros(len(weight))
    if len(layers) == 2:
        norm = layers[1]
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
            return None
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        weight, bias = weight * scale[:, None], (bias - norm.running_mean) * scale + norm.bias.detach()
    return weight.numpy().copy(), bias.numpy().copy()


def _computes_the_same(head: nn.Module, found: Head, bias: torch.Tensor, shape: torch.Size) -> bool:
    features = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = (head(features) - bias)[0].numpy()
    error = np.abs(found.logits(features[0].numpy()) - expected).max()
    return bool(error <= _TOLERANCE * np.abs(expected).max())
