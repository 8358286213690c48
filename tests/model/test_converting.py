"""A network becomes a graph only if it has a feature map and computes batches of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from app.errors import WeightsError
from app.model.backbones.converting import save_graph


class Network(nn.Module):
    """Mean colours as logits, and features as the test wants them."""

    def __init__(self, features: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.features = features

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = pixels.permute(0, 3, 1, 2).float()
        return values.mean(dim=(2, 3)), self.features(values)


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (lambda values: values.flatten(1), "no feature map of channels, height and width"),
        (lambda values: values.reshape(int(values.shape[0]), 3, 8, 8), "does not compute batches of any size"),
    ],
)
def test_networks_that_cannot_serve_are_refused(
    features: Callable[[torch.Tensor], torch.Tensor], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=reason):
        save_graph(Network(features), 8, tmp_path)
    assert not any(tmp_path.iterdir())
