"""Fetch one file of known SHA-256: resumable, verified while written, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import httpx
from filelock import FileLock

from .errors import WeightsError

Progress = Callable[[int, int], None]
"""Told how many bytes are here, and how many there will be."""

ATTEMPTS = 3
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
CHUNK_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """Hash a file's content, as lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, target: Path, *, sha256: str, size_bytes: int, progress: Progress | None = None) -> None:
    """Download `url` to `target`, unless another process has just done so.

    What a broken connection leaves stays beside the target as `.part` and is resumed, now or by a later call;
    anything else that fails leaves nothing. Raises WeightsError with the reason.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not (target.is_file() and file_sha256(target) == sha256):
                _fetch_with_retries(url, target, sha256, size_bytes, progress or (lambda done, total: None))
    except OSError as error:
        raise WeightsError(f"{target} cannot be written: {error.strerror or error}.") from error


def _fetch_with_retries(url: str, target: Path, sha256: str, size_bytes: int, progress: Progress) -> None:
    part = target.with_name(target.name + ".part")
    with httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers={"Accept-Encoding": "identity"}) as client:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                digest = _receive(client, url, part, size_bytes, progress)
                break
            except httpx.ConnectError as error:
                raise WeightsError(f"{url} cannot be reached: {error}.") from error
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise WeightsError(
                        f"{url} broke off {ATTEMPTS} times: {error or type(error).__name__}."
                    ) from error
    if digest != sha256:
        part.unlink()
        raise WeightsError(f"{url} sent a file with SHA-256 {digest}, where {sha256} was due; it was thrown away.")
    os.replace(part, target)


def _receive(client: httpx.Client, url: str, part: Path, size_bytes: int, progress: Progress) -> str:
    """Append to the partial file what is missing from it, and return the whole file's SHA-256."""
    have = part.stat().st_size if part.exists() else 0
    if have >= size_bytes:
        part.unlink()
        have = 0
    with client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
        resumed = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        if response.status_code != 200 and not resumed:
            part.unlink(missing_ok=True)
            raise WeightsError(f"{url} answered {response.status_code} {response.reason_phrase}.")
        digest = hashlib.sha256(part.read_bytes() if resumed else b"")
        done = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_raw(CHUNK_BYTES):
                done += len(chunk)
                if done > size_bytes:
                    break  # more than there can be: the hash will not match
                file.write(chunk)
                digest.update(chunk)
                progress(done, size_bytes)
            file.flush()
            os.fsync(file.fileno())
    return digest.hexdigest()
