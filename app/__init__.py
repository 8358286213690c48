"""topthree: the three most likely classes of a photo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    import flask

    from .classifier import Classifier
    from .settings import Settings

__all__ = ["__version__", "create_app"]


def create_app(settings: Settings | None = None, classifier: Classifier | None = None) -> flask.Flask:
    """Build the application; the model is loaded later, on first use or by a worker's warm-up.

    `app/web/application.py` lists its hooks in their order, and creates the `Service` that holds all its parts.
    Without `settings` they are read from the environment; SettingsError names a variable with a bad value.
    """
    from .web.application import build  # the decoders and the command line import this package, and need no Flask

    return build(settings, classifier)
