"""Networks without trained weights: to measure how fast they are, to compare engines, and to see their layers."""

from __future__ import annotations

import torch
from torch import nn

from ..records import ModelRecord
from . import Backbone, family_of

_LOGITS_DEVIATION = 3.0
_PHOTOS = 8


def untrained_backbone(record: ModelRecord, pixels: torch.Tensor | None = None) -> Backbone:
    """Build a model with random weights that computes numbers of the usual size.

    The batch norms are set by one batch of `pixels`, uint8 RGB (n, side, side, 3), or of noise, and the last layer is
    scaled to logits with a standard deviation of 3.
    """
    family = family_of(record)
    side = record.geometry.crop
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = family.build(record.architecture, 1000)
        if pixels is None:
            pixels = torch.randint(0, 256, (_PHOTOS, side, side, 3), dtype=torch.uint8)
    backbone = Backbone(network, family.split(network), record)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        backbone(pixels)
        backbone.eval()
        last = network.get_submodule(family.classifier)
        spread = backbone(pixels)[0].std() / _LOGITS_DEVIATION
        for parameter in last.parameters():
            parameter.div_(spread)
    return backbone.requires_grad_(False)
