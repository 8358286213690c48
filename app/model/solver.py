"""The solver of heads: softmax regression by L-BFGS, and the left-out predictions of ridge regression.

Everything is computed in float64 and in a fixed order, so that the same rows give the same numbers. Rows are read in
chunks, so that they may lie in a file. A head has a bias as the weight of a constant 1 that each row ends with; it is
regularised as any other weight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .probabilities import Doubles, log_softmax

Rows = npt.NDArray[np.floating[Any]]
Numbers = npt.NDArray[np.intp]

CHUNK_ROWS = 4096
# Up to this size, rows are turned into float64 once.
MAX_KEPT_BYTES = 256 * 2**20
_BLOCK_ROWS = 1024
MAX_STEPS = 500
# The loss is a mean over photos of about 1; its gradient is this small at the end.
TOLERANCE = 1e-5
_MEMORY = 10
# Armijo's condition, with the constant of Nocedal and Wright, Numerical Optimization (2006), page 33.
_SUFFICIENT = 1e-4
_MIN_STEP = 1e-10


@dataclass(frozen=True)
class Examples:
    """Rows (n, channels) with the class and the weight of each; the weights add up to 1."""

    rows: Rows
    classes: Numbers
    weights: Doubles
    class_count: int

    def chunks(self) -> Iterator[tuple[Doubles, slice]]:
        """Yield float64 rows (up to `CHUNK_ROWS`, channels + 1), each ending with a 1, and where they are."""
        for start in range(0, len(self.rows), CHUNK_ROWS):
            part = slice(start, min(start + CHUNK_ROWS, len(self.rows)))
            yield with_constant(self.rows[part]), part


def with_constant(rows: Rows) -> Doubles:
    """Return rows in float64 with a 1 at the end of each."""
    return np.hstack([rows.astype(np.float64), np.ones((len(rows), 1))])


def weigh_classes(classes: Numbers, class_count: int) -> Doubles:
    """Return a weight for each row, so that every class that occurs weighs the same and all add up to 1."""
    counts = np.bincount(classes, minlength=class_count)
    return 1.0 / (counts[classes] * np.count_nonzero(counts))


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues (ascending) and eigenvectors (columns) of the weighted second moments of rows with a constant."""

    values: Doubles
    vectors: Doubles


def spectrum(examples: Examples) -> Spectrum:
    """Compute the spectrum of examples, on which both kinds of heads are built."""
    size = examples.rows.shape[1] + 1
    gram = np.zeros((size, size))
    for rows, part in examples.chunks():
        gram += rows.T @ (rows * examples.weights[part, None])
    values, vectors = np.linalg.eigh(gram)
    return Spectrum(np.maximum(values, 0.0), vectors)


def fit_softmax(examples: Examples, strength: float, like: Spectrum, start: Doubles | None = None) -> Doubles:
    """Minimise the weighted cross-entropy plus strength / 2 times the sum of all squared weights.

    Return the weights (classes, channels + 1), the last column the bias. The minimum is unique: `like`, the spectrum
    of these examples or of nearly the same, and `start` only shorten the way to it. The gradient at the end is at
    most `TOLERANCE` long, unless `MAX_STEPS` came first.
    """
    shape = examples.class_count, examples.rows.shape[1] + 1
    start = np.zeros(shape) if start is None else start
    is_small = len(examples.rows) * shape[1] * 8 <= MAX_KEPT_BYTES
    kept = list(examples.chunks()) if is_small else None
    # The second derivative at equal shares of all classes, in the eigenvectors' basis.
    curvature = like.values * (1 - 1 / shape[0]) / shape[0] + strength

    def loss(flat: Doubles) -> tuple[float, Doubles]:
        weight = flat.reshape(shape)
        value, gradient = strength / 2 * float(np.sum(weight * weight)), strength * weight
        for rows, part in kept or examples.chunks():
            log_shares = log_softmax(rows @ weight.T)
            picked = np.arange(len(rows)), examples.classes[part]
            value -= float(examples.weights[part] @ log_shares[picked])
            slope = np.exp(log_shares)
            slope[picked] -= 1
            gradient += (slope * examples.weights[part, None]).T @ rows
        return value, gradient.ravel()

    def scale(flat: Doubles) -> Doubles:
        turned = flat.reshape(shape) @ like.vectors / curvature
        return np.asarray(turned @ like.vectors.T).ravel()

    return minimise(loss, start.ravel(), scale).reshape(shape)


