"""Locks between processes that write to the same folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.writing import LOCK, alone_in, lock_of


def test_one_writer_is_alone_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "new"
    with alone_in(folder), pytest.raises(TimeoutError):
        lock_of(folder / LOCK).acquire(timeout=0)
    with lock_of(folder / LOCK).acquire(timeout=0):
        assert [path.name for path in folder.iterdir()] == [LOCK]


def test_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        alone_in(tmp_path / "file" / "models")
