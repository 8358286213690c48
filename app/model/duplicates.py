"""Near-duplicates: photos whose embeddings are so near to each other that one counts as a copy of the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .heads import Floats
from .solver import Numbers

Rows = npt.NDArray[np.floating[Any]]
Halves = npt.NDArray[np.float16]

# The cosine of two photos' embeddings from which one counts as a copy of the other.
NEAR_DUPLICATE = 0.93
# Above the rounding errors of a bound that is stored in float16.
SLACK = 0.004
_BLOCK_ROWS = 2048
_PART_PAIRS = 4096
# If more pairs of two blocks than one in this many may be near, the blocks are compared as a whole.
_FEW = 64
# Photos from which the directions are found in which photos differ most.
_SAMPLE_ROWS = 1024
_DIRECTIONS = 96


def group_duplicates(rows: Rows, report: Callable[[int, int], None] = lambda done, total: None) -> Numbers:
    """Return a number for each photo, the same for photos that are near-duplicates or mirror images of each other.

    `rows` is (photos, views, channels) of length 1, the first view the photo, a second one its mirror image; it may
    lie in a file. Photos that are near-duplicates of the same one are in one group, which has the number of its first
    photo. `report` is called with the photos that are compared, and all.
    """
    groups, short = Groups(np.arange(len(rows))), shorten(rows, find_directions(rows[:, 0]))
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        for other in range(0, start + 1, _BLOCK_ROWS):
            others = slice(other, other + _BLOCK_ROWS)
            # Most pairs are compared by a few numbers only, which bound how alike they can be.
            may_be_near = _nearest(short[block], short[others]) >= NEAR_DUPLICATE - SLACK
            may_be_near &= groups.numbers[block, None] != groups.numbers[None, others]
            first, second = np.nonzero(may_be_near)
            views = [cosines(rows[block, 0], rows[others, view], first, second) for view in range(rows.shape[1])]
            is_near = np.maximum.reduce(views) >= NEAR_DUPLICATE
            groups.unite(first[is_near] + start, second[is_near] + other)
        report(min(start + _BLOCK_ROWS, len(rows)), len(rows))
    return groups.numbers


def unite_near(groups: Groups, rows: Rows, places: Numbers, others: Numbers) -> None:
    """Unite the groups of the near-duplicates among some rows (n, channels) of length 1 and some others."""
    for start in range(0, len(others), _BLOCK_ROWS):
        block = others[start : start + _BLOCK_ROWS]
        is_near = rows[places] @ rows[block].T >= NEAR_DUPLICATE
        is_near &= groups.numbers[places, None] != groups.numbers[None, block]
        first, second = np.nonzero(is_near)
        groups.unite(places[first], block[second])


def _nearest(rows: Halves, others: Halves) -> Floats:
    """Return the product (rows, others) of each row's first view with the view of another one that is nearest."""
    first = rows[:, 0].astype(np.float32)
    views = [first @ others[:, view].astype(np.float32).T for view in range(others.shape[1])]
    return np.asarray(np.maximum.reduce(views))


def cosines(rows: Rows, others: Rows, first: Numbers, second: Numbers) -> Floats:
    """Return the cosine of each pair: row `first[i]` of `rows` (n, channels) and row `second[i]` of `others`.

    All are of length 1. If there are many pairs, all rows are multiplied with all others, which is faster then.
    """
    if len(first) * _FEW > len(rows) * len(others):
        return np.asarray((rows.astype(np.float32) @ others.astype(np.float32).T)[first, second])
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), _PART_PAIRS):
        part = slice(start, start + _PART_PAIRS)
        one, another = rows[first[part]].astype(np.float32), others[second[part]].astype(np.float32)
        found[part] = np.einsum("pc,pc->p", one, another)
    return found


class Groups:
    """Groups that grow together; `numbers` has each member's group, the lowest of its members."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers

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


def find_directions(rows: Rows) -> Floats:
    """Return orthonormal columns (channels, directions) along which rows (n, channels) differ most."""
    sample = rows[:: max(1, -(-len(rows) // _SAMPLE_ROWS))].astype(np.float32)
    _, vectors = np.linalg.eigh(sample @ sample.T)
    directions, _ = np.linalg.qr(sample.T @ vectors[:, -_DIRECTIONS:])
    return np.asarray(directions)


def shorten(rows: Rows, directions: Floats) -> Halves:
    """Return a few numbers (…, directions + 1) for each row (…, channels) of length 1, which may lie in a file.

    They are its part in the directions, and the length of the rest. The product of two rows' numbers is at least the
    product of the rows: in the directions it is the same, and the rests add at most the product of their lengths. The
    more the directions hold, the nearer it is. SLACK is for the rounding.
    """
    short = np.empty((*rows.shape[:-1], directions.shape[1] + 1), np.float16)
    for start in range(0, len(rows), _BLOCK_ROWS):
        part = rows[start : start + _BLOCK_ROWS].astype(np.float32)
        inside = part @ directions
        rest = np.square(part).sum(axis=-1) - np.square(inside).sum(axis=-1)
        short[start : start + len(part), ..., :-1] = inside
        short[start : start + len(part), ..., -1] = np.sqrt(np.maximum(rest, 0))
    return short
