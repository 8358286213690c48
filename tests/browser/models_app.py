"""The application with a fake engine and two heads on it, which lie in the folder that `MODELS_FOLDER` names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import flask

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

from own_heads import classifier_with_heads

from app import create_app


def create() -> flask.Flask:
    """Build the application; only the engine is not the real one."""
    return create_app(classifier=classifier_with_heads(Path(os.environ["MODELS_FOLDER"])))
