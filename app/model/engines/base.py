"""The interface of all engines: a batch of crops in, logits and the last feature map out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..heads import Floats, Head

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Inference:
    """The result for n crops: `logits` (n, classes) and `features` (n, C, h, w), float32.

    C is 0 for a model file that gives logits alone. `pooled` (n, C) is the spatial mean of the features if the engine
    computed it. An engine that was asked for less leaves `features` empty, (n, C, 0, 0).
    """

    logits: Floats
    features: Floats
    pooled: Floats | None = None

    @property
    def embeddings(self) -> Floats:
        """Return the spatial means (n, C) of the features, computed once however many models use them."""
        if self.pooled is None:
            object.__setattr__(self, "pooled", np.asarray(self.features.mean(axis=(2, 3))))
        return np.asarray(self.pooled)


class Engine(Protocol):
    """A loaded model.

    `name` and `precision` are those of answers. `head` turns features into heat maps, and is None for a model without
    them; `grid` is the features' height and width. `batches` is true if photos are faster together than one by one.
    """

    name: str
    precision: str
    batches: bool
    head: Head | None
    grid: tuple[int, int]

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch of shape (n, side, side, 3); `alone` allows it to use every processor."""
