"""Heads: the part of a network after its last feature map, in NumPy, as heat maps need it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

RELU, HARDSWISH = "relu", "hardswish"
_UNIT = "unit_length"


@dataclass(frozen=True)
class Head:
    """A classifier that is applied to each cell of a feature map as it is to their mean.

    `weight` (classes, K) is the last layer's matrix. If a hidden layer comes before it, `hidden_weight` (K, C) and
    `hidden_bias` (K) are that layer's, and `activation` is `relu` or `hardswish`; else K is C, the map's channels.
    With `unit_length`, the mean is divided by its length (L2) before the last layer, which changes no heat map.
    """

    weight: Floats
    hidden_weight: Floats | None = None
    hidden_bias: Floats | None = None
    activation: str = ""
    unit_length: bool = False

    def cells(self, features: Floats) -> Floats:
        """Return the last layer's input for each cell (K, h, w) of a feature map (C, h, w).

        Without a hidden layer that is the map itself, and the class activation map is exact: its mean is the class's
        logit without the bias. With a hidden layer, each cell is classified as if the whole photo were like it.
        """
        if self.hidden_weight is None or self.hidden_bias is None:
            return features
        hidden = np.tensordot(self.hidden_weight, features, axes=1) + self.hidden_bias[:, None, None]
        return np.asarray(_activate(hidden, self.activation), np.float32)

    def logits(self, features: Floats) -> Floats:
        """Return the logits (classes), without the last layer's bias, of a feature map whose cells are averaged."""
        pooled = self.cells(features.mean(axis=(1, 2), keepdims=True))[:, 0, 0]
        return np.asarray(self.weight @ (of_length_one(pooled) if self.unit_length else pooled), np.float32)

    def to_bytes(self) -> bytes:
        """Return the bytes of a .npy file: the matrix, or a record of it and of what else the head has."""
        if self.unit_length:
            return _npy(np.array((self.weight, True), [("weight", np.float32, self.weight.shape), (_UNIT, bool)]))
        if self.hidden_weight is None or self.hidden_bias is None:
            return _npy(self.weight)
        parts = {"weight": self.weight, "hidden_weight": self.hidden_weight, "hidden_bias": self.hidden_bias}
        kinds = [(name, np.float32, part.shape) for name, part in parts.items()]
        record = np.zeros((), [*kinds, ("activation", "U16")])
        for name, part in parts.items():
            record[name] = part
        record["activation"] = self.activation
        return _npy(record)


def own_logits(embeddings: Floats, weight: Floats, bias: Floats) -> Floats:
    """Return the logits (n, classes) of n embeddings (n, C) by a head that takes them divided by their length (L2).

    `weight` is (classes, C), `bias` (classes).
    """
    return np.asarray(of_length_one(embeddings) @ weight.T + bias, np.float32)


def of_length_one(embeddings: Floats) -> Floats:
    """Return embeddings (…, C) divided by their length (L2); zeros stay as they are."""
    lengths = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return np.asarray(embeddings / np.where(lengths > 0, lengths, 1))


# Stored for a head without heat maps, for example one that normalises or flattens the map.
NO_HEAD = np.zeros((0, 0), np.float32)


def head_bytes(head: Head | None) -> bytes:
    """Return the bytes of a head's .npy file, as `read_head` reads it; None is a network without heat maps."""
    return _npy(NO_HEAD) if head is None else head.to_bytes()


def read_head(data: bytes) -> Head | None:
    """Read the .npy file of a head; None for a network without heat maps."""
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.names and _UNIT in array.dtype.names:
        return Head(array["weight"], unit_length=bool(array[_UNIT]))
    if array.dtype.names:
        return Head(array["weight"], array["hidden_weight"], array["hidden_bias"], str(array["activation"]))
    return Head(array) if array.size else None


def _activate(values: Floats, activation: str) -> Floats:
    if activation == HARDSWISH:
        return np.asarray(values * np.clip(values + 3, 0, 6) / 6, np.float32)
    return np.maximum(values, 0)


def _npy(array: npt.NDArray[np.generic]) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()
