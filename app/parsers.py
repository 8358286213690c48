"""Parsers of settings, from text to value; each raises ValueError with a description of valid text."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
from collections.abc import Callable
from pathlib import Path

_ORIGIN = r"https?://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"


def integer(low: int, high: int) -> Callable[[str], int]:
    """Make a parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def workers(text: str) -> int | None:
    """Parse a number of processes from 1 to 64; auto is None."""
    try:
        return None if text == "auto" else integer(1, 64)(text)
    except ValueError as error:
        raise ValueError(f"auto, or {error}") from error


def one_of(*choices: str) -> Callable[[str], str]:
    """Make a parser that accepts only these words."""

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


def model(text: str) -> str:
    """Parse a model's name, or the path of a model file, which becomes absolute; empty stays empty."""
    if is_model_file(text) and (file := path(text)):
        return str(file.absolute())
    if not re.fullmatch(r"[A-Za-z0-9_./-]{0,200}", text):
        raise ValueError("the name of a model, in letters, digits and _ . / -, or a file that ends in .onnx or .xml")
    return text


def is_model_file(text: str) -> bool:
    """Return whether a model's name is the path of a file, ONNX or OpenVINO's IR."""
    return text.endswith((".onnx", ".xml"))


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


def otlp_endpoint(text: str) -> str | None:
    """Parse the address of a collector, whose path is `/v1/traces` unless given; empty is None."""
    endpoint = url(text)
    if endpoint is None:
        return None
    try:
        importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError as error:
        raise ValueError("left unset without the extra 'otel': pip install -e '.[otel]'") from error
    return endpoint if re.match(r"https?://[^/]+/.", endpoint) else endpoint.rstrip("/") + "/v1/traces"


def origins(text: str) -> tuple[str, ...]:
    """Parse web origins (RFC 6454), separated by commas or spaces; empty is an empty tuple."""
    found = tuple(dict.fromkeys(part.removesuffix("/") for part in re.split(r"[\s,]+", text) if part))
    if not all(re.fullmatch(_ORIGIN, origin) for origin in found):
        raise ValueError("origins such as https://photos.example:8443, in lower case, without a path, never *")
    return found


def hosts(text: str) -> tuple[str, ...]:
    """Parse host names and IP addresses without ports, separated by commas or spaces; empty is an empty tuple."""
    return tuple(dict.fromkeys(host(part.lower()) for part in re.split(r"[\s,]+", text) if part))


def rate_limit(text: str) -> str | None:
    """Parse limits such as `60/minute` or `10/second;1000/day`; empty is None."""
    limit = r"[1-9][0-9]{0,8}/([1-9][0-9]{0,3} )?(second|minute|hour|day)"
    if text and not re.fullmatch(f"{limit}(;{limit})*", text):
        raise ValueError("a number and second, minute, hour or day, such as 60/minute or 10/second;1000/day")
    return text or None


def rate_limit_storage(text: str) -> str:
    """Parse the place of the counts: memory:// or the address of a Redis."""
    if text != "memory://" and not re.fullmatch(r"(redis|rediss|redis\+unix)://\S+", text):
        raise ValueError("memory:// or the address of a Redis, such as redis://127.0.0.1:6379/0")
    return text


def host(text: str) -> str:
    """Parse a host name or an IP address without a port."""
    address = ip_address(text)
    if address is None and not re.fullmatch(r"[^\s/:\[\]]+", text):
        raise ValueError("a host name or an IP address, without a port")
    # gunicorn and URLs want an IPv6 address in brackets; people write it with and without.
    return f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else text


def address(text: str) -> str | None:
    """Parse a host and a port; empty is None."""
    name, separator, port = text.rpartition(":")
    try:
        return f"{host(name)}:{integer(1, 65535)(port)}" if text else None
    except ValueError as error:
        raise ValueError("a host and a port, such as 127.0.0.1:9100") from error


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an IP address, an IPv6 one with or without brackets; None if the text is not one."""
    try:
        return ipaddress.ip_address(host[1:-1] if re.fullmatch(r"\[.*:.*\]", host) else host)
    except ValueError:
        return None


def base64_length(size: int) -> int:
    """Return how many bytes base64 of `size` bytes has at most: 4 for 3 (RFC 4648, section 4), and its line ends.

    The shortest usual lines are PEM's, of 64 characters (RFC 7468, section 2), and the longest line end is the one
    that JSON writes as `\\r\\n`.
    """
    characters = 4 * ((size + 2) // 3)
    return characters + 4 * ((characters + 63) // 64)
