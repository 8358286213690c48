"""Near-duplicates in a project: each photo knows the first photo of its group, in the file, so that all agree."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import numpy as np

from ..model.duplicates import Groups, group_duplicates, unite_near
from ..model.solver import Numbers
from .snapshot import Ids, Snapshot

# Photos that are looked up in one transaction. Those of a large project file come without groups, and take several.
MAX_AT_ONCE = 1024


def group_new(connection: sqlite3.Connection, found: Snapshot) -> None:
    """Put the newest photos without a group into one: that of their near-duplicates, or one of their own.

    `found` is the state of the same transaction. Others wait for it, so that further photos are left to a later one.
    """
    new = np.flatnonzero(found.groups == 0)[-MAX_AT_ONCE:]
    is_compared = found.groups > 0
    is_compared[new] = True
    numbers = np.where(found.groups > 0, found.groups, found.ids)
    groups = Groups(_first_places(numbers))
    unite_near(groups, found.rows, new, np.flatnonzero(is_compared))
    firsts = numbers.copy()
    np.minimum.at(firsts, groups.numbers, numbers)
    firsts = firsts[groups.numbers]
    joined = sorted(set(zip(found.groups[is_compared].tolist(), firsts[is_compared].tolist(), strict=True)))
    changes = ((first, old) for old, first in joined if old not in (0, first))
    connection.executemany("UPDATE photos SET first = ? WHERE first = ?", changes)
    pairs = zip(firsts[new].tolist(), found.ids[new].tolist(), strict=True)
    connection.executemany("UPDATE photos SET first = ? WHERE id = ?", pairs)


def _first_places(numbers: Ids) -> Numbers:
    """Return for each place the first place that has the same number."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return first[inverse]


def regroup(connection: sqlite3.Connection, found: Snapshot, changed: Iterable[int]) -> None:
    """Divide groups again, by the numbers of their first photos, after photos of them were deleted.

    `found` is the state of the same transaction.
    """
    for first in set(changed):
        places: Numbers = np.flatnonzero(found.groups == first)
        new_firsts = found.ids[places[group_duplicates(found.rows[places, None])]]
        changes = zip(new_firsts.tolist(), found.ids[places].tolist(), strict=True)
        connection.executemany("UPDATE photos SET first = ? WHERE id = ?", changes)
