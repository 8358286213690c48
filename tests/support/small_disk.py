"""A small disk that only one command sees: it is mounted in a namespace, and ends with the command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOUNT = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'


def on_disk(folder: Path, size: str, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that sees a disk of this size in a folder; the disk ends with it."""
    inside = ["unshare", "-rm", "sh", "-c", MOUNT, "sh", size, str(folder), *command]
    environment = os.environ | {"TOPTHREE_CACHE": str(folder), "HOME": str(folder)} | variables
    return subprocess.run(inside, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300)


def place_of_disk(tmp_path: Path) -> Path:
    """Return where a small disk can be mounted; skip the test where that is not possible."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if on_disk(folder, "1m", "true").returncode:
        pytest.skip("no file system can be mounted here")
    return folder
