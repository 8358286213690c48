"""Near-duplicates in a project: each photo knows the first photo of its group, in the file, so that all agree."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import numpy as np

from ..model.duplicates import find_near, group_duplicates
from ..model.solver import Numbers
from .snapshot import Snapshot


def group_new(connection: sqlite3.Connection, found: Snapshot) -> None:
    """Put the photos without a group into one: that of their near-duplicates, or one of their own.

    `found` is the state of the same transaction.
    """
    groups = found.groups.copy()
    for place in np.flatnonzero(groups == 0):
        near = find_near(found.rows[place], found.rows)
        joined = np.unique(groups[near][groups[near] > 0])
        number = int(found.ids[place])
        first = min(number, int(joined[0])) if len(joined) else number
        groups[place] = first
        groups[np.isin(groups, joined)] = first
        connection.execute("UPDATE photos SET first = ? WHERE id = ?", (first, number))
        connection.executemany(
            "UPDATE photos SET first = ? WHERE first = ?", ((first, int(old)) for old in joined if old != first)
        )


def regroup(connection: sqlite3.Connection, found: Snapshot, changed: Iterable[int]) -> None:
    """Divide groups again, by the numbers of their first photos, after photos of them were deleted.

    `found` is the state of the same transaction.
    """
    for first in set(changed):
        places: Numbers = np.flatnonzero(found.groups == first)
        new_firsts = found.ids[places[group_duplicates(found.rows[places, None])]]
        changes = zip(new_firsts.tolist(), found.ids[places].tolist(), strict=True)
        connection.executemany("UPDATE photos SET first = ? WHERE id = ?", changes)
