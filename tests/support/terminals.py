"""The command with a fake model in another process, on a terminal or in pipes."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# The command in another process with the fake model; its answers do not matter here.
WITH_FAKE_MODEL = """
import signal, sys
sys.path.insert(0, sys.argv.pop(1))
import fakes, app.classifier, app.commands
def load(*_):
    print("loaded", file=sys.stderr, flush=True)
    return fakes.Served(fakes.fake_model())
app.classifier.load_served = load
fakes.be_patient()
signal.signal(signal.SIGINT, signal.default_int_handler)
app.commands.cli(prog_name="topthree")
"""
FAKE = [sys.executable, "-c", WITH_FAKE_MODEL, str(Path(__file__).parent)]
PIPES: dict[str, int] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def run_on_terminal(command: list[object], *, stdout_too: bool, cwd: Path | None = None) -> tuple[str, str]:
    """Run a command with standard error on a terminal; return the terminal's text and a piped standard output."""
    ours, theirs = pty.openpty()
    stdout = theirs if stdout_too else subprocess.PIPE
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=stdout, stderr=theirs, env=environment, cwd=cwd) as child:
        os.close(theirs)
        shown = read_terminal(ours, lambda: child.poll() is not None)
        output = child.stdout.read() if child.stdout else b""
    os.close(ours)
    assert child.returncode == 0, shown
    return shown, output.decode()


def read_terminal(descriptor: int, has_ended: Callable[[], bool]) -> str:
    """Read a terminal until its program has exited, which Linux reports as an error."""
    chunks = []
    while True:
        if not select.select([descriptor], [], [], 0.1)[0]:
            if has_ended():
                break
            continue
        try:
            chunks.append(os.read(descriptor, 65536))
        except OSError:
            break
    return b"".join(chunks).decode()
