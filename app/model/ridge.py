"""Ridge heads in closed form, fast enough to be solved again after each photo, and what they are worth.

A head is scaled so that the softmax of its logits is calibrated: its temperature is 1. Near-duplicates count once:
all photos of a group share the weight of one, and a group is left out as a whole when its photos are predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .calibration import Calibration
from .calibration_fit import UNLIKE_PERCENTILE, FitError, first_probabilities, fit_temperature, sure_threshold
from .heads import Floats
from .probabilities import Doubles
from .solver import CHUNK_ROWS, Examples, Numbers, Spectrum, ridge_left_out, spectrum, with_constant

Bools = npt.NDArray[np.bool_]

STRENGTHS = tuple(10.0 ** (step / 2) for step in range(-12, -2))
# With fewer photos, the threshold of the rejection score would rest on a single one of them.
MIN_PHOTOS = 20
# Of a head that names photos no better than by chance.
_NO_TEMPERATURE = 1.0
# Eigenvalues below this share of the largest one are rounding errors.
_NEGLIGIBLE = 1e-12
_SOURCE = "Measured on the photos that the model was taught, each left out with its copies when it was predicted."


@dataclass(frozen=True, eq=False)
class Ridge:
    """A head (classes, channels + 1), its last column the bias, and its strength before it was scaled.

    `centres` (classes, channels) are the means of each class's embeddings, by which photos unlike all are noticed.
    `left_out` (photos, classes) are the logits for each photo by a head without its group. `is_measured` (photos) is
    false for a photo whose class has no other group: what is said of it by a head without its class means nothing.
    """

    weight: Doubles
    centres: Doubles
    strength: float
    left_out: Doubles
    is_measured: Bools
    calibration: Calibration


def weigh_groups(classes: Numbers, groups: Numbers, class_count: int) -> Doubles:
    """Return a weight for each photo: every class weighs the same, in a class every group, in a group every photo.

    All add up to 1.
    """
    pairs, photo_pair, sizes = np.unique(np.stack([classes, groups]), axis=1, return_inverse=True, return_counts=True)
    groups_of_class = np.bincount(pairs[0], minlength=class_count)
    photo_pair = photo_pair.ravel()
    return np.asarray(1.0 / (sizes[photo_pair] * groups_of_class[classes] * np.count_nonzero(groups_of_class)))


def fit_ridge(rows: Floats, classes: Numbers, groups: Numbers, class_count: int) -> Ridge:
    """Fit a head to embeddings (photos, channels) of length 1, with the class and the group of each photo.

    Every class from 0 to `class_count` - 1 needs a photo. The strength is the one whose left-out predictions err
    least. The same photos in the same order give the same numbers.
    """
    weights = weigh_groups(classes, groups, class_count)
    examples = Examples(rows, classes, weights, class_count)
    found = thin_spectrum(examples)
    strength = _choose_strength(examples, found, groups)
    left_out = np.empty((len(rows), class_count))
    for members, scores in ridge_left_out(examples, found, groups, [strength]):
        left_out[members] = scores[0]
    weight = _solve(examples, found, strength)
    is_measured = _is_measured(classes, groups, class_count)
    # One photo of each group and class, since near-duplicates count once.
    first = np.unique(np.stack([classes, groups]), axis=1, return_index=True)[1]
    measured = np.sort(first[is_measured[first]])
    temperature = _temperature(left_out[measured], classes[measured])
    centres = class_centres(examples)
    has_enough = len(measured) >= MIN_PHOTOS
    near = left_out_nearness(examples, groups, centres)[measured] if has_enough else None
    calibration = _calibrate(left_out[measured] / temperature, classes[measured], near)
    return Ridge(weight / temperature, centres, strength, left_out / temperature, is_measured, calibration)


def thin_spectrum(examples: Examples) -> Spectrum:
    """Return the spectrum of examples; of fewer photos than channels only the part that they span, which is faster.

    The eigenvectors are then the columns of (channels + 1, photos).
    """
    if len(examples.rows) > examples.rows.shape[1]:
        return spectrum(examples)
    root = with_constant(examples.rows) * np.sqrt(examples.weights)[:, None]
    values, vectors = np.linalg.eigh(root @ root.T)
    kept = values > _NEGLIGIBLE * values[-1]
    return Spectrum(values[kept], root.T @ vectors[:, kept] / np.sqrt(values[kept]))


def _choose_strength(examples: Examples, like: Spectrum, groups: Numbers) -> float:
    errors = np.zeros(len(STRENGTHS))
    targets = np.eye(examples.class_count)
    for members, scores in ridge_left_out(examples, like, groups, STRENGTHS):
        squares = ((scores - targets[examples.classes[members]]) ** 2).sum(axis=2)
        errors += squares @ examples.weights[members]
    best: float = STRENGTHS[int(errors.argmin())]
    return best


def _solve(examples: Examples, like: Spectrum, strength: float) -> Doubles:
    moment = np.zeros((examples.rows.shape[1] + 1, examples.class_count))
    targets = np.eye(examples.class_count)
    for rows, part in examples.chunks():
        moment += (rows * examples.weights[part, None]).T @ targets[examples.classes[part]]
    turned = (like.vectors.T @ moment) / (like.values + strength)[:, None]
    return np.asarray((like.vectors @ turned).T)


def _is_measured(classes: Numbers, groups: Numbers, class_count: int) -> Bools:
    pairs = np.unique(np.stack([classes, groups]), axis=1)
    return np.asarray((np.bincount(pairs[0], minlength=class_count) > 1)[classes])


def class_centres(examples: Examples) -> Doubles:
    """Return the weighted mean (classes, channels) of the rows of each class."""
    sums = np.zeros((examples.class_count, examples.rows.shape[1]))
    targets = np.eye(examples.class_count)
    for rows, part in examples.chunks():
        sums += (targets[examples.classes[part]] * examples.weights[part, None]).T @ rows[:, :-1]
    return np.asarray(sums / np.bincount(examples.classes, examples.weights)[:, None])


def left_out_nearness(examples: Examples, groups: Numbers, centres: Doubles) -> Doubles:
    """Return the score (photos) of `nearness` for each photo, with the centre of its class without its group.

    Every group of a class must weigh the same, as `weigh_groups` does. Of a group with photos of several classes,
    those of the others stay in their centres.
    """
    pairs, pair = np.unique(np.stack([examples.classes, groups]), axis=1, return_inverse=True)
    pair, counts = pair.ravel(), np.bincount(pairs[0])[examples.classes]
    scores, own_cosines = np.empty(len(examples.rows)), _cosines_with_own(examples, pair)
    for rows, part in examples.chunks():
        cosines, own = rows[:, :-1] @ centres.T, examples.classes[part]
        at, groups_left = np.arange(len(rows)), counts[part] - 1
        without = counts[part] * cosines[at, own] - own_cosines[part]
        cosines[at, own] = np.divide(without, groups_left, out=np.full(len(rows), -1.0), where=groups_left > 0)
        scores[part] = cosines.max(axis=1)
    return scores


def _cosines_with_own(examples: Examples, pair: Numbers) -> Doubles:
    """Return the product of each row with the mean of the rows of its own pair of class and group."""
    products = np.empty(len(examples.rows))
    for rows, part in examples.chunks():
        products[part] = np.square(rows[:, :-1]).sum(axis=1)
    order = np.argsort(pair, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(pair[order])) + 1):
        if len(members) > 1:
            parts = [members[start : start + CHUNK_ROWS] for start in range(0, len(members), CHUNK_ROWS)]
            total = sum(examples.rows[some].sum(axis=0, dtype=np.float64) for some in parts)
            for some in parts:
                products[some] = examples.rows[some].astype(np.float64) @ total / len(members)
    return products


def _calibrate(left_out: Doubles, classes: Numbers, scores: Doubles | None) -> Calibration:
    """Measure the thresholds of certainty by the logits and the nearness of photos that were left out."""
    sure_at = None
    if len(classes):
        right = np.asarray(left_out.argmax(axis=1) == classes)
        sure_at = round(sure_threshold(first_probabilities(left_out, 1.0), right), 4)
    unlike = None if scores is None else float(np.percentile(scores, UNLIKE_PERCENTILE))
    return Calibration(1.0, sure_at, unlike, _SOURCE, max(1, len(classes)))


def _temperature(left_out: Doubles, classes: Numbers) -> float:
    if not len(left_out):
        return _NO_TEMPERATURE
    try:
        return fit_temperature(left_out, classes, added=1)
    except FitError:
        return _NO_TEMPERATURE
