"""Publishing where something is in the way: one true sentence, and no version that its project does not know."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from own_heads import own_model
from taught import colour_classifier, make_teaching, teach

from app.errors import BundleError, NameTaken, ProjectFull, ProjectsUnavailable
from app.model import own_models
from app.model.own_models import list_names, write_version
from app.queueing.scheduling import NO_DEADLINE
from app.settings import Settings
from app.teaching import database, publishing
from app.teaching.publishing import Publisher

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The folder of models."""
    return tmp_path / "models"


@pytest.fixture
def publisher(tmp_path: Path, models: Path, make_settings: Callable[..., Settings]) -> Publisher:
    """The publisher of a service with a project `colours`."""
    teaching = make_teaching(tmp_path / "projects", colour_classifier(models))
    teach(teaching, "colours", {"red": 4, "blue": 4})
    return Publisher(teaching, make_settings(models=models))


def test_a_full_disk_of_models_is_project_full(
    publisher: Publisher, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: int) -> None:
        raise NO_SPACE

    monkeypatch.setattr(own_models.os, "fsync", fail)
    with pytest.raises(ProjectFull, match="disk of the models is full; nothing was published"):
        publisher.publish("colours", NO_DEADLINE)
    assert list_names(models) == []


def test_a_version_that_the_project_cannot_note_is_removed(
    publisher: Publisher, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*values: object) -> int:
        version = write_version(*values)  # type: ignore[arg-type]
        monkeypatch.setattr(database, "writing", full)
        return version

    def full(path: Path) -> None:
        raise database.disk_full()

    monkeypatch.setattr(publishing, "write_version", write)
    with pytest.raises(ProjectFull):
        publisher.publish("colours", NO_DEADLINE)
    assert list_names(models) == []


def test_a_model_that_differs_in_case_is_not_joined(publisher: Publisher, models: Path) -> None:
    write_version(models, "Colours", own_model("a", "b"))
    with pytest.raises(NameTaken, match="a model named Colours, which differs only in case"):
        publisher.publish("colours", NO_DEADLINE)
    assert list_names(models) == ["Colours"]


@pytest.mark.parametrize(
    ("cause", "problem"),
    [(NO_SPACE, ProjectFull), (PermissionError(errno.EACCES, "Permission denied"), ProjectsUnavailable)],
)
def test_a_bundle_that_cannot_be_written_says_why(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, cause: OSError, problem: type[Exception]
) -> None:
    def fail(settings: Settings) -> None:
        raise BundleError("bundle.tar cannot be written.") from cause

    publisher.publish("colours", NO_DEADLINE)
    monkeypatch.setattr(publishing, "open_default", fail)
    with pytest.raises(problem):
        publisher.bundle("colours")
