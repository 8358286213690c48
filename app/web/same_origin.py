"""Requests that only our own page, or a script that means it, may send.

A page of any site can make a browser send requests to a service on the same machine or network, and a site whose name
is rebound to the service's address can read the answers too. So the host must be one of ours, and a write must come
from a page of ours: browsers say in `Origin` or `Sec-Fetch-Site` where a request comes from, and pages cannot change
either. A script need not send them if it sends a key, which no page of another site knows. A read that says it comes
from another site is refused too: no page could read its answer, but it may cost seconds of work.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import flask

from ..errors import ForeignOrigin
from ..parsers import ip_address
from ..settings import Settings
from .service import request_state, service

_READS = ("GET", "HEAD", "OPTIONS")
_OTHER_SITES = ("cross-site", "same-site")
_DEFAULT_PORTS = (80, 443)


def require_our_host() -> None:
    """Raise ForeignOrigin unless the request is for a host name of this machine or of TOPTHREE_HOSTS."""
    name = _split(f"//{flask.request.host}")[0]
    if not is_our_host(name, service().settings):
        raise ForeignOrigin(
            f"'{name[:64]}' is not a host name of this service. The administrator can add it to TOPTHREE_HOSTS."
        )


def is_our_host(name: str, settings: Settings) -> bool:
    """Return whether browsers may reach the service by this host name, written in lower case without a port."""
    if name == "localhost" or name in (settings.host, *settings.hosts):
        return True
    address = ip_address(name)
    return address is not None and address.is_loopback


def require_same_origin() -> None:
    """Raise ForeignOrigin for a write that a page of another site may have sent, and for a read that says so."""
    request = flask.request
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if request.method in _READS:
        if site in _OTHER_SITES:
            raise ForeignOrigin("Only pages of this service may send this.")
        return
    if site is None and origin is None:
        if request_state().caller is not None:
            return
        raise ForeignOrigin(
            "The request does not say where it comes from. From a script, send a key, or the header "
            "'Sec-Fetch-Site: same-origin'."
        )
    if site not in (None, "same-origin") or (origin is not None and _split(origin) != _split(f"//{request.host}")):
        raise ForeignOrigin("Only pages of this service may send this.")


def _split(address: str) -> tuple[str, int | None]:
    """Return the host and the port of an origin or a host, None for a usual port; of nonsense an empty host."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "", None
    return f"[{host}]" if ":" in host else host, None if port in _DEFAULT_PORTS else port
