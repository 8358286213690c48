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
from ..model.ridge import STRENGTHS
from ..model.solver import (
    Examples,
    Numbers,
    Spectrum,
    fit_softmax,
    ridge_left_out,
    spectrum,
    weigh_classes,
    with_constant,
)

Rows = npt.NDArray[np.float16]

# Measured on ten kinds of clothes with EfficientNet-Lite0: ridge heads were best at 3e-4, softmax heads at 1e-5.
SOFTMAX_PER_RIDGE = 0.03
FOLDS = 10
MIN_PHOTOS = 20
_SOURCE = "Measured on the photos that the model was taught, each left out with its copies when it was predicted."


@dataclass(frozen=True)
class Task:
    """Photos to learn from: `rows` (photos, views, channels), the class of each, and its group of near-duplicates."""

    rows: Rows
    classes: Numbers
    groups: Numbers
    class_count: int

    def examples(self, photos: Numbers | None = None) -> tuple[Examples, Numbers]:
        """Return all views of photos, by default of all, as examples, and the group of each."""
        photos = np.arange(len(self.rows)) if photos is None else photos
        views = self.rows.shape[1]
        rows = self.rows if len(photos) == len(self.rows) else self.rows[photos]
        classes = np.repeat(self.classes[photos], views)
        weights = weigh_classes(classes, self.class_count)
        examples = Examples(rows.reshape(-1, rows.shape[2]), classes, weights, self.class_count)
        return examples, np.repeat(self.groups[photos], views)


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
    examples, groups = task.examples()
    is_photo = np.arange(len(examples.rows)) % task.rows.shape[1] == 0
    errors, hits = np.zeros(len(STRENGTHS)), np.zeros(len(STRENGTHS))
    found = spectrum(examples)
    for members, scores in ridge_left_out(examples, found, groups, STRENGTHS):
        kept = is_photo[members]
        members, scores = members[kept], scores[:, kept]
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
    examples, _ = task.examples()
    weight = fit_softmax(examples, strength, like)
    folds = _folds(task, seed)
    left_out = np.empty((len(task.rows), task.class_count))
    count = int(folds.max()) + 1
    report(1, count + 1)
    for fold in range(count):
        # The optimum does not depend on where the search begins, so nothing of the photos left out leaks.
        part, _ = task.examples(np.flatnonzero(folds != fold))
        members = np.flatnonzero(folds == fold)
        left_out[members] = with_constant(task.rows[members, 0]) @ fit_softmax(part, strength, like, weight).T
        report(fold + 2, count + 1)
    return Fitted(weight, strength, left_out)


def _folds(task: Task, seed: int) -> Numbers:
    """Divide the groups into folds with about equal shares of each class; return the fold of each photo."""
    names, first, members = np.unique(task.groups, return_index=True, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(task.classes[first][shuffled], kind="stable")]
    fold_of_group = np.empty(len(names), np.intp)
    fold_of_group[order] = np.arange(len(names)) % min(FOLDS, len(names))
    return fold_of_group[members]


def calibrate(fitted: Fitted, task: Task) -> Calibration:
    """Fit the temperature and the thresholds of certainty to the left-out predictions.

    If the predictions are all right, or no better than by chance, no temperature fits, and only the rejection score
    has a threshold; with fewer than `MIN_PHOTOS` photos it has none either.
    """
    scores = None
    if len(task.rows) >= MIN_PHOTOS:
        scores = rejection_score(fitted.left_out, task.rows[:, 0], fitted.weight[:, -1])
    try:
        return fit_calibration(fitted.left_out, task.classes, source=_SOURCE, scores=scores)
    except FitError:
        unlike = None if scores is None else float(np.percentile(scores, UNLIKE_PERCENTILE))
        return Calibration(None, None, unlike, _SOURCE, len(task.rows))
