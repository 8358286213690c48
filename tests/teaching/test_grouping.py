"""Groups of near-duplicates in a project's file: the same in however many steps they are looked up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from taught import make_teaching, teach

from app.model.duplicates import group_duplicates
from app.queueing.scheduling import NO_DEADLINE
from app.teaching import contents, database, grouping
from app.teaching.snapshot import Snapshot
from app.teaching.teaching import Teaching

PHOTOS = 40


def forget_groups(teaching: Teaching, name: str) -> None:
    """Make a project as one that was just opened from a file: no photo has a group."""
    with database.writing(teaching.projects.path(name)) as connection:
        connection.execute("UPDATE photos SET first = NULL")
        database.note_change(connection)


def spread(teaching: Teaching, name: str, degrees: list[float]) -> None:
    """Give a project's photos embeddings at these angles; 21 degrees and less are near."""
    weights = bytes.fromhex(teaching._backbone().weights.sha256)
    channels = teaching.solve(name, NO_DEADLINE).state.rows.shape[1]
    with database.writing(teaching.projects.path(name)) as connection:
        for number, angle in enumerate(np.radians(degrees), 1):
            vector = np.zeros(channels, np.float32)
            vector[:2] = np.cos(angle), np.sin(angle)
            contents.put_embedding(connection, number, vector, weights)
    forget_groups(teaching, name)


def found(root: Path, name: str) -> Snapshot:
    return make_teaching(root).solve(name, NO_DEADLINE).state


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_all_photos_of_an_opened_project_are_grouped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(grouping, "MAX_AT_ONCE", at_once)
    teaching = make_teaching(tmp_path)
    teach(teaching, "colours", {"red": PHOTOS // 2, "blue": PHOTOS // 2})
    spread(teaching, "colours", np.random.default_rng(2).uniform(0, 2000, PHOTOS).tolist())
    state = found(tmp_path, "colours")
    assert len(state.ids) == PHOTOS
    assert state.groups.tolist() == (group_duplicates(state.rows[:, None]) + 1).tolist()
    assert 1 < len(set(state.groups.tolist())) < PHOTOS


def test_a_new_photo_joins_groups(tmp_path: Path) -> None:
    teaching = make_teaching(tmp_path)
    teach(teaching, "colours", {"red": 2, "blue": 2})
    spread(teaching, "colours", [0, 30, 90, 180])
    assert found(tmp_path, "colours").groups.tolist() == [1, 2, 3, 4]
    spread(teaching, "colours", [0, 30, 15, 180])
    with database.writing(teaching.projects.path("colours")) as connection:
        connection.execute("UPDATE photos SET first = id WHERE id != 3")
    assert found(tmp_path, "colours").groups.tolist() == [1, 1, 1, 4]
