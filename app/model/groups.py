"""Groups: WordNet's hypernyms of ImageNet's classes that have everyday names, such as cat for tabby and Persian cat.

`groups.csv` has a row for each, with its classes by their WordNet ids; scripts/build_groups.py fills them in.
WordNet's licence is in `groups.LICENSE.txt`.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .labels import Label

TABLE = Path(__file__).with_name("groups.csv")


@dataclass(frozen=True)
class GroupName:
    """A group's WordNet id and its names, which stand after "a" or "an" in English."""

    wnid: str
    label: str
    label_zh: str


@dataclass(frozen=True, eq=False)
class Group:
    """A group and the indices of its classes in a model, at least two and not all."""

    name: GroupName
    classes: npt.NDArray[np.intp]


# For each class of a model, the groups that it belongs to, the smallest first.
Groups = tuple[tuple[Group, ...], ...]
NO_GROUPS: Groups = ()


def groups_of(labels: Sequence[Label]) -> Groups:
    """Return the groups of each class; there are none for classes without WordNet ids."""
    index = {label.wnid: label.class_id for label in labels if label.wnid}
    found: list[list[Group]] = [[] for _ in labels]
    for name, wnids in _read_table():
        classes = [index[wnid] for wnid in wnids if wnid in index]
        if 1 < len(classes) < len(labels):
            group = Group(name, np.array(classes))
            for class_id in classes:
                found[class_id].append(group)
    return tuple(tuple(sorted(of_class, key=lambda group: len(group.classes))) for of_class in found)


@functools.cache
def _read_table() -> tuple[tuple[GroupName, tuple[str, ...]], ...]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(
            (GroupName(row["wnid"], row["label"], row["label_zh"]), tuple(row["classes"].split()))
            for row in csv.DictReader(file)
        )
