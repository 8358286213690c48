"""The file of groups is what its script makes of WordNet and of the names written by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import build_groups
import pytest

from app.model.groups import TABLE
from app.model.labels import imagenet_labels

NOUNS = """\
  1 This line is the licence.
00000001 03 n 01 thing 0 000 | all there is
00000002 03 n 02 animal 0 beast 1 001 @ 00000001 n 0000 | with a bar | in it
00000003 03 n 01 cat 0 002 @ 00000002 n 0000 ~ 00000004 n 0000 | it purrs
00000004 03 n 01 Tom 0 001 @i 00000003 n 0000 | one of them
00000005 03 n 01 dog 0 002 @ 00000002 n 0000 + 00000003 v 0101 | it barks
"""


def test_the_classes_of_a_group_are_found(tmp_path: Path) -> None:
    path = tmp_path / "data.noun"
    path.write_text(NOUNS)
    hypernyms = build_groups.read_hypernyms(path)
    assert build_groups.ancestors("n00000004", hypernyms) == {"n00000003", "n00000002", "n00000001"}
    rows = [{"wnid": "n00000002", "label": "animal", "label_zh": "动物", "classes": ""}]
    (filled,) = build_groups.fill(rows, ["n00000004", "n00000005"], hypernyms)
    assert filled["classes"] == "n00000004 n00000005"
    with pytest.raises(ValueError, match="animal has 1 classes"):
        build_groups.fill(rows, ["n00000004"], hypernyms)


def test_every_group_has_names_and_known_classes() -> None:
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wnids = {label.wnid for label in imagenet_labels()}
    for row in rows:
        members = row["classes"].split()
        assert row["label"], row
        assert row["label_zh"], row
        assert wnids >= set(members), row
        assert 2 <= len(set(members)) == len(members) <= build_groups.MAX_CLASSES, row
    for column in ("wnid", "label", "label_zh"):
        values = [row[column] for row in rows]
        assert sorted(values) == sorted(set(values)), column


@pytest.mark.skipif(not build_groups.WORDNET.is_dir(), reason="WordNet (Debian's wordnet-base) is not installed")
def test_the_file_is_what_the_script_makes() -> None:
    hypernyms = build_groups.read_hypernyms(build_groups.WORDNET / "data.noun")
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wnids = [label.wnid for label in imagenet_labels() if label.wnid]
    assert build_groups.fill(rows, wnids, hypernyms) == rows
