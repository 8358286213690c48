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
from .certainty import rejection_score
from .heads import Floats
from .probabilities import Doubles
from .solver import Examples, Numbers, Spectrum, ridge_left_out, spectrum, with_constant

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

    `left_out` (photos, classes) are the logits for each photo by a head without its group. `is_measured` (photos) is
    false for a photo whose class has no other group: what is said of it by a head without its class means nothing.
    """

    weight: Doubles
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
    return _scaled(Ridge(weight, strength, left_out, is_measured, _UNKNOWN), rows, classes, groups)


_UNKNOWN = Calibration(None, None, None, _SOURCE)


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


def _scaled(found: Ridge, rows: Floats, classes: Numbers, groups: Numbers) -> Ridge:
    """Divide the head and its logits by the temperature, and measure the thresholds of certainty."""
    first = np.unique(np.stack([classes, groups]), axis=1, return_index=True)[1]
    measured = np.sort(first[found.is_measured[first]])
    temperature = _temperature(found.left_out[measured], classes[measured])
    weight, left_out = found.weight / temperature, found.left_out / temperature
    sure_at = unlike = None
    if len(measured):
        right = np.asarray(left_out[measured].argmax(axis=1) == classes[measured])
        sure_at = round(sure_threshold(first_probabilities(left_out[measured], 1.0), right), 4)
    if len(measured) >= MIN_PHOTOS:
        scores = rejection_score(left_out[measured], rows[measured], weight[:, -1])
        unlike = float(np.percentile(scores, UNLIKE_PERCENTILE))
    calibration = Calibration(1.0, sure_at, unlike, _SOURCE, max(1, len(measured)))
    return Ridge(weight, found.strength, left_out, found.is_measured, calibration)


def _temperature(left_out: Doubles, classes: Numbers) -> float:
    if not len(left_out):
        return _NO_TEMPERATURE
    try:
        return fit_temperature(left_out, classes, added=1)
    except FitError:
        return _NO_TEMPERATURE
