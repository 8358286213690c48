"""Photos of an index that are the same file, the same picture, or alike; none of them is changed or removed.

Copies of a picture that were resized, compressed again or cut a little have nearly the same perceptual hash, but so
have some other photos; nearly the same embedding, but so have photos of the same thing. Both together tell copies
from others: the more bits of the hashes differ, the nearer the embeddings must be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from ..model.duplicates import NEAR_DUPLICATE, SLACK, Groups, cosines, find_directions, shorten
from ..model.solver import Numbers
from .library import Library

Hashes = npt.NDArray[np.uint64]
Vectors = npt.NDArray[np.float16]
Report = Callable[[int, int], None]

# The least cosine of embeddings of the same picture, by the number of bits in which the hashes differ; with more
# different bits no photos are the same picture. docs/search.md says how it was chosen.
MIN_COSINES = np.array([0.6] * 3 + [0.85] * 2 + [0.9] * 2 + [0.93] * 2 + [0.96] * 14, np.float32)
# The least cosine of photos that are alike: from there on, pairs show the same kind of thing in the same place.
ALIKE = NEAR_DUPLICATE
_BLOCK_ROWS = 1024
_FIRSTS = 8192


class Kind(StrEnum):
    """How the photos of a group are related."""

    FILE = "same file"
    PICTURE = "same picture"
    ALIKE = "alike"


@dataclass(frozen=True)
class Group:
    """Related photos by their rows, the best first: with the most pixels, and of these the largest file.

    Of photos that are the same file, only the first is in a group of another kind; of those that are the same
    picture, only the best is in a group of photos that are alike.
    """

    kind: Kind
    rows: list[int]


def find_duplicates(library: Library, report: Report = lambda done, total: None) -> list[Group]:
    """Return the groups of an index, those of the same file first; `report` gets the photos done, and all.

    Raises IndexProblem if the index is damaged.
    """
    if not len(library):
        return []
    blocks = (library.vectors[start : start + _BLOCK_ROWS] for start in range(0, len(library), _BLOCK_ROWS))
    if not all(np.isfinite(block).all() for block in blocks):
        raise library.damage_of_vectors()
    pixels, sizes, first = _read_rows(library)
    order = np.lexsort((np.arange(len(library)), -sizes, -pixels))

    def grouped(kind: Kind, rows: Numbers, numbers: Numbers) -> tuple[list[Group], Numbers]:
        """Return the groups with more than one row, and the best row of each group, in the order of rows."""
        rank = np.empty(len(library), np.intp)
        rank[order] = np.arange(len(library))
        best_first = rows[np.lexsort((rank[rows], numbers))]
        starts = np.flatnonzero(np.diff(np.sort(numbers), prepend=-1))
        parts = np.split(best_first, starts[1:]) if len(rows) else []
        return [Group(kind, part.tolist()) for part in parts if len(part) > 1], np.sort(best_first[starts])

    everything = np.arange(len(library))
    files, rows = grouped(Kind.FILE, everything, first)
    total = 2 * len(rows)
    numbers = same_pictures(library.hashes[rows], library.vectors, rows, lambda done: report(done, total))
    pictures, rows = grouped(Kind.PICTURE, rows, numbers)
    numbers = alike(library.vectors, rows, lambda done: report(total - len(rows) + done, total))
    return [*files, *pictures, *grouped(Kind.ALIKE, rows, numbers)[0]]


def same_pictures(hashes: Hashes, vectors: Vectors, rows: Numbers, report: Callable[[int], None]) -> Numbers:
    """Return a number for each of some rows, the same for rows that are copies of one picture.

    `hashes` (rows) and `vectors` (photos, channels), of length 1, may lie in files.
    """
    groups = Groups(np.arange(len(rows)))
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        for other in range(0, start + 1, _BLOCK_ROWS):
            others = slice(other, other + _BLOCK_ROWS)
            distances = np.bitwise_count(hashes[block, None] ^ hashes[None, others])
            first, second = np.nonzero(distances < len(MIN_COSINES))
            is_apart = groups.numbers[first + start] != groups.numbers[second + other]
            first, second = first[is_apart], second[is_apart]
            found = cosines(vectors[rows[block]], vectors[rows[others]], first, second)
            is_same = found >= MIN_COSINES[distances[first, second]]
            groups.unite(first[is_same] + start, second[is_same] + other)
        report(min(start + _BLOCK_ROWS, len(rows)))
    return groups.numbers


def alike(vectors: Vectors, rows: Numbers, report: Callable[[int], None]) -> Numbers:
    """Return a number for each of some rows, the same for rows that are alike.

    Each row of a group is like the group's first one, so that no chain of small steps leads from one photo to
    another that is nothing like it. `vectors` (photos, channels), of length 1, may lie in a file.
    """
    numbers, firsts = np.arange(len(rows)), np.empty(0, np.intp)
    short = shorten(vectors, find_directions(vectors))[rows]
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = np.arange(start, min(start + _BLOCK_ROWS, len(rows)))
        best = np.full(len(block), ALIKE, np.float32)
        for other in range(0, len(firsts), _FIRSTS):
            part = firsts[other : other + _FIRSTS]
            bounds = short[block].astype(np.float32) @ short[part].astype(np.float32).T
            one, another = np.nonzero(bounds >= ALIKE - SLACK)
            found = cosines(vectors[rows[block]], vectors[rows[part]], one, another)
            order = np.argsort(found, kind="stable")
            order = order[found[order] >= best[one[order]]]
            best[one[order]] = found[order]  # if one place occurs several times, the last and largest value stays
            numbers[block[one[order]]] = part[another[order]]
        firsts = np.concatenate([firsts, _join(vectors, rows, block, numbers)])
        report(min(start + _BLOCK_ROWS, len(rows)))
    return numbers


def _join(vectors: Vectors, rows: Numbers, block: Numbers, numbers: Numbers) -> Numbers:
    """Join the rows of a block that are in no group yet, and return the first rows of the new groups."""
    free = block[numbers[block] == block]
    part = vectors[rows[free]].astype(np.float32)
    is_alike = part @ part.T >= ALIKE
    is_taken = np.zeros(len(free), np.bool_)
    firsts = []
    for place, near in enumerate(is_alike):
        if not is_taken[place]:
            firsts.append(place)
            near &= ~is_taken
            near[place] = True
            numbers[free[near]] = free[place]
            is_taken |= near
    return np.asarray(free[np.array(firsts, np.intp)])


def _read_rows(library: Library) -> tuple[Numbers, Numbers, Numbers]:
    """Return the pixels and the bytes of each photo, and the first row that is the same file."""
    pixels, sizes, first = (np.empty(len(library), np.intp) for _ in range(3))
    seen: dict[bytes, int] = {}
    for place, row in enumerate(library.rows):
        pixels[place], sizes[place] = row.width * row.height, row.bytes
        first[place] = seen.setdefault(bytes.fromhex(row.sha256), place)
    return pixels, sizes, first
