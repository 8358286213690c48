"""A backbone as steps in a row, and the stages that they make up: steps whose maps have the same height and width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .families import LiteFeatures, Step


def steps_of(features: nn.Module) -> list[Step]:
    """Return the steps of a network's features, as fine as its own modules allow without changing what it computes."""
    if isinstance(features, LiteFeatures):
        return features.steps()
    if isinstance(features, nn.Sequential) and type(features).forward is nn.Sequential.forward:
        return [step for child in features for step in steps_of(child)]
    return [Step(features, (features,))]


def stage_starts(steps: Sequence[Step], side: int) -> list[int]:
    """Return the step with which each stage begins, for pictures of `side` pixels; the first is 0.

    A stage begins where the map becomes smaller. One without parameters belongs to the stage before it.
    """
    values, sizes = torch.zeros((1, 3, side, side)), []
    with torch.inference_mode():
        for step in steps:
            values = step.compute(values)
            sizes.append(values.shape[-2:])
    starts = [0, *(at for at in range(1, len(steps)) if sizes[at] != sizes[at - 1])]
    ends = [*starts[1:], len(steps)]
    return [start for start, end in zip(starts, ends, strict=True) if not start or _has_parameters(steps[start:end])]


def _has_parameters(steps: Sequence[Step]) -> bool:
    return any(True for step in steps for module in step.modules for _ in module.parameters())
