"""Groups of near-duplicates: photos whose embeddings have nearly the same direction, mirrored or not.

Every photo is compared with every other one, but most pairs by a few numbers only, which bound how alike they can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ..model.duplicates import NEAR_DUPLICATE, SLACK, Groups, find_directions, shorten
from ..model.solver import Numbers

Rows = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float32]

_BLOCK_ROWS = 2048
_PART_PAIRS = 4096
# If more pairs of a block than one in this many may be near, the whole block is compared, which is faster by then.
_FEW = 64


def group_duplicates(rows: Rows, report: Callable[[int, int], None]) -> Numbers:
    """Return a number for each photo, the same for photos that are near-duplicates or mirror images of each other.

    `rows` is (photos, 2, channels) of length 1, the second view the mirror image; it may lie in a file. A group has
    the number of its first photo.
    """
    groups, short = Groups(len(rows)), shorten(rows, find_directions(rows[:, 0]))
    for start in range(0, len(rows), _BLOCK_ROWS):
        for other in range(0, start + 1, _BLOCK_ROWS):
            for first, second in _near(rows, short, groups.numbers, (start, other)):
                groups.unite(first, second)
        report(min(start + _BLOCK_ROWS, len(rows)), len(rows))
    return groups.numbers


def _near(rows: Rows, short: Rows, groups: Numbers, starts: tuple[int, int]) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield the pairs of near-duplicates of two blocks, which begin at `starts`, that are in different groups yet."""
    block, other = (slice(start, start + _BLOCK_ROWS) for start in starts)
    may_be_near = _products(short[block], short[other]) >= NEAR_DUPLICATE - SLACK
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
