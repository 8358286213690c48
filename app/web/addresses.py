"""Addresses of clients: without the port that some proxies add, and the network that counts as one client."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# A household or an office gets an IPv6 network of at least this size, and can use any address in it.
_IPV6_PREFIX_BITS = 64
# 203.0.113.7:4711, [2001:db8::1]:4711 and [2001:db8::1]; a bare IPv6 address has no brackets, and so no port.
_WITH_PORT = re.compile(r"(?:(?P<v4>[0-9.]+):[0-9]+|\[(?P<v6>[0-9A-Fa-f:.]+)\](?::[0-9]+)?)")


class AddressAlone:
    """WSGI middleware behind a trusted proxy: it removes the port from the client's address.

    Azure's gateway and IIS write both into `X-Forwarded-For`. With the port, each connection would be a client of its
    own to the limits.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as the application does."""
        environ["REMOTE_ADDR"] = without_port(environ.get("REMOTE_ADDR") or "")
        return self._app(environ, start_response)


def without_port(text: str) -> str:
    """Return an address without its port and brackets; any other text is returned unchanged."""
    found = _WITH_PORT.fullmatch(text.strip())
    address = found and (found["v4"] or found["v6"])
    return address if address and _parse(address) else text


def counted_as(text: str) -> str:
    """Return what limits count an address as: an IPv4 address itself, an IPv6 address as its network of 64 bits.

    An IPv4 address written as IPv6 counts as IPv4. Text that is no address, such as a Unix socket's, stays as it is.
    """
    found = _parse(text.partition("%")[0])
    if found is None:
        return text
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX_BITS), strict=False))


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
