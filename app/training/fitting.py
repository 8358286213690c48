"""From embeddings to a head: groups of near-duplicates, the strength, the head, and what it is worth.

All that is reported comes from predictions for photos that were left out of the fit, each with its mirror image and
its near-duplicates: a copy of a photo that stays in the fit would answer for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..model.calibration import Calibration
from ..model.calibration_fit import UNLIKE_PERCENTILE, FitError, fit_calibration
from ..model.certainty import rejection_score
from ..model.probabilities import Doubles
from ..model.ridge import STRENGTHS, class_centres, left_out_nearness, weigh_groups
from ..model.solver import (
    Examples,
    Numbers,
    Spectrum,
    fit_softmax,
    ridge_left_out,
    softmax_left_out,
    spectrum,
    weigh_classes,
    with_constant,
)

Rows = npt.NDArray[np.float16]
Embeddings = npt.NDArray[np.float16] | npt.NDArray[np.float32]

# Measured by left-out predictions for ten kinds of clothes, by likelihood and accuracy. With ResNet-18, softmax heads
# were best at 0.1 to 0.3 of the best ridge heads' strength, with EfficientNet-Lite0 at 0.05 to 0.1; 0.03 cost both.
SOFTMAX_PER_RIDGE = 0.07
FOLDS = 10
_PART_ROWS = 4096
MIN_PHOTOS = 20
_SOURCE = "Measured on the photos that the model was taught, each left out with its copies when it was predicted."


@dataclass(frozen=True)
class Task:
    """Photos to learn from: `rows` (photos, views, channels), the class of each, and its group of near-duplicates."""

    rows: Rows
    classes: Numbers
    groups: Numbers
    class_count: int

    @property
    def views(self) -> int:
        """Return how many rows there are of each photo."""
        return int(self.rows.shape[1])

    def examples(self) -> Examples:
        """Return all views of all photos as examples, those of a photo one after the other."""
        classes = np.repeat(self.classes, self.views)
        weights = weigh_classes(classes, self.class_count)
        return Examples(self.rows.reshape(-1, self.rows.shape[2]), classes, weights, self.class_count)


@dataclass(frozen=True)
class Fitted:
    """A head (classes, channels + 1), its strength, and the logits (photos, classes) for photos left out of a fit."""

    weight: Doubles
    strength: float
    left_out: Doubles


def choose_strength(task: Task) -> tuple[float, float, Spectrum]:
    """Return the strength whose left-out ridge heads err least, the share that they get right, and the spectrum.

    Every class counts the same in the error. In the share, each photo counts once, without its mirror image.
    """
    examples, groups = task.examples(), np.repeat(task.groups, task.views)
    errors, hits = np.zeros(len(STRENGTHS)), np.zeros(len(STRENGTHS))
    found = spectrum(examples)
    for members, scores in ridge_left_out(examples, found, groups, STRENGTHS):
        is_photo = members % task.views == 0
        members, scores = members[is_photo], scores[:, is_photo]
        classes = examples.classes[members]
        errors += ((scores - np.eye(task.class_count)[classes]) ** 2).sum(axis=2) @ examples.weights[members]
        hits += (scores.argmax(axis=2) == classes).sum(axis=1)
    best = int(errors.argmin())
    return STRENGTHS[best], float(hits[best] / len(task.rows)), found


def softmax_strength(ridge_strength: float) -> float:
    """Return the strength of a softmax head that corresponds to one of a ridge head."""
    return ridge_strength * SOFTMAX_PER_RIDGE


def fit(task: Task, strength: float, like: Spectrum, seed: int, report: Callable[[int, int], None]) -> Fitted:
    """Fit the head that serves on all photos, and the same head once for each fold of groups that is left out."""
    examples = task.examples()
    weight = fit_softmax(examples, strength, like)
    left_out, done = np.empty((len(task.rows), task.class_count)), 0
    folds = np.repeat(divide(task, seed), task.views)
    for members, logits in softmax_left_out(examples, folds, strength, weight):
        is_photo = members % task.views == 0
        left_out[members[is_photo] // task.views] = logits[is_photo]
        done += int(np.count_nonzero(is_photo))
        report(done, len(task.rows))
    return Fitted(weight, strength, left_out)


def divide(task: Task, seed: int) -> Numbers:
    """Divide the groups into folds with about equal shares of each class; return the fold, from 0, of each photo."""
    names, first, members = np.unique(task.groups, return_index=True, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(task.classes[first][shuffled], kind="stable")]
    fold_of_group = np.empty(len(names), np.intp)
    fold_of_group[order] = np.arange(len(names)) % min(FOLDS, len(names))
    return fold_of_group[members]


def calibrate(fitted: Fitted, task: Task) -> tuple[Calibration, Doubles]:
    """Fit the temperature and the thresholds of certainty to the left-out predictions of a head.

    Also return the centres (classes, channels) of the classes: photos that are near none of them are unlike all. With
    fewer than `MIN_PHOTOS` photos there is no threshold for that.
    """
    weights = weigh_groups(task.classes, task.groups, task.class_count)
    photos = Examples(task.rows[:, 0], task.classes, weights, task.class_count)
    centres = class_centres(photos)
    scores = left_out_nearness(photos, task.groups, centres) if len(task.rows) >= MIN_PHOTOS else None
    return calibrate_left_out(fitted.left_out, task.classes, scores), centres


def rejection_scores(left_out: Doubles, embeddings: Embeddings, bias: Doubles) -> Doubles:
    """Return the rejection score of photos by their logits (photos, classes) and embeddings (photos, channels)."""
    return np.concatenate([rejection_score(left_out[part], embeddings[part], bias) for part in _parts(len(left_out))])


def calibrate_left_out(left_out: Doubles, classes: Numbers, scores: Doubles | None) -> Calibration:
    """Fit the temperature and the thresholds of certainty to left-out logits (photos, classes).

    `scores` (photos) are low for photos unlike all. If the predictions are all right, or no better than by chance, no
    temperature fits, and only the scores have a threshold.
    """
    try:
        return fit_calibration(left_out, classes, source=_SOURCE, scores=scores)
    except FitError:
        unlike = None if scores is None else float(np.percentile(scores, UNLIKE_PERCENTILE))
        return Calibration(None, None, unlike, _SOURCE, len(left_out))


def predict(weight: Doubles, rows: Rows) -> Numbers:
    """Return the most likely class of each row (photos, channels) by a head (classes, channels + 1)."""
    parts = [(with_constant(rows[part]) @ weight.T).argmax(axis=1) for part in _parts(len(rows))]
    return np.concatenate(parts)


def _parts(count: int) -> list[slice]:
    """Return slices of rows that may be turned into float64 at a time."""
    return [slice(start, start + _PART_ROWS) for start in range(0, count, _PART_ROWS)]
