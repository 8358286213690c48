"""The application with an engine whose embeddings are colours, so that photos of like colours are alike."""

from __future__ import annotations

import sys
from pathlib import Path

import flask

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

from fakes import fake_model, make_classifier
from indexes import ColourEngine

from app import create_app


class Engine(ColourEngine):
    """The engine without heat maps, for which its features are too small."""

    head = None


def create() -> flask.Flask:
    """Build the application; only the engine is not the real one."""
    return create_app(classifier=make_classifier(lambda: fake_model(Engine())))
