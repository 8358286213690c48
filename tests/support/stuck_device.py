"""A device process that began a batch long ago and never ends it."""

from __future__ import annotations

import signal
import sys

from app.processes.memory import words_of

words_of(int(sys.argv[2]))[0] = 1
signal.pause()
