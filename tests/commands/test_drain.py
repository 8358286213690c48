"""`topthree drain` and the real service: not ready while all else is answered, until nothing is in flight."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest
from fakes import colour_png
from servers import PATIENCE_SECONDS, ROOT, TOPTHREE, Server, environment, free_port, serving

from app.settings import Settings

pytestmark = pytest.mark.live


def drain(cache: Path, port: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command for the service at a port."""
    command = [*TOPTHREE, "drain", *options]
    return subprocess.run(command, cwd=ROOT, env=environment(cache, port=port), capture_output=True, text=True)


def statuses(server: Server) -> set[int]:
    """Ask for readiness over many connections, so that every worker answers some."""
    return {httpx.get(f"{server.url}/readyz", timeout=PATIENCE_SECONDS).status_code for _ in range(20)}


def test_a_drained_service_is_not_ready_and_answers_all_else(packaged_settings: Settings, tmp_path: Path) -> None:
    cache = packaged_settings.cache
    with serving(cache, tmp_path / "log", workers=2) as server:
        server.wait_until_ready()
        done = drain(cache, server.port, "--seconds", "0")
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith("Drained: not ready for ")
        assert statuses(server) == {503}
        problem = httpx.get(f"{server.url}/readyz").json()
        assert (problem["type"], problem["in_flight"]) == ("/problems/draining", 0)
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        answer = httpx.post(f"{server.url}/api/v1/predict", files={"file": colour_png(9)}, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200
        assert drain(cache, server.port, "--undo").returncode == 0
        assert statuses(server) == {200}
    again = drain(cache, server.port)
    assert again.returncode == 3
    assert again.stderr.startswith(
        f"Error: Nothing runs here: no topthree of this user listens on 127.0.0.1 port {server.port}."
    )
    assert len(again.stderr.splitlines()) == 1


def test_nothing_is_signalled_where_nothing_runs(tmp_path: Path) -> None:
    assert drain(tmp_path, free_port()).returncode == 3
