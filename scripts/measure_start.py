"""Measure from starting gunicorn to its first answered photo, with the model prepared.

usage: python scripts/measure_start.py PHOTO [--starts 9]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from app.measuring.load import RequestFailed, http_sender
from app.measuring.own_server import free_port
from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent


def start_once(photo: bytes) -> float:
    """Start gunicorn, have one photo answered, stop it; return the seconds to the answer."""
    port = free_port()
    settings = Settings.from_environment(os.environ)
    environment = os.environ | settings.as_environment() | {"TOPTHREE_PORT": str(port)}
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py"]
    begin = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                with http_sender(f"http://127.0.0.1:{port}")() as send:
                    send(photo)
                return time.monotonic() - begin
            except (OSError, RequestFailed):
                if process.poll() is not None:
                    sys.exit(f"gunicorn ended with status {process.returncode}")
                time.sleep(0.01)
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measure all starts and print them with their median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--starts", type=int, default=9)
    options = parser.parse_args()
    photo = options.photo.read_bytes()
    seconds = [start_once(photo) for _ in range(options.starts)]
    print(", ".join(f"{value:.2f}" for value in seconds), f"s; median {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
