"""Serve the page and the API.

The first start downloads the weights and prepares the model; later starts need no network.

Settings are environment variables, listed below; there are no options such as --port.

\b
Examples:
  topthree serve
  TOPTHREE_PORT=9000 topthree serve
"""

from __future__ import annotations

import os
import socket
import sys
from typing import NoReturn

import click

from ..settings import RESOURCES, ROOT, SETTINGS, Settings
from . import read_settings
from .weights import make_ready


def _settings_help() -> str:
    rows = "\n".join(f"  {row.variable} [{row.default or 'not set'}]: {row.help}" for row in SETTINGS)
    return f"\b\nSettings are environment variables:\n{rows}"


@click.command(help=__doc__, epilog=_settings_help())
def command() -> None:
    """Serve with the settings of the environment."""
    start(read_settings())


def start(settings: Settings) -> NoReturn:
    """Get the model ready, then become gunicorn."""
    _require_free_ports(settings)
    make_ready(settings)
    click.echo("Starting the service; Ctrl-C stops it.", err=True)
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", str(RESOURCES / "gunicorn.conf.py")]
    # Heads of projects are solved beside photos, which need the other processors more.
    environment = {"OPENBLAS_NUM_THREADS": "1"} | settings.for_child()  # here, where relative paths are meant
    # Start in the folder that holds the package: an `app` of another project in the current folder would shadow it.
    os.chdir(ROOT)
    os.execve(sys.executable, gunicorn, environment)


def _require_free_ports(settings: Settings) -> None:
    """Fail at once if a port is taken; gunicorn would try for five seconds and then show a traceback."""
    _require_free_port(settings.host, settings.port, "TOPTHREE_HOST and TOPTHREE_PORT (with make: HOST and PORT)")
    if settings.metrics_address:
        host, _, port = settings.metrics_address.rpartition(":")
        _require_free_port(host, int(port), "TOPTHREE_METRICS_ADDRESS")


def _require_free_port(host: str, port: int, variables: str) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise click.ClickException(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose another with {variables}."
        ) from error
