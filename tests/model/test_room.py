"""A cache on a full disk: whatever is written into it, the sentence names the disk and what to set."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundling import small_bundle
from colour_graphs import save_graph
from file_server import CONTENT, SHA256, FileServer, serving
from small_disk import on_disk, place_of_disk

from app.model.room import is_full, no_room, not_writable

DOWNLOAD = """
import pathlib, sys
from app.model.download import Expected, fetch
url, cache, sha256, size = sys.argv[1:]
try:
    fetch(url, pathlib.Path(cache, "weights", "a.pth"), Expected(sha256, int(size)))
except Exception as error:
    print(error)
"""
UNPACK = """
import pathlib, sys
from app.model.bundle import read_bundle
from app.model.opening import unpack
try:
    unpack(read_bundle(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]))
except Exception as error:
    print(error)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Return where a small disk can be mounted."""
    return place_of_disk(tmp_path)


@pytest.fixture
def server() -> Iterator[FileServer]:
    """Serve one file."""
    with serving() as server:
        yield server


def test_download_onto_a_full_disk_says_so(disk: Path, server: FileServer) -> None:
    done = on_disk(disk, "128k", sys.executable, "-c", DOWNLOAD, server.url, str(disk), SHA256, str(len(CONTENT)))
    assert done.stdout == f"{no_room(disk / 'weights')}\n", done.stderr


def test_bundle_unpacked_onto_a_full_disk_says_so(disk: Path, tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path)
    done = on_disk(disk, "8k", sys.executable, "-c", UNPACK, str(bundle), str(disk))
    assert done.stdout == f"The bundle {bundle} cannot be unpacked. {no_room(disk / 'bundles')}\n", done.stderr


def test_model_prepared_onto_a_full_disk_says_so(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\nother\n")
    own = {"TOPTHREE_MODEL": str(save_graph(tmp_path)), "TOPTHREE_LABELS": str(tmp_path / "names.txt")}
    command = '"$1" -m app prepare; echo $?; ls -A "$0"/prepared'
    done = on_disk(disk, "8k", "sh", "-c", command, str(disk), sys.executable, **own)
    assert done.stderr.splitlines()[-1] == f"Error: {no_room(disk / 'prepared')}"
    assert done.stdout.split() == ["1", ".lock"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_quota_is_a_full_disk_too(tmp_path: Path, number: int) -> None:
    error = OSError(number, os.strerror(number))
    assert is_full(tmp_path, error, 0)
    assert not_writable(tmp_path, error) == no_room(tmp_path)


def test_other_reasons_are_said_as_they_are(tmp_path: Path) -> None:
    assert not is_full(tmp_path, RuntimeError("Something else."), 1)
    assert is_full(tmp_path, RuntimeError("Something else."), 2**60)
    assert not is_full(tmp_path / "nowhere", RuntimeError("Something else."), 1)
    denied = not_writable(tmp_path, PermissionError(errno.EACCES, "Permission denied"))
    assert denied == (
        f"The folder {tmp_path} cannot be written: Permission denied. "
        "Set TOPTHREE_CACHE to a folder that can be written."
    )
