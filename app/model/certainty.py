"""What an answer is worth: calibrated probabilities, and one word for how far to rely on the first class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .calibration import Calibration
from .groups import NO_GROUPS, GroupName, Groups
from .heads import Floats, of_length_one
from .probabilities import Doubles, Logits, log_sum_exp, softmax

Certainty = Literal["sure", "group", "unsure", "unlike"]

# The share of the largest activations that SCALE compares with all, as its authors chose it for ImageNet.
_LARGEST_SHARE = 0.15


@dataclass(frozen=True)
class Judgement:
    """The probability of each class (None without a temperature), and the certainty (None if it was not measured).

    For the certainty `group` there are the group and its probability.
    """

    probabilities: Doubles | None = None
    certainty: Certainty | None = None
    group: GroupName | None = None
    group_probability: float = 0.0


# Without a calibration.
NO_JUDGEMENT = Judgement()


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges the answers of one model.

    The rejection score needs `bias` (classes), the bias of the last layer, or `centres` (classes, C), if there are
    any. Without a calibration no answer has a certainty.
    """

    calibration: Calibration | None = None
    groups: Groups = NO_GROUPS
    bias: Floats | None = None
    centres: Floats | None = None

    @property
    def needs_embedding(self) -> bool:
        """Return whether an answer's certainty depends on the photo's embedding."""
        return self.bias is not None and self.calibration is not None and self.calibration.unlike_below is not None

    def judge(self, logits: Floats, embedding: Floats | None = None) -> Judgement:
        """Judge one photo by its logits (classes) and, if it is needed, the embedding (C) that the last layer got.

        A photo that is unlike the known ones is `unlike`, however probable a class is. Else the answer is `sure` if
        the first class is probable enough, `group` if one of its groups is (the smallest that is), else `unsure`.
        """
        known = self.calibration
        if known is None:
            return NO_JUDGEMENT
        scaled = None if known.temperature is None else softmax(logits / known.temperature)
        if self._is_unlike(logits, embedding):
            return Judgement(scaled, "unlike")
        if scaled is None or known.sure_at is None:
            return Judgement(scaled)
        first = int(np.argmax(logits))
        if scaled[first] >= known.sure_at:
            return Judgement(scaled, "sure")
        for group in self.groups[first] if self.groups else ():
            total = float(scaled[group.classes].sum())
            if total >= known.sure_at:
                return Judgement(scaled, "group", group.name, min(1.0, total))
        return Judgement(scaled, "unsure")

    def _is_unlike(self, logits: Floats, embedding: Floats | None) -> bool:
        limit = self.calibration.unlike_below if self.calibration else None
        if limit is None or self.bias is None or embedding is None:
            return False
        if self.centres is not None:
            return bool(nearness(embedding, self.centres) < limit)
        return bool(rejection_score(logits, embedding, self.bias) < limit)


# Of a model without a calibration.
NO_JUDGE = Judge()


def nearness(embedding: Logits, centres: Logits) -> Doubles:
    """Return a score for each photo (…) that is low for photos unlike all classes.

    It is the mean cosine of its embedding (…, C) with those of the photos of a class, of the class that is nearest;
    `centres` are (classes, C), the means of embeddings of length 1.
    """
    return np.asarray((of_length_one(embedding.astype(np.float64)) @ centres.T).max(axis=-1))


def rejection_score(logits: Logits, embedding: Logits, bias: Logits) -> Doubles:
    """Return a score for each photo that is low for photos unlike those that the model has learned from.

    `logits` are (…, classes) and the embeddings that the last layer got (…, C), `bias` (classes) is that layer's.
    It is SCALE (Xu et al., ICLR 2024): the embedding, none of whose values may be negative, is multiplied by e to the
    power of r, the sum of all its values over the sum of its largest 15%, and the logits that follow from it give
    their log-sum-exp. As the last layer is linear, only the logits without the bias have to be multiplied.
    """
    values = embedding.astype(np.float64)
    count = max(1, round(_LARGEST_SHARE * values.shape[-1]))
    largest = np.partition(values, -count, axis=-1)[..., -count:].sum(axis=-1, keepdims=True)
    total = values.sum(axis=-1, keepdims=True)
    factor = np.exp(np.divide(total, largest, out=np.zeros_like(total), where=largest > 0))
    return np.asarray(log_sum_exp((logits.astype(np.float64) - bias) * factor + bias)[..., 0])
