"""A server that is started to be measured: it is always stopped, and a failed start gives its reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from app.measuring.load import http_sender
from app.measuring.own_server import ServerFailed, own_server
from app.settings import Settings

pytestmark = pytest.mark.live


def test_a_server_started_for_the_measurement_is_stopped_again(
    packaged_settings: Settings, real_photos: dict[str, bytes], tmp_path: Path
) -> None:
    with own_server(packaged_settings) as server:
        assert server.wait_for_answer(real_photos["cat"]) > 0
        assert server.memory_mb() > 50
        process = server.process
    assert process.returncode is not None
    with http_sender(server.url)() as send, pytest.raises(OSError, match="refused"):
        send(b"")


def test_a_server_that_cannot_start_gives_its_reason(packaged_settings: Settings, tmp_path: Path) -> None:
    settings = dataclasses.replace(packaged_settings, weights=tmp_path / "missing.pth")
    with pytest.raises(ServerFailed, match="missing.pth, which is not a file"), own_server(settings) as server:
        server.wait_for_answer(b"")
