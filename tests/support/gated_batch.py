"""The application with an engine that holds photos back, for tests of what leaves before all is computed.

`GATE_FOLDER` names a folder. Each photo whose computing begins is noted in its file `begun`, by the red of
its centre; those above 99 wait until there is a file `open`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import flask
from fakes import FakeEngine, fake_model, make_classifier

from app import create_app
from app.model.engines import Inference, Pixels

FIRST_HELD_BACK = 100
POLL_SECONDS = 0.02


class GatedEngine(FakeEngine):
    """Note what begins, and hold back what is to wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        red = int(batch[0, batch.shape[1] // 2, batch.shape[2] // 2, 0])
        with (self._folder / "begun").open("a") as begun:
            begun.write(f"{red}\n")
        while red >= FIRST_HELD_BACK and not (self._folder / "open").exists():
            time.sleep(POLL_SECONDS)
        return super().infer(batch, alone=alone)


def create() -> flask.Flask:
    """Build the application, which works on two photos at once; only the engine is not the real one."""
    engine = GatedEngine(Path(os.environ["GATE_FOLDER"]))
    return create_app(classifier=make_classifier(lambda: fake_model(engine), cpus=2))
