"""The folder of projects: its limit of bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from taught import make_teaching

from app.errors import ProjectFull
from app.teaching.projects import EMPTY_BYTES


def test_an_empty_project_counts_for_the_limit_of_bytes(tmp_path: Path) -> None:
    small = make_teaching(tmp_path / "projects", max_bytes=EMPTY_BYTES)
    small.create("first", keep_photos=False)
    assert small.projects.bytes() == EMPTY_BYTES
    with pytest.raises(ProjectFull):
        small.create("second", keep_photos=False)
    assert small.projects.names() == ["first"]
