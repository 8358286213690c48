"""`topthree serve`: its help lists the settings, and an address that cannot be used is one sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from servers import free_port

from app.commands import cli
from app.settings import SETTINGS, Settings


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_serve_help_lists_every_setting_with_its_default() -> None:
    lines = invoke("serve", "--help").output.splitlines()
    for row in SETTINGS:
        assert f"    {row.variable} [{row.default or 'not set'}]: {row.help}" in lines


@pytest.mark.parametrize(
    ("variable", "host", "way_out"),
    [
        ("TOPTHREE_PORT", "", "TOPTHREE_HOST and TOPTHREE_PORT"),
        ("TOPTHREE_METRICS_ADDRESS", "127.0.0.1:", "TOPTHREE_METRICS_ADDRESS."),
    ],
)
def test_serve_on_a_port_in_use_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variable: str, host: str, way_out: str
) -> None:
    monkeypatch.setenv("TOPTHREE_PORT", str(free_port()))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv(variable, f"{host}{port}")
        result = invoke("serve")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"Error: Cannot listen on 127.0.0.1 port {port}: Address already in use. Choose another with {way_out}"
    )
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_serve_on_an_address_not_ours_is_one_sentence(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("TOPTHREE_HOST", host)
    result = invoke("serve")
    assert result.exit_code == 1
    assert f"Cannot listen on {host} port 8000" in result.stderr


@pytest.mark.usefixtures("packaged_classifier")  # by which the model is prepared
def test_relative_paths_begin_where_serve_was_called(packaged_settings: Settings, tmp_path: Path) -> None:
    own = {"TOPTHREE_PORT": str(free_port()), "TOPTHREE_INDEX": "lib"}
    environment = os.environ | packaged_settings.as_environment() | own
    command = [sys.executable, "-m", "app", "serve"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90)
    assert f"{tmp_path / 'lib'} is not an index" in done.stderr
