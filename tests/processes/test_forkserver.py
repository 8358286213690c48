"""The fork server: what it writes to standard error becomes one message of the log."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import sandbox_probe

from app.processes.channel import Disconnected
from app.processes.forkserver import ForkServer


def test_reason_of_a_crash_is_one_message(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    server = ForkServer("app.nowhere", 4096)
    with pytest.raises(Disconnected):
        server.events(60)
    server.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("The process that starts the decoders wrote: Traceback")
    assert record.getMessage().endswith("ModuleNotFoundError: No module named 'app.nowhere'")
    assert capfd.readouterr() == ("", "")


def test_server_without_errors_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server = ForkServer(sandbox_probe.__name__, 4096)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: server.close(), range(4)))
    assert caplog.records == []
