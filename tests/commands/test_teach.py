"""`topthree teach`: it serves with teaching on, or says in a sentence why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from app.commands import cli, teach
from app.settings import Settings


def test_it_serves_with_teaching_on(runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Settings] = []
    monkeypatch.setattr(teach, "start", started.append)
    folder = tmp_path / "deep" / "projects"
    result = runner.invoke(cli, ["teach"], env={"TOPTHREE_PROJECTS": str(folder), "TOPTHREE_TEACH": "off"})
    assert result.exit_code == 0, result.output
    assert [(settings.teach, settings.projects) for settings in started] == [("on", folder)]
    assert f"{folder}. Teach at http://127.0.0.1:8000/teach" in result.stderr
    assert folder.is_dir()


def test_folder_that_cannot_be_written_is_one_sentence(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    result = runner.invoke(cli, ["teach"], env={"TOPTHREE_PROJECTS": str(tmp_path / "file" / "projects")})
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: The folder of projects {tmp_path}/file/projects cannot be written: Not a directory. "
        "Set TOPTHREE_PROJECTS to a folder that can.\n"
    )
