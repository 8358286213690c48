"""The command that lists models of one's own, chooses their versions and removes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from own_heads import own_model

from app.commands import cli
from app.model.own_format import HEAD
from app.model.own_models import list_names, version_in_use, write_version


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of models, with two versions of `pets` and one of `tools`."""
    folder = tmp_path / "models"
    monkeypatch.setenv("TOPTHREE_MODELS", str(folder))
    for name in ("pets", "pets", "tools"):
        write_version(folder, name, own_model())
    return folder


def models(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["models", *map(str, arguments)])


def test_models_are_listed_with_their_versions(root: Path) -> None:
    heading, pets, tools = models().stdout.splitlines()
    assert heading.split()[:4] == ["name", "version", "classes", "backbone"]
    assert pets.split() == ["pets", "2", "3", "resnet18", "90.0", "%", "2026-01-02T03:04:05Z", "1"]
    assert tools.split()[:2] == ["tools", "1"]


def test_the_list_as_json_holds_the_facts(root: Path) -> None:
    (root / "tools" / "1" / HEAD).write_bytes(b"")
    pets, tools = json.loads(models("--json").stdout)
    assert (pets["version"], pets["versions"], pets["classes"], pets["accuracy"]["top1"]) == (2, [1, 2], 3, 90.0)
    assert "is damaged" in tools["problem"]
    assert "is damaged" in models().stdout


def test_a_version_is_chosen(root: Path) -> None:
    assert models("use", "pets", 1).stdout == "pets serves in version 1: 3 classes, made 2026-01-02T03:04:05Z.\n"
    assert version_in_use(root, "pets") == 1


def test_a_version_and_a_model_are_removed(root: Path) -> None:
    assert models("remove", "pets", 2).stdout == "Removed version 2 of pets.\n"
    assert version_in_use(root, "pets") == 1
    assert models("remove", "tools").stdout == "Removed tools.\n"
    assert list_names(root) == ["pets"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("use", "pets", 9), "has no version 9"),
        (("use", "../pets", 1), "A model cannot be named '../pets'"),
        (("remove", "cars"), "There is no model named cars"),
        (("remove", "pets", 9), "has no version 9"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(root: Path, arguments: tuple[object, ...], reason: str) -> None:
    done = models(*arguments)
    assert done.exit_code == 1
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list_names(root) == ["pets", "tools"]


def test_an_empty_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPTHREE_MODELS", str(tmp_path / "none"))
    done = models()
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"There are no models in {tmp_path / 'none'}.\n")
