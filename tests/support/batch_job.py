"""`topthree batch` in a process of its own, with the fake engine; its arguments are those of the command.

`BATCH_GATE` names a file: a photo whose centre is redder than 99 waits until it exists.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from fakes import FakeEngine, be_patient, fake_model

import app.classifier
from app.commands import cli
from app.model.engines import Inference, Pixels
from app.model.served import Served

FIRST_HELD_BACK = 100
# A signal that is sent before the file is made is noticed sooner.
POLL_SECONDS = 0.3


class GatedEngine(FakeEngine):
    """Hold back some photos until a file exists."""

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        red = int(batch[0, batch.shape[1] // 2, batch.shape[2] // 2, 0])
        gate = os.environ.get("BATCH_GATE")
        while gate and red >= FIRST_HELD_BACK and not Path(gate).exists():
            time.sleep(POLL_SECONDS)
        return super().infer(batch, alone=alone)


if __name__ == "__main__":
    app.classifier.load_served = lambda *_: Served(fake_model(GatedEngine()))
    be_patient()
    cli(["batch", *sys.argv[1:]])
