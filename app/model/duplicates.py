"""Near-duplicates: photos whose embeddings are so near to each other that one counts as a copy of the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .solver import Numbers

Rows = npt.NDArray[np.floating[Any]]
Halves = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float32]

# The cosine of two photos' embeddings from which one counts as a copy of the other.
NEAR_DUPLICATE = 0.93
# Above the rounding errors of a bound that is stored in float16.
SLACK = 0.004
_BLOCK_ROWS = 1024
# The directions in which photos differ most are found from so many of them.
_SAMPLE_ROWS = 1024
_DIRECTIONS = 96


def find_near(row: Rows, rows: Rows) -> Numbers:
    """Return the places of the rows (n, channels) that are near-duplicates of one row; all are of length 1."""
    return np.flatnonzero(rows @ row >= NEAR_DUPLICATE)


def connected(rows: Rows) -> Iterator[Numbers]:
    """Yield the places of the rows (n, channels) of each group of near-duplicates, each ascending, the first first."""
    left = np.arange(len(rows))
    while len(left):
        group, frontier, left = left[:1], left[:1], left[1:]
        while len(frontier) and len(left):
            is_near = np.zeros(len(left), np.bool_)
            for start in range(0, len(frontier), _BLOCK_ROWS):
                part = rows[frontier[start : start + _BLOCK_ROWS]]
                is_near |= (rows[left] @ part.T >= NEAR_DUPLICATE).any(axis=1)
            frontier, left = left[is_near], left[~is_near]
            group = np.concatenate([group, frontier])
        yield np.sort(group)


class Groups:
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


def find_directions(rows: Rows) -> Floats:
    """Return orthonormal columns (channels, directions) along which rows (n, channels) differ most."""
    sample = rows[:: max(1, -(-len(rows) // _SAMPLE_ROWS))].astype(np.float32)
    _, vectors = np.linalg.eigh(sample @ sample.T)
    directions, _ = np.linalg.qr(sample.T @ vectors[:, -_DIRECTIONS:])
    return np.asarray(directions)


def shorten(rows: Halves, directions: Floats) -> Halves:
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
