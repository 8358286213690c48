"""Fetch one file of known SHA-256: resumable, verified, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from ..errors import WeightsError
from ..writing import lock_of
from .digests import file_sha256
from .room import is_full, no_room

Progress = Callable[[int, int], None]
"""Called with the number of bytes received so far, and the number expected."""

ATTEMPTS = 3


@dataclass(frozen=True)
class Expected:
    """The expected file: its SHA-256 or the beginning of that, and its size, known to within `slack` bytes."""

    sha256: str
    size_bytes: int
    slack: int = 0

    @property
    def max_bytes(self) -> int:
        """Return the largest size that the file may have."""
        return self.size_bytes + self.slack

    def may_be_complete(self, size_bytes: int) -> bool:
        """Return whether a file of this size may be the whole one."""
        return abs(size_bytes - self.size_bytes) <= self.slack


TIMEOUT = httpx.Timeout(30.0, connect=5.0)

# Another attempt would end the same way. UnicodeError is the standard library's for an impossible host name.
_UNREACHABLE = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ProxyError,
    httpx.TooManyRedirects,
    httpx.UnsupportedProtocol,
    UnicodeError,
)


def fetch(url: str, target: Path, expected: Expected, *, progress: Progress | None = None) -> str:
    """Download `url` to `target`, unless another process has just done so, and return its SHA-256.

    After a broken connection or a server error, the partial file stays beside the target as `.part`, and is resumed
    now or by a later call; after any other failure it is deleted. Raises WeightsError with the reason.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock_of(target.with_name(f"{target.name}.lock")):
            digest = file_sha256(target) if target.is_file() else ""
            if not digest.startswith(expected.sha256):
                part = target.with_name(target.name + ".part")
                digest = _download(url, part, expected, progress or (lambda done, total: None))
                os.replace(part, target)
            return digest
    except httpx.InvalidURL as error:
        raise WeightsError("The download address of the weights is not valid.") from error
    except OSError as error:
        if is_full(target.parent, error, expected.max_bytes):
            raise WeightsError(no_room(target.parent)) from error
        raise WeightsError(f"{target} cannot be written: {error.strerror or error}.") from error


def _download(url: str, part: Path, expected: Expected, progress: Progress) -> str:
    was_begun = part.exists()
    try:
        digest = _receive_with_retries(url, part, expected, progress)
        if not digest.startswith(expected.sha256) and was_begun:
            part.unlink()  # what an earlier call left may be at fault, not the server
            digest = _receive_with_retries(url, part, expected, progress)
    except OSError:  # a full disk, for example: free the space
        part.unlink(missing_ok=True)
        raise
    if not digest.startswith(expected.sha256):
        part.unlink()
        due = expected.sha256 if len(expected.sha256) == len(digest) else f"one that begins with {expected.sha256}"
        raise WeightsError(f"{_shown(url)} sent a file with SHA-256 {digest} instead of {due}; it was deleted.")
    return digest


def _receive_with_retries(url: str, part: Path, expected: Expected, progress: Progress) -> str:
    with _client() as client:
        for _ in range(ATTEMPTS):
            try:
                return _receive(client, url, part, expected, progress)
            except _UNREACHABLE as error:
                raise WeightsError(f"{_shown(url)} cannot be reached: {error}.") from error
            except httpx.TransportError as error:
                reason, cause = str(error) or type(error).__name__, error
    raise WeightsError(f"{_shown(url)} broke off {ATTEMPTS} times: {reason}.") from cause


def _client() -> httpx.Client:
    try:
        return httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers={"Accept-Encoding": "identity"})
    except (ImportError, OSError, ValueError) as error:  # a kind of proxy that httpx cannot use, or no certificates
        raise WeightsError(f"The environment's proxy or certificates cannot be used: {error}") from error


def _receive(client: httpx.Client, url: str, part: Path, expected: Expected, progress: Progress) -> str:
    """Append the missing bytes to the partial file, and return the SHA-256 of the whole."""
    have = part.stat().st_size if part.exists() else 0
    if expected.may_be_complete(have):  # an earlier process may have ended before it moved the file
        digest = file_sha256(part)
        if digest.startswith(expected.sha256) or not expected.slack:
            return digest
    have = have if have < expected.size_bytes - expected.slack else 0
    with client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
        resumed = _is_resumed(response, have)
        if response.status_code != 200 and not resumed:
            if not response.is_server_error:
                part.unlink(missing_ok=True)
            raise WeightsError(f"{_shown(url)} answered {response.status_code} {response.reason_phrase}.")
        return _append(response, part, resumed, expected, progress)


def _append(response: httpx.Response, part: Path, resumed: bool, expected: Expected, progress: Progress) -> str:
    with part.open("r+b" if resumed else "w+b") as file:
        digest = hashlib.file_digest(file, "sha256")  # of the existing bytes; leaves the file at its end
        for chunk in response.iter_raw():  # no fixed size: a piece not yet full would be lost with the connection
            if file.tell() + len(chunk) > expected.max_bytes:
                part.unlink()
                raise WeightsError(
                    f"{_shown(str(response.url))} sent more than {expected.max_bytes} bytes; they were deleted."
                )
            file.write(chunk)
            digest.update(chunk)
            progress(file.tell(), expected.size_bytes)
        if file.tell() < expected.size_bytes - expected.slack and not _announces_its_end(response):
            raise httpx.RemoteProtocolError("the answer ended early")
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _is_resumed(response: httpx.Response, have: int) -> bool:
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _announces_its_end(response: httpx.Response) -> bool:
    """Return whether httpx notices if the response is incomplete; not if only the end of the connection ends it."""
    return "Content-Length" in response.headers or "Transfer-Encoding" in response.headers


def _shown(url: str) -> str:
    """Return an address for messages, without the parts that may be secret."""
    return str(httpx.URL(url).copy_with(username="", password="", query=None))
