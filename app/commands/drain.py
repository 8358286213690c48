"""Make the running service report that it is not ready, and wait until it can be stopped.

The service still answers requests. This command returns once no requests are in flight, but not before 10 seconds
(--seconds), so that load balancers notice. The exit status is 3 if nothing runs at TOPTHREE_HOST and TOPTHREE_PORT,
and 1 if requests are still in flight after 25 seconds (--at-most).

\b
Examples:
  topthree drain
  topthree drain --undo
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
import urllib.parse
from collections.abc import Callable

import click

from ..errors import Draining, TopthreeError
from ..processes.pidfile import find
from ..settings import Settings
from . import read_environment, read_settings

PROBE_SECONDS = 5.0
# gunicorn's master handles signals at once, unless it is reloading.
NOTICE_SECONDS = 10.0
PAUSE_SECONDS = 0.1


class NothingRuns(TopthreeError):
    """No service of this user listens on the address."""

    exit_status = 3


class DrainFailed(TopthreeError):
    """The service did not react, or still has requests in flight at the end of the wait."""


@click.command(help=__doc__)
@click.option("--seconds", type=click.FloatRange(0), default=10.0, show_default=True, help="Shortest time to wait.")
@click.option("--at-most", type=click.FloatRange(0), default=25.0, show_default=True, help="Longest time to wait.")
@click.option("--undo", is_flag=True, help="Make the service ready again.")
def command(seconds: float, at_most: float, *, undo: bool) -> None:
    """Turn readiness off and wait for `seconds`, and then until nothing is in flight; or, with `undo`, turn it on."""
    settings = read_settings()
    began = time.monotonic()
    file = find(read_environment(), settings.host, settings.port)
    if file is None:
        raise NothingRuns(
            f"Nothing runs here: no topthree of this user listens on {settings.host} port {settings.port}. "
            "Set TOPTHREE_HOST and TOPTHREE_PORT as the service has them."
        )
    file.want(draining=not undo)
    os.kill(file.pid, signal.SIGUSR1)
    if not _wait_until(lambda: _is_draining(settings) == (not undo), began + NOTICE_SECONDS):
        raise DrainFailed("The service did not react; see its log.")
    if undo:
        click.echo("The service is ready again.", err=True)
        return
    time.sleep(seconds)
    longest = max(at_most, seconds)
    if not _wait_until(lambda: _ask(settings).get("in_flight") == 0, began + longest):
        raise DrainFailed(
            f"After {longest:g} seconds, requests are still in flight: {_ask(settings).get('in_flight')}."
        )
    click.echo(f"Drained: not ready for {time.monotonic() - began:.1f} s, and nothing is in flight.", err=True)


def _wait_until(condition: Callable[[], bool], deadline: float) -> bool:
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_SECONDS)
    return True


def _is_draining(settings: Settings) -> bool | None:
    """Return whether the service is draining, or None if it does not answer."""
    document = _ask(settings)
    return document.get("type") == f"/problems/{Draining.slug}" if document else None


def _ask(settings: Settings) -> dict[str, object]:
    """Return the `/readyz` document; `{}` on a time-out; an idle "draining" document if the service has exited."""
    address = urllib.parse.urlsplit(settings.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PROBE_SECONDS)
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
