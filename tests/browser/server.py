"""A real server for the browser: gunicorn on a free port, which can be stopped and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
STARTS_WITHIN_SECONDS = 120


def free_port() -> int:
    """Find a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """gunicorn with our configuration; `application` replaces the real one, as `module:call()` on the path."""

    def __init__(self, folder: Path, application: str | None = None, **settings: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._log = folder / "server.log"
        self._application = [application] if application else []
        ours = {f"TOPTHREE_{name.upper()}": str(value) for name, value in settings.items()}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("TOPTHREE_")}
        # Tests share a server and its photos; each answer is to be a new one.
        ours = {"TOPTHREE_RESULT_CACHE_BYTES": "0"} | ours
        ours |= {"TOPTHREE_PORT": str(self.port), "XDG_CACHE_HOME": str(folder)}
        self._environment = inherited | ours | {"PYTHONPATH": str(Path(__file__).parent), "HOST": "", "PORT": ""}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, until: str = "readyz") -> None:
        """Start, and wait until a probe answers 200."""
        command = [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), *self._application]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        while not self._answers(until):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"The server did not start:\n{self._log.read_text()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop at once, as a crash or a power cut would, leaving nothing behind."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGQUIT)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False
