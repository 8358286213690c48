"""Serve with teaching on: sort photos into classes in the browser, and see at once how good the model is.

It is 'topthree serve' with TOPTHREE_TEACH=on; open /teach in a browser.

\b
Examples:
  topthree teach
  TOPTHREE_PROJECTS=./projects topthree teach
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from ..errors import SettingsError
from . import read_settings
from .serve import start


@click.command(help=__doc__)
def command() -> None:
    """Check the folder of projects, then serve."""
    settings = read_settings(teach="on")
    assert settings.projects is not None  # as the settings are checked
    _require_writable(settings.projects)
    click.echo(f"Projects are kept in {settings.projects}. Teach at {settings.url}/teach", err=True)
    start(settings)


def _require_writable(folder: Path) -> None:
    """Raise SettingsError, in one sentence, if the folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"The folder of projects {folder} cannot be written: {error.strerror}. "
            "Set TOPTHREE_PROJECTS to a folder that can."
        ) from error
