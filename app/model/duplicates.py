"""Near-duplicates: photos whose embeddings are so near to each other that one counts as a copy of the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .solver import Numbers

Rows = npt.NDArray[np.floating[Any]]

# The cosine of two photos' embeddings from which one counts as a copy of the other.
NEAR_DUPLICATE = 0.93
_BLOCK_ROWS = 1024


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
