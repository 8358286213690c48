"""The service is found while it runs, only by its own user, and no other process is mistaken for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.processes import pidfile
from app.settings import ROOT

PUBLISH = """
import os, sys
from app.processes import pidfile
file = pidfile.publish(os.environ, sys.argv[1], 8000)
print(file.path, flush=True)
for line in sys.stdin:
    if line == "remove\\n":
        file.remove()
    print(file.is_draining if line == "ask\\n" else "done", flush=True)
"""


class Master:
    """A process that has published itself."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.path = Path(self.say())

    def say(self, line: str = "") -> str:
        """Tell it something and return its answer."""
        if line:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def master(folder: Path, host: str = "127.0.0.1") -> Iterator[Master]:
    """Run a process that publishes itself, and kill it."""
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder), "TMPDIR": str(folder)}
    command = [sys.executable, "-c", PUBLISH, host]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
        try:
            yield Master(process)
        finally:
            process.kill()


def find(folder: Path, host: str = "127.0.0.1") -> pidfile.PidFile | None:
    """Look for the service as a command does."""
    return pidfile.find({"XDG_RUNTIME_DIR": str(folder)}, host, 8000)


def test_running_service_is_found_and_told_to_drain(tmp_path: Path) -> None:
    with master(tmp_path) as running:
        file = find(tmp_path)
        assert file.pid == running.process.pid
        assert running.say("ask") == "False"
        file.want(draining=True)
        assert (running.say("ask"), file.is_draining) == ("True", True)
        file.want(draining=False)
        assert (running.say("ask"), file.pid) == ("False", running.process.pid)


def test_only_its_user_may_read_or_write_the_file(tmp_path: Path) -> None:
    with master(tmp_path) as running:
        assert running.path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_found_where_nothing_runs(tmp_path: Path) -> None:
    assert find(tmp_path) is None


@pytest.mark.parametrize("host", ["127.0.0.2", "0.0.0.0"])
def test_each_address_has_its_own_file(tmp_path: Path, host: str) -> None:
    with master(tmp_path):
        assert find(tmp_path, host) is None


def test_file_of_a_killed_service_is_ignored(tmp_path: Path) -> None:
    with master(tmp_path) as running:
        running.process.kill()
        running.process.wait()
        assert running.path.exists()
        assert find(tmp_path) is None
    with master(tmp_path) as second:
        assert find(tmp_path).pid == second.process.pid


def test_service_removes_its_file_when_it_ends(tmp_path: Path) -> None:
    with master(tmp_path) as running:
        running.say("remove")
        assert list(tmp_path.iterdir()) == []


def test_ending_service_keeps_its_successors_file(tmp_path: Path) -> None:
    with master(tmp_path) as first, master(tmp_path) as second:
        first.say("remove")
        assert find(tmp_path).pid == second.process.pid


def test_link_to_a_file_is_not_followed(tmp_path: Path) -> None:
    with master(tmp_path) as running:
        elsewhere = running.path.rename(tmp_path / "elsewhere")
        running.path.symlink_to(elsewhere)
        assert find(tmp_path) is None


def test_service_is_found_from_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with master(tmp_path) as running:
        for environment in ({}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "/nowhere"}):
            assert pidfile.find(environment, "127.0.0.1", 8000).pid == running.process.pid


def test_unwritable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(OSError, match="gone"):
        pidfile.publish({}, "127.0.0.1", 8000)