def minimise(
    loss: Callable[[Doubles], tuple[float, Doubles]], start: Doubles, scale: Callable[[Doubles], Doubles]
) -> Doubles:
    """Minimise a smooth convex function, which returns its value and gradient, by L-BFGS.

    `scale` multiplies by an approximation of the inverse of the second derivative, which must be positive definite.

    Nocedal and Wright, Numerical Optimization (2006), algorithms 7.4 and 7.5, with backtracking: a step is halved
    until the value falls enough.
    """
    at, (value, gradient) = start, loss(start)
    pairs: deque[tuple[Doubles, Doubles]] = deque(maxlen=_MEMORY)
    for _ in range(MAX_STEPS):
        if float(np.linalg.norm(gradient)) <= TOLERANCE:
            break
        direction = -_times_inverse_hessian(gradient, pairs, scale)
        slope = float(direction @ gradient)
        step = 1.0
        new_value, new_gradient = loss(at + step * direction)
        while new_value > value + _SUFFICIENT * step * slope and step > _MIN_STEP:
            step /= 2
            new_value, new_gradient = loss(at + step * direction)
        if new_value >= value:  # as near as float64 comes
            break
        move, change = step * direction, new_gradient - gradient
        if float(move @ change) > 0:
            pairs.append((move, change))
        at, value, gradient = at + move, new_value, new_gradient
    return at


def _times_inverse_hessian(
    gradient: Doubles, pairs: Sequence[tuple[Doubles, Doubles]], scale: Callable[[Doubles], Doubles]
) -> Doubles:
    result = gradient.copy()
    factors = []
    for move, change in reversed(pairs):
        factors.append(float(move @ result) / float(move @ change))
        result -= factors[-1] * change
    result = scale(result)
    if pairs:
        move, change = pairs[-1]
        result *= float(move @ change) / float(change @ scale(change))
    for (move, change), factor in zip(pairs, reversed(factors), strict=True):
        result += (factor - float(change @ result) / float(move @ change)) * move
    return result


def ridge_left_out(
    examples: Examples, like: Spectrum, groups: Numbers, strengths: Sequence[float]
) -> Iterator[tuple[Numbers, Doubles]]:
    """Yield the numbers of some rows and their scores (strengths, rows, classes) by ridge heads without their groups.

    `like` is the spectrum of the examples, `groups` has a number for each row, and each row is yielded once. Nothing
    is fitted again: with H = X (X'WX + sI)^-1 X'W and the residuals E of the fit on all rows, the residuals of a
    left-out group G are (I - H_GG)^-1 E_G. Targets are 1 for a row's own class and 0 for the others.
    """
    moment = np.zeros((examples.rows.shape[1] + 1, examples.class_count))
    targets = np.eye(examples.class_count)
    for rows, part in examples.chunks():
        moment += (rows * examples.weights[part, None]).T @ targets[examples.classes[part]]
    turned_moment = like.vectors.T @ moment
    shrunk = 1.0 / (like.values + np.array(strengths)[:, None])
    for members in _blocks(groups):
        rows = with_constant(examples.rows[members.ravel()]) @ like.vectors
        scores = [_leave_out(examples, members, rows, by, turned_moment) for by in shrunk]
        yield members.ravel(), np.stack(scores).reshape(len(strengths), members.size, -1)


def _blocks(groups: Numbers) -> Iterator[Numbers]:
    """Yield arrays (groups, members) of row numbers, of groups that have the same number of members."""
    order = np.argsort(groups, kind="stable")
    blocks = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    for size in sorted({len(block) for block in blocks}):
        same = np.stack([block for block in blocks if len(block) == size])
        step = max(1, _BLOCK_ROWS // size)
        for start in range(0, len(same), step):
            yield same[start : start + step]


def _leave_out(examples: Examples, members: Numbers, rows: Doubles, shrunk: Doubles, moment: Doubles) -> Doubles:
    """Return the scores (groups, members, classes) of groups, each left out; `rows` are in the eigenvectors' basis."""
    targets = np.eye(examples.class_count)[examples.classes[members]]
    scaled = rows * shrunk
    residuals = targets - (scaled @ moment).reshape(targets.shape)
    shape = *members.shape, rows.shape[1]
    leverage = scaled.reshape(shape) @ rows.reshape(shape).transpose(0, 2, 1) * examples.weights[members][:, None, :]
    return np.asarray(targets - np.linalg.solve(np.eye(members.shape[1]) - leverage, residuals))
