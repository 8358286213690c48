"""`Embedding`: the model that made the vectors of an index, so that only its own vectors are compared with them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np

from ..errors import IndexProblem
from ..model import Model

# Formats in floating point give nearly the same vectors; those of int8 differ as copies of a photo do.
_INT8, _FLOAT = "int8", "floating point"


class Embedding(msgspec.Struct, frozen=True):
    """The backbone that makes vectors: its name, the digest of its weights, preprocessing and precision.

    `channels` is the length of the vectors.
    """

    model: str
    weights_sha256: str
    preprocessing: str
    precision: str
    channels: Annotated[int, msgspec.Meta(ge=1, le=2**16)]

    @classmethod
    def of(cls, model: Model) -> Embedding:
        """Describe the vectors of a loaded model, which do not depend on its head.

        Computes a black picture. Raises IndexProblem for a model that was exported with its logits alone.
        """
        geometry = model.weights.record.geometry
        black = np.zeros((1, geometry.crop, geometry.crop, 3), np.uint8)
        channels = model.engine.infer(black).embeddings.shape[1]
        if not channels:
            raise IndexProblem(f"The model {model.name} gives no embedding, so it can make and search no index.")
        return cls(
            model=model.weights.record.name,
            weights_sha256=model.weights.sha256,
            preprocessing=f"{geometry.resize} to {geometry.crop}, {geometry.interpolation}",
            precision=_INT8 if model.engine.precision == _INT8 else _FLOAT,
            channels=channels,
        )

    def check(self, other: Embedding, folder: object) -> None:
        """Raise IndexProblem, saying what differs, if vectors of `other` cannot be compared with those in `folder`."""
        names = {
            "model": "model",
            "weights_sha256": "SHA-256 of the weights",
            "preprocessing": "preprocessing",
            "precision": "precision",
            "channels": "length of the vectors",
        }
        there, now = self._facts(), other._facts()
        what = [f"{names[key]} is {there[key]} there and {now[key]} now" for key in names if there[key] != now[key]]
        if what:
            raise IndexProblem(f"{folder} is the index of another model: {'; '.join(what)}.")

    def _facts(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self)
