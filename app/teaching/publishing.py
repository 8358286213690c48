"""Publishing a project's head as a version of a model of one's own, and its bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from ..errors import (
    BundleError,
    LabelsError,
    NameTaken,
    NotFound,
    OwnModelError,
    Problem,
    ProjectFull,
    ProjectsUnavailable,
    TopthreeError,
    WeightsError,
)
from ..model.bundle_writer import write_bundle
from ..model.labels import load_labels
from ..model.own_models import list_names, list_versions, read_version, remove, write_version
from ..model.room import NO_ROOM
from ..model.served import open_default
from ..queueing.scheduling import Deadline
from ..settings import Settings
from . import contents, database
from .projects import LEAVING
from .solving import HEAD_KIND
from .teaching import Teaching

log = logging.getLogger(__name__)

COPY_BYTES = 256 * 1024


class Publisher:
    """Publishes projects into the folder of models of the settings."""

    def __init__(self, teaching: Teaching, settings: Settings) -> None:
        self._teaching = teaching
        self._settings = settings

    def publish(self, name: str, deadline: Deadline) -> int:
        """Write the project's newest head as the next version of the model of its name, and return the version.

        Raises NotTaught, NameTaken if the model was made in another way, ProjectFull, and ProjectsUnavailable if it
        cannot be written. If the project cannot note the version, since it is deleted by then or its disk is full, the
        version is removed again, and that problem is raised.
        """
        own = self._teaching.own_model(name, deadline)
        try:
            self._refuse_other_model(name)
            version = write_version(self._models(), name, own)
        except OwnModelError as error:
            log.error("The project %s cannot be published: %s", name, error)
            if _is_full(error):
                raise ProjectFull("The disk of the models is full; nothing was published.") from error
            raise ProjectsUnavailable(
                "The model cannot be written into the folder of models. The service's log has the reason."
            ) from error
        try:
            with database.writing(self._teaching.projects.path(name)) as connection:
                # Another request may have published a later version by now.
                newest = list_versions(self._models(), name)[-1]
                connection.execute("UPDATE project SET published = ?", (newest,))
        except Problem:
            with suppress(OwnModelError):  # it was removed by hand
                remove(self._models(), name, version)
            raise
        return version

    def _refuse_other_model(self, name: str) -> None:
        """Refuse to replace a model that `topthree train` made, which is no part of the right to teach, and twins."""
        twin = next((other for other in list_names(self._models()) if other.casefold() == name.casefold()), None)
        if twin is None:
            return
        if twin != name:
            raise NameTaken(
                f"There is a model named {twin}, which differs only in case. Open the project's file under another "
                "name, and publish that."
            )
        if read_version(self._models(), name).recipe.get("head") != HEAD_KIND:
            raise NameTaken(
                f"There is a model named {name} that no project has made. Open the project's file under another name, "
                "and publish that."
            )

    def published(self, name: str, version: int) -> int | None:
        """Return the version that a project says it has published last, if the model still has it."""
        if not version or self._settings.models is None:
            return None
        try:
            return version if version in list_versions(self._settings.models, name) else None
        except OwnModelError:  # it was removed
            return None

    def bundle(self, name: str) -> tuple[str, Iterator[bytes], int]:
        """Return the file name, the bytes and the size of a bundle with the published version and its backbone.

        Raises NotFound if nothing is published, ProjectFull, and ProjectsUnavailable if no bundle can be written.
        """
        with database.reading(self._teaching.projects.path(name)) as connection:
            version = self.published(name, contents.read_facts(connection).published)
        if version is None:
            raise NotFound("The project has no published version. Publish it first.")
        try:
            own = read_version(self._models(), name, version)
            prepared = open_default(self._settings)
            projects = self._teaching.projects
            # In a folder of its own, whose name goes before the bytes are sent.
            with projects.locked(), TemporaryDirectory(prefix=LEAVING, dir=projects.root) as folder:
                path = Path(folder) / "bundle.tar"
                write_bundle(prepared, load_labels(prepared.labels), path, own)
                file = path.open("rb")
                size = path.stat().st_size
        except (BundleError, LabelsError, OwnModelError, WeightsError) as error:
            log.error("The bundle of the project %s cannot be written: %s", name, error)
            if _is_full(error):
                raise database.disk_full() from error
            raise ProjectsUnavailable("The bundle cannot be written. The service's log has the reason.") from error
        return f"topthree-{name}-{version}.tar", chunks_of(file), size

    def _models(self) -> Path:
        if self._settings.models is None:
            raise OwnModelError("There is no folder of models; set TOPTHREE_MODELS.")
        return self._settings.models


def _is_full(error: TopthreeError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a file in parts, and close it."""
    with closing(file):
        while chunk := file.read(COPY_BYTES):
            yield chunk
