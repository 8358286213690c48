"""What computes: a batch of crops in, logits and the last feature map out.

Softmax, top-k and names are the classifier's, so that two engines can be compared on what they compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .weights import Weights

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Inference:
    """What a model computed for n crops: `logits` (n, classes) and `features` (n, C, 7, 7), float32."""

    logits: Floats
    features: Floats


class Engine(Protocol):
    """A loaded model. `name` and `precision` tell how it computes; `infer` may be called by one thread at a time."""

    name: str
    precision: str

    def infer(self, batch: Pixels) -> Inference:
        """Compute a batch of shape (n, 224, 224, 3)."""


class TorchEngine:
    """The reference engine: PyTorch in eval and inference mode, float32, on the CPU."""

    name = "torch"
    precision = "fp32"

    def __init__(self, weights: Weights, *, classes: int, compute_threads: int) -> None:
        import torch

        from .backbones import load_backbone

        torch.set_num_threads(compute_threads)
        self._torch = torch
        self._backbone = load_backbone(weights, classes)

    def infer(self, batch: Pixels) -> Inference:
        """Compute a batch of shape (n, 224, 224, 3)."""
        with self._torch.inference_mode():
            logits, features = self._backbone(self._torch.from_numpy(batch))
        return Inference(logits.numpy(), features.numpy())
