"""The answer of one model to a photo: its most likely classes, how far to rely on them, and their heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..photos.heatmaps import MAX_HEATMAPS, Grid, activation_maps
from . import Model
from .certainty import Certainty, Judgement
from .engines import Inference
from .heads import Floats, Head
from .labels import Label
from .probabilities import softmax


@dataclass(frozen=True)
class Prediction:
    """One class with its rank, from 1, and its probabilities, rounded to 6 digits.

    `confidence` is the softmax of the logits, `probability` the calibrated one; None if the model's temperature is not
    known.
    """

    rank: int
    class_id: int
    wnid: str | None
    label: str
    label_zh: str | None
    label_gloss: str | None
    confidence: float
    probability: float | None


@dataclass(frozen=True)
class GroupPrediction:
    """A group of classes, and the calibrated probability that the photo shows one of them, rounded to 6 digits."""

    wnid: str
    label: str
    label_zh: str
    probability: float


@dataclass(frozen=True)
class Outputs:
    """The results to compute for a photo: its `top` most likely classes, and more.

    `heatmap` asks for a heat map of each of the first `MAX_HEATMAPS` of them, or only of `heatmap_class` if that is
    given. `thumbnail_side` is the longest side of a small copy in pixels, 0 for none.
    """

    top: int = 3
    heatmap: bool = False
    heatmap_class: int | None = None
    thumbnail_side: int = 0
    embedding: bool = False
    logits: bool = False


DEFAULT_OUTPUTS = Outputs()


@dataclass(frozen=True)
class Verdict:
    """The answer of one model to a photo.

    `certainty` says how far to rely on the first class; None if that was not measured for the model. `group` is the
    smallest group of classes that is sure, if no class is. If heat maps were asked for, `heatmaps` holds rows of
    numbers from 0 to 1 for each of the first `MAX_HEATMAPS` predictions; a model without heat maps has None.
    """

    model: Model
    predictions: list[Prediction]
    certainty: Certainty | None
    group: GroupPrediction | None
    heatmaps: list[Grid] | None


def verdict_of(model: Model, inference: Inference, outputs: Outputs) -> Verdict:
    """Return what a model says of the first photo of an inference."""
    logits = model.logits(inference)[0]
    judgement = model.judge.judge(logits, inference.embeddings[0] if model.judge.needs_embedding else None)
    predictions = _predictions(logits, model.labels, outputs.top, judgement)
    heatmaps = _heatmaps(inference, model.head, predictions, outputs)
    return Verdict(model, predictions, judgement.certainty, _group(judgement), heatmaps)


def _heatmaps(
    inference: Inference, head: Head | None, predictions: Sequence[Prediction], outputs: Outputs
) -> list[Grid] | None:
    if head is None or not outputs.heatmap:
        return None
    first = [row.class_id for row in predictions[:MAX_HEATMAPS]]
    ids = first if outputs.heatmap_class is None else [outputs.heatmap_class]
    return activation_maps(head.cells(inference.features[0]), head.weight[ids])


def _predictions(logits: Floats, labels: tuple[Label, ...], top: int, judgement: Judgement) -> list[Prediction]:
    confidences, probabilities = softmax(logits), judgement.probabilities
    order = np.argsort(-confidences, kind="stable")[:top]
    return [
        Prediction(
            rank,
            **vars(at),
            confidence=round(float(confidences[at.class_id]), 6),
            probability=None if probabilities is None else round(float(probabilities[at.class_id]), 6),
        )
        for rank, at in enumerate((labels[index] for index in order), start=1)
    ]


def _group(judgement: Judgement) -> GroupPrediction | None:
    if judgement.group is None:
        return None
    return GroupPrediction(**vars(judgement.group), probability=round(judgement.group_probability, 6))
