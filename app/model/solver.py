"""The solver of heads: softmax regression by L-BFGS, and the left-out predictions of ridge regression.

Everything is computed in float64 and in a fixed order, so that the same rows give the same numbers. Rows are read in
chunks, so that they may lie in a file. A head has a bias as the weight of a constant 1 that each row ends with; it is
regularised as any other weight.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .probabilities import Doubles, log_softmax, softmax

Rows = npt.NDArray[np.floating[Any]]
Numbers = npt.NDArray[np.intp]
# Rows in float64 with a constant, and where they are.
Chunk = tuple[Doubles, slice]
# From points (functions, n) to values (functions) and gradients (functions, n).
Losses = Callable[[Doubles], tuple[Doubles, Doubles]]

CHUNK_ROWS = 4096
# Up to this size, rows are turned into float64 once.
MAX_KEPT_BYTES = 256 * 2**20
_BLOCK_ROWS = 1024
# Heads are fitted side by side up to this number of classes in all: more of them fill the processor, and take memory.
_MAX_COLUMNS = 128
MAX_STEPS = 500
# The loss is a mean over photos of about 1; its gradient is this small at the end.
TOLERANCE = 1e-5
# How far weights (L2) may be from the minimum; they are some hundreds long. It bounds what a fit that begins at the
# weights of another one still knows of rows that it leaves out: 0.001 of a logit on 500 photos of clothes.
MAX_DISTANCE = 1.0
# After this number of steps, the second derivative is computed again, from about this number of rows.
_ROUND_STEPS = 15
_CURVATURE_ROWS = 4096
# The part of the second derivative among classes that is taken to be the same for all. On 500 photos of clothes 0.3
# took 24 evaluations a fold, 0 took 33 and 1 took 26; on 3,068 photos 0.3 and 0.7 did not differ.
_EVEN = 0.3
_MEMORY = 20
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

    def chunks(self) -> Iterator[Chunk]:
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
        scaled = rows * np.sqrt(examples.weights[part])[:, None]
        gram += scaled.T @ scaled
    values, vectors = np.linalg.eigh(gram)
    return Spectrum(np.maximum(values, 0.0), vectors)


def fit_softmax(examples: Examples, strength: float, like: Spectrum, start: Doubles | None = None) -> Doubles:
    """Minimise the weighted cross-entropy plus strength / 2 times the sum of all squared weights.

    Return the weights (classes, channels + 1), the last column the bias. The minimum is unique: `like`, the spectrum
    of these examples or of nearly the same, and `start` only shorten the way to it. At the end, the gradient is at
    most `TOLERANCE` long and the weights are at most `MAX_DISTANCE` away from the minimum, unless `MAX_STEPS` came
    first.
    """
    problem = _Softmax(examples, examples.weights[None], strength)
    heads = np.zeros((1, examples.class_count, len(like.values))) if start is None else start[None]
    curvature = _equal_curvature(like, examples.class_count)
    for _ in range(MAX_STEPS // _ROUND_STEPS):
        heads, is_done = problem.solve(heads, curvature, _ROUND_STEPS)
        if is_done:
            break
        curvature = _curvature(examples, heads[0])
    return np.asarray(heads[0])


def softmax_left_out(
    examples: Examples, folds: Numbers, strength: float, fitted: Doubles
) -> Iterator[tuple[Numbers, Doubles]]:
    """Yield the numbers of some rows and their logits (rows, classes) by softmax heads that were fitted without them.

    `folds` has the fold, from 0, of each row; the rows of a fold are left out together, and those that remain are
    weighed again. The search begins at `fitted`, the weights of the fit on all rows. Several heads are fitted at a
    time, and share each pass over the rows.
    """
    curvature = _curvature(examples, fitted)
    count = int(folds.max()) + 1
    at_a_time = max(1, _MAX_COLUMNS // examples.class_count)
    for first in range(0, count, at_a_time):
        some = range(first, min(first + at_a_time, count))
        weights = np.stack([_weights_without(examples, folds == fold) for fold in some])
        # A head that learns from no row would keep a little of where it begins.
        start = np.where(np.any(weights, axis=1, keepdims=True)[:, :, None], fitted, 0.0)
        heads, _ = _Softmax(examples, weights, strength).solve(start, curvature, MAX_STEPS)
        for fold, head in zip(some, heads, strict=True):
            for part in _parts(np.flatnonzero(folds == fold)):
                yield part, with_constant(examples.rows[part]) @ head.T


def _weights_without(examples: Examples, left_out: npt.NDArray[np.bool_]) -> Doubles:
    weights = np.zeros(len(left_out))
    weights[~left_out] = weigh_classes(examples.classes[~left_out], examples.class_count)
    return weights


@dataclass(frozen=True)
class _Curvature:
    """An approximation of a loss's second derivative by the product of two: among classes, and among channels.

    `values` (classes, channels + 1) are its eigenvalues, and the products of the columns of `between` (classes,
    classes) and `vectors` (channels + 1, channels + 1) its eigenvectors.
    """

    values: Doubles
    between: Doubles
    vectors: Doubles

    @classmethod
    def of(cls, between: Doubles, like: Spectrum) -> _Curvature:
        """Make the product of a matrix among classes and a spectrum among channels."""
        values, vectors = np.linalg.eigh(between)
        return cls(np.maximum(values, 0.0)[:, None] * like.values, vectors, like.vectors)


def _curvature(examples: Examples, weight: Doubles) -> _Curvature:
    """Return the second derivative of the loss at some weights, from some of the rows."""
    classes, step = examples.class_count, -(-len(examples.rows) // _CURVATURE_ROWS)
    some = Examples(examples.rows[::step], examples.classes[::step], examples.weights[::step] * step, classes)
    between, weights = np.zeros((classes, classes)), np.zeros(len(some.rows))
    for rows, part in some.chunks():
        shares = softmax(rows @ weight.T)
        weights[part] = some.weights[part] * (shares * (1 - shares)).mean(axis=1)
        between += np.diag(some.weights[part] @ shares) - (shares * some.weights[part, None]).T @ shares
    if weights.any():
        between /= weights.sum()
    return _Curvature.of(
        (1 - _EVEN) * between + _EVEN * np.eye(classes), spectrum(dataclasses.replace(some, weights=weights))
    )


def _equal_curvature(like: Spectrum, classes: int) -> _Curvature:
    """Return the second derivative where all classes are equally probable."""
    return _Curvature.of((np.eye(classes) - 1 / classes) / classes, like)


class _Softmax:
    """The losses of several heads on the same examples, of which each weighs the rows in its own way."""

    def __init__(self, examples: Examples, weights: Doubles, strength: float) -> None:
        self._examples, self._weights, self._strength = examples, weights, strength
        self._shape = len(weights), examples.class_count, examples.rows.shape[1] + 1
        is_small = len(examples.rows) * self._shape[2] * 8 <= MAX_KEPT_BYTES
        self._kept = list(examples.chunks()) if is_small else None

    def solve(self, start: Doubles, curvature: _Curvature, max_steps: int) -> tuple[Doubles, bool]:
        """Return the weights (heads, classes, channels + 1) of least loss, and whether all are reached.

        The search is among u, of which the weights are a linear function: along the eigenvectors of the second
        derivative, divided by the roots of its eigenvalues, a loss is about as steep in every direction.
        """
        roots = np.sqrt(curvature.values + self._strength)

        def weights_of(scaled: Doubles) -> Doubles:
            turned = (scaled.reshape(self._shape) / roots).reshape(-1, self._shape[2])
            return np.asarray(curvature.between @ (turned @ curvature.vectors.T).reshape(self._shape))

        def turn(weights: Doubles) -> Doubles:
            turned = weights.reshape(-1, self._shape[2]) @ curvature.vectors
            return np.asarray(curvature.between.T @ turned.reshape(self._shape))

        def losses(scaled: Doubles) -> tuple[Doubles, Doubles]:
            values, gradients = self._losses(weights_of(scaled))
            return values, (turn(gradients) / roots).reshape(scaled.shape)

        def is_far(gradients: Doubles) -> npt.NDArray[np.bool_]:
            by_weights = (gradients.reshape(self._shape) * roots).reshape(gradients.shape)
            # The second derivative is at least the strength, which bounds the distance to the minimum.
            distances = np.linalg.norm(by_weights, axis=1)
            return np.asarray(distances > min(TOLERANCE, self._strength * MAX_DISTANCE))

        scaled, is_done = minimise(losses, (turn(start) * roots).reshape(len(start), -1), is_far, max_steps)
        return weights_of(scaled), is_done

    def _losses(self, weights: Doubles) -> tuple[Doubles, Doubles]:
        """Return the values (heads) and the gradients (heads, classes, channels + 1) at some weights."""
        values = self._strength / 2 * np.sum(weights * weights, axis=(1, 2))
        columns = weights.reshape(-1, self._shape[2])
        gradients = self._strength * columns
        for rows, part in self._kept or self._examples.chunks():
            gradients += self._slopes(rows @ columns.T, part, values).T @ rows
        return values, gradients.reshape(self._shape)

    def _slopes(self, logits: Doubles, part: slice, values: Doubles) -> Doubles:
        """Return the derivatives by the logits (rows, heads times classes), and add the losses to `values`."""
        heads, classes, _ = self._shape
        log_shares = log_softmax(logits.reshape(-1, heads, classes))
        weights = self._weights[:, part].T
        picked = np.arange(len(logits)), slice(None), self._examples.classes[part]
        values -= np.sum(weights * log_shares[picked], axis=0)
        slopes = np.exp(log_shares)
        slopes[picked] -= 1
        slopes *= weights[:, :, None]
        return np.asarray(slopes.reshape(logits.shape))


def minimise(
    losses: Losses, start: Doubles, is_far: Callable[[Doubles], npt.NDArray[np.bool_]], max_steps: int
) -> tuple[Doubles, bool]:
    """Minimise smooth convex functions side by side, each of its own row of `start` (functions, n), by L-BFGS.

    Return the points, and whether all are minima: a function is done if `is_far`, which gets the gradients,
    returns false for it, or if its value falls no further.

    Nocedal and Wright, Numerical Optimization (2006), algorithms 7.4 and 7.5, with backtracking: a step is halved
    until the value falls enough.
    """
    at, (values, gradients) = start, losses(start)
    pairs: deque[_Pair] = deque(maxlen=_MEMORY)
    is_open = np.ones(len(start), np.bool_)
    for _ in range(max_steps):
        is_open &= is_far(gradients)
        if not is_open.any():
            break
        directions = -_times_inverse_hessian(gradients, pairs) * is_open[:, None]
        moves, new_values, new_gradients = _step(losses, at, (values, gradients), directions)
        is_open &= new_values < values  # else it is as near as float64 comes
        rows = is_open[:, None]
        moves, new_gradients = moves * rows, np.where(rows, new_gradients, gradients)
        pairs.append(_Pair.of(moves, new_gradients - gradients))
        at, values, gradients = at + moves, np.where(is_open, new_values, values), new_gradients
    return at, not is_open.any()


def _step(losses: Losses, at: Doubles, now: tuple[Doubles, Doubles], directions: Doubles) -> tuple[Doubles, ...]:
    """Return moves along the directions, after which the values have fallen enough, and values and gradients there."""
    values, gradients = now
    slopes, steps = _dots(directions, gradients), np.ones(len(at))
    while True:
        moves = steps[:, None] * directions
        new_values, new_gradients = losses(at + moves)
        is_long = (new_values > values + _SUFFICIENT * steps * slopes) & (steps > _MIN_STEP)
        if not is_long.any():
            return moves, new_values, new_gradients
        steps = np.where(is_long, steps / 2, steps)


@dataclass(frozen=True)
class _Pair:
    """Moves of functions (functions, n) and how their gradients changed, with the products of both (functions)."""

    moves: Doubles
    changes: Doubles
    products: Doubles

    @classmethod
    def of(cls, moves: Doubles, changes: Doubles) -> _Pair:
        return cls(moves, changes, _dots(moves, changes))

    def divide(self, numbers: Doubles) -> Doubles:
        """Return numbers (functions) divided by the products; 0 for a function that did not move."""
        return np.divide(numbers, self.products, out=np.zeros_like(numbers), where=self.products > 0)


def _dots(first: Doubles, second: Doubles) -> Doubles:
    return np.asarray(np.einsum("fn,fn->f", first, second))


def _times_inverse_hessian(gradients: Doubles, pairs: Sequence[_Pair]) -> Doubles:
    result = gradients.copy()
    factors = []
    for pair in reversed(pairs):
        factors.append(pair.divide(_dots(pair.moves, result)))
        result -= factors[-1][:, None] * pair.changes
    if pairs:
        inverse = pairs[-1].divide(_dots(pairs[-1].changes, pairs[-1].changes))
        result /= np.where(inverse > 0, inverse, 1.0)[:, None]
    for pair, factor in zip(pairs, reversed(factors), strict=True):
        result += (factor - pair.divide(_dots(pair.changes, result)))[:, None] * pair.moves
    return result


def ridge_left_out(
    examples: Examples, like: Spectrum, groups: Numbers, strengths: Sequence[float]
) -> Iterator[tuple[Numbers, Doubles]]:
    """Yield the numbers of some rows and their scores (strengths, rows, classes) by ridge heads without their groups.

    `like` is the spectrum of the examples, `groups` has a number for each row, and each row is yielded once. Nothing
    is fitted again: with H = X (X'WX + sI)^-1 X'W and the residuals E of the fit on all rows, the residuals of a
    left-out group G are (I - H_GG)^-1 E_G. Only a group of more rows than channels is faster left out by a new fit.
    Targets are 1 for a row's own class and 0 for the others.
    """
    turned_moment = like.vectors.T @ _moment(examples)
    shrunk = 1.0 / (like.values + np.array(strengths)[:, None])
    for members in _blocks(groups):
        if members.shape[1] > examples.rows.shape[1]:
            yield from _refit_without(examples, members[0], strengths)
            continue
        rows = with_constant(examples.rows[members.ravel()]) @ like.vectors
        scores = [_leave_out(examples, members, rows, by, turned_moment) for by in shrunk]
        yield members.ravel(), np.stack(scores).reshape(len(strengths), members.size, -1)


def _moment(examples: Examples) -> Doubles:
    """Return the weighted sum (channels + 1, classes) of rows by their class."""
    moment = np.zeros((examples.rows.shape[1] + 1, examples.class_count))
    targets = np.eye(examples.class_count)
    for rows, part in examples.chunks():
        moment += (rows * examples.weights[part, None]).T @ targets[examples.classes[part]]
    return moment


def _refit_without(
    examples: Examples, members: Numbers, strengths: Sequence[float]
) -> Iterator[tuple[Numbers, Doubles]]:
    weights = examples.weights.copy()
    weights[members] = 0
    rest = dataclasses.replace(examples, weights=weights)
    found = spectrum(rest)
    turned_moment = found.vectors.T @ _moment(rest)
    heads = [found.vectors @ (turned_moment / (found.values + strength)[:, None]) for strength in strengths]
    for part in _parts(members):
        rows = with_constant(examples.rows[part])
        yield part, np.stack([rows @ head for head in heads])


def _parts(members: Numbers) -> Iterator[Numbers]:
    for start in range(0, len(members), CHUNK_ROWS):
        yield members[start : start + CHUNK_ROWS]


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
