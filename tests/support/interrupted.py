"""The command with a fake model, for which the user presses Ctrl-C when its hundredth photo is computed.

At its end it says how many photos were computed.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys

from fakes import FakeEngine, be_patient, fake_model

import app.model.served
from app.commands import cli
from app.model.engines import Inference, Pixels


class InterruptedEngine(FakeEngine):
    """Interrupt this process at the hundredth photo."""

    numbers = itertools.count(1)  # of which two threads never get the same
    photos = 0

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        InterruptedEngine.photos = number = next(self.numbers)
        if number == 100:
            os.kill(os.getpid(), signal.SIGINT)
        return super().infer(batch, alone=alone)


if __name__ == "__main__":
    be_patient()
    model = fake_model(InterruptedEngine())
    app.model.served.load_model = lambda *_: (model, None)
    try:
        cli(prog_name="topthree")
    finally:
        print(InterruptedEngine.photos, file=sys.stderr)
