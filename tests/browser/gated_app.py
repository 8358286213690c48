"""The application with a model that loads when a file appears, for the states before that.

`GATE_FILE` names the file. Until it exists loading waits; with `GATE_REFUSES` it fails instead.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import flask

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

from fakes import fake_model, make_classifier

from app import create_app
from app.errors import WeightsError
from app.model import Model


def load() -> Model:
    """Load a fake model once the gate is open."""
    gate = Path(os.environ["GATE_FILE"])
    while not gate.exists():
        if os.environ.get("GATE_REFUSES"):
            raise WeightsError("The weights have not been fetched yet.")
        time.sleep(0.05)
    return fake_model()


def create() -> flask.Flask:
    """Build the application; only the model is not the real one."""
    return create_app(classifier=make_classifier(load))
