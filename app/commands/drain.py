"""`topthree drain`: have balancers send new work elsewhere, before the service is stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Mapping

import click

from ..errors import Draining, TopthreeError
from ..parsers import ip_address
from ..processes.pidfile import find
from ..settings import Settings

PROBE_SECONDS = 5.0
# The master looks at its signals at once, unless it is amid a reload.
NOTICE_SECONDS = 10.0
PAUSE_SECONDS = 0.1


class NothingRuns(TopthreeError):
    """No service of this user listens at the address."""

    exit_status = 3


class DrainFailed(TopthreeError):
    """The service does not do what it was told, or not in time."""


def run(settings: Settings, environment: Mapping[str, str], *, seconds: float, at_most: float, undo: bool) -> None:
    """Turn readiness off and wait for `seconds`, and then until nothing is in flight; or, with `undo`, turn it on.

    Raises NothingRuns, or DrainFailed where requests are in flight still after `at_most` seconds.
    """
    began = time.monotonic()
    file = find(environment, settings.host, settings.port)
    if file is None:
        raise NothingRuns(
            f"Nothing runs here: no topthree of this user listens on {settings.host} port {settings.port}. "
            "TOPTHREE_HOST and TOPTHREE_PORT say which one is meant."
        )
    file.want(draining=not undo)
    os.kill(file.pid, signal.SIGUSR1)
    if not _wait_until(lambda: _is_draining(settings) is not undo, began + NOTICE_SECONDS):
        raise DrainFailed("The service has not taken notice: its log may say why.")
    if undo:
        click.echo("Ready as before.", err=True)
        return
    time.sleep(seconds)
    if not _wait_until(lambda: _ask(settings).get("in_flight") == 0, began + max(at_most, seconds)):
        raise DrainFailed(
            f"Requests are in flight still after {at_most:g} seconds: {_ask(settings).get('in_flight')}."
        )
    click.echo(f"Drained: not ready for {time.monotonic() - began:.1f} s, and nothing is in flight.", err=True)


def _wait_until(condition: Callable[[], bool], deadline: float) -> bool:
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_SECONDS)
    return True


def _is_draining(settings: Settings) -> bool | None:
    """Tell whether the service says so; None where it is too busy to say anything."""
    document = _ask(settings)
    return document.get("type") == f"/problems/{Draining.slug}" if document else None


def _ask(settings: Settings) -> dict[str, object]:
    """Return what `/readyz` says; nothing where the service is too busy, and where it has ended, that it is empty."""
    address = ip_address(settings.host)
    host = settings.host.strip("[]")
    if address is not None and address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    connection = http.client.HTTPConnection(host, settings.port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/readyz")
        document: dict[str, object] = json.loads(connection.getresponse().read())
    except ConnectionRefusedError:
        return Draining("", in_flight=0).as_dict()
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return document
