"""From a setting's text to its value: each parser raises ValueError with what the text must be."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path


def integer(low: int, high: int) -> Callable[[str], int]:
    """Make a parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """Make a parser that takes these words alone."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return text

    return parse


def path(text: str) -> Path | None:
    """Parse a path, where ~ is the home folder; empty is None."""
    try:
        return Path(text).expanduser() if text else None
    except RuntimeError as error:
        raise ValueError("a path whose home folder exists") from error


def sha256(text: str) -> str | None:
    """Parse a SHA-256 in hexadecimal digits; empty is None."""
    if text and not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("64 hexadecimal digits")
    return text.lower() or None


def url(text: str) -> str | None:
    """Parse a web address; empty is None."""
    if text and not re.match(r"https?://[^/\s]+", text):
        raise ValueError("an http:// or https:// address")
    return text or None


def host(text: str) -> str:
    """Parse a host name or an IP address without a port."""
    address = ip_address(text)
    if address is None and not re.fullmatch(r"[^\s/:\[\]]+", text):
        raise ValueError("a host name or an IP address, without a port")
    # gunicorn and URLs want an IPv6 address in brackets; people write it with and without.
    return f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else text


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an IP address, an IPv6 one with or without brackets; None where it is none."""
    try:
        return ipaddress.ip_address(host[1:-1] if re.fullmatch(r"\[.*:.*\]", host) else host)
    except ValueError:
        return None
