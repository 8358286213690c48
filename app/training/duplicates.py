"""Groups of near-duplicates: photos whose embeddings have nearly the same direction, mirrored or not.

Every photo is compared with every other one, but most pairs by a few numbers only, which bound how alike they can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ..model.duplicates import NEAR_DUPLICATE
from ..model.solver import Numbers

Rows = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float32]

_BLOCK_ROWS = 2048
_PART_PAIRS = 4096
# The directions in which photos differ most are found from so many of them.
_SAMPLE_ROWS = 1024
_DIRECTIONS = 96
# Above the rounding errors of a bound that is stored in float16.
_SLACK = 0.004
# If more pairs of a block than one in this many may be near, the whole block is compared, which is faster by then.
_FEW = 64


def group_duplicates(rows: Rows, report: Callable[[int, int], None]) -> Numbers:
    """Return a number for each photo, the same for photos that are near-duplicates or mirror images of each other.

    `rows` is (photos, 2, channels) of length 1, the second view the mirror image; it may lie in a file. A group has
    the number of its first photo.
    """
    groups, short = _Groups(len(rows)), _shorten(rows)
    for start in range(0, len(rows), _BLOCK_ROWS):
        for other in range(0, start + 1, _BLOCK_ROWS):
            for first, second in _near(rows, short, groups.numbers, (start, other)):
                groups.unite(first, second)
        report(min(start + _BLOCK_ROWS, len(rows)), len(rows))
    return groups.numbers


class _Groups:
    """Groups that grow together; `numbers` has each member's group, the lowest of its members."""

    def __init__(self, count: int) -> None:
        self.numbers = np.arange(count)

    def unite(self, first: Numbers, second: Numbers) -> None:
        """Unite the groups of the members of each pair."""
        while len(first):
            # Of each group only one pair is taken at a time, so that thousands of copies need few passes.
            _, places = np.unique(self.numbers[first], return_index=True)
            for one, another in zip(first[places], second[places], strict=True):
                low, high = sorted((self._root(int(one)), self._root(int(another))))
                self.numbers[high] = low
            self._flatten()
            is_apart = self.numbers[first] != self.numbers[second]
            first, second = first[is_apart], second[is_apart]

    def _root(self, member: int) -> int:
        while self.numbers[member] != member:
            member = int(self.numbers[member])
        return member

    def _flatten(self) -> None:
        while not np.array_equal(self.numbers, shorter := self.numbers[self.numbers]):
            self.numbers = shorter


def _shorten(rows: Rows) -> Rows:
    """Return a few numbers (photos, 2, directions + 1) for each view: its part in them, and the length of the rest.

    The product of two views' numbers is at least the product of the views: in the directions it is the same, and the
    rests add at most the product of their lengths. The more the directions hold, the nearer it is.
    """
    directions = _find_directions(rows)
    short = np.empty((*rows.shape[:2], directions.shape[1] + 1), np.float16)
    for start in range(0, len(rows), _BLOCK_ROWS):
        part = rows[start : start + _BLOCK_ROWS].astype(np.float32)
        inside = part @ directions
        rest = np.square(part).sum(axis=2) - np.square(inside).sum(axis=2)
        short[start : start + len(part), :, :-1] = inside
        short[start : start + len(part), :, -1] = np.sqrt(np.maximum(rest, 0))
    return short


def _find_directions(rows: Rows) -> Floats:
    """Return orthonormal columns (channels, directions) along which the photos differ most."""
    sample = rows[:: max(1, -(-len(rows) // _SAMPLE_ROWS)), 0].astype(np.float32)
    _, vectors = np.linalg.eigh(sample @ sample.T)
    directions, _ = np.linalg.qr(sample.T @ vectors[:, -_DIRECTIONS:])
    return np.asarray(directions)


def _near(rows: Rows, short: Rows, groups: Numbers, starts: tuple[int, int]) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield the pairs of near-duplicates of two blocks, which begin at `starts`, that are in different groups yet."""
    block, other = (slice(start, start + _BLOCK_ROWS) for start in starts)
    may_be_near = _products(short[block], short[other]) >= NEAR_DUPLICATE - _SLACK
    may_be_near &= groups[block, None] != groups[None, other]
    count = int(np.count_nonzero(may_be_near))
    if count > may_be_near.size // _FEW:
        may_be_near &= _products(rows[block], rows[other]) >= NEAR_DUPLICATE
        yield from _pairs(may_be_near, starts)
    elif count:
        for first, second in _pairs(may_be_near, starts):
            one, views = rows[first, 0].astype(np.float32), rows[second].astype(np.float32)
            is_near = np.einsum("pc,pvc->pv", one, views).max(axis=1) >= NEAR_DUPLICATE
            yield first[is_near], second[is_near]


def _products(rows: Rows, others: Rows) -> Floats:
    """Return the product (rows, others) of each row's first view with the view of another one that is nearest."""
    first = rows[:, 0].astype(np.float32)
    views = [first @ others[:, view].astype(np.float32).T for view in range(others.shape[1])]
    return np.asarray(np.maximum.reduce(views))


def _pairs(wanted: npt.NDArray[np.bool_], starts: tuple[int, int]) -> Iterator[tuple[Numbers, Numbers]]:
    first, second = np.nonzero(wanted)
    for begin in range(0, len(first), _PART_PAIRS):
        part = slice(begin, begin + _PART_PAIRS)
        yield first[part] + starts[0], second[part] + starts[1]
