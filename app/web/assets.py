"""The page's static files: addressed by their content, compressed once, cached by browsers for a year.

The digest in an address is that of all files together, so that a script finds the modules it imports, by their
relative names, in the same version as itself.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import flask

YEAR_SECONDS = 365 * 24 * 3600
MIMETYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".ico": "image/x-icon",
    ".webp": "image/webp",
}
_ALREADY_COMPRESSED = (".webp", ".ico")
# A smaller page fits into one packet in any case.
_MIN_COMPRESSED_BYTES = 1024


@dataclass(frozen=True)
class Asset:
    """One static file: its bytes, also compressed if that makes them smaller, and its type."""

    body: bytes
    compressed: bytes | None
    content_type: str


class Assets:
    """All files of a folder that have a suffix of `MIMETYPES`, read once."""

    def __init__(self, folder: Path) -> None:
        paths = [path for path in sorted(folder.rglob("*")) if path.suffix in MIMETYPES]
        self._assets = {path.relative_to(folder).as_posix(): _read(path) for path in paths}
        digest = hashlib.sha256()
        for name, asset in self._assets.items():
            digest.update(name.encode() + b"\0" + hashlib.sha256(asset.body).digest())
        self.digest = digest.hexdigest()[:16]

    def path(self, name: str) -> str:
        """Return a file's path below the mount point; raises KeyError for a file that does not exist."""
        if name not in self._assets:
            raise KeyError(name)
        return f"static/{self.digest}/{name}"

    def names(self, prefix: str, suffix: str) -> list[str]:
        """List the files whose names have this prefix and this suffix."""
        return [name for name in self._assets if name.startswith(prefix) and name.endswith(suffix)]

    def get(self, name: str) -> Asset | None:
        """Find a file by name."""
        return self._assets.get(name)


@functools.cache
def read_assets(folder: Path) -> Assets:
    """Read a folder's static files, once per process."""
    return Assets(folder)


def asset_response(asset: Asset, *, is_current: bool) -> flask.Response:
    """Return a static file; `is_current` says whether the address names this version of it."""
    takes_gzip = asset.compressed is not None and _takes_gzip()
    response = flask.make_response(asset.compressed if takes_gzip else asset.body)
    response.headers["Content-Type"] = asset.content_type
    response.headers["Cache-Control"] = f"public, max-age={YEAR_SECONDS}, immutable" if is_current else "no-cache"
    if takes_gzip:
        response.headers["Content-Encoding"] = "gzip"
    if asset.compressed is not None:
        response.vary.add("Accept-Encoding")
    return response


def compress_page(response: flask.Response) -> flask.Response:
    """Compress a page for a browser that accepts it; return any other answer unchanged."""
    if response.mimetype != "text/html":
        return response
    response.vary.add("Accept-Encoding")
    body = response.get_data()
    if _takes_gzip() and len(body) >= _MIN_COMPRESSED_BYTES and "Content-Encoding" not in response.headers:
        response.set_data(gzip.compress(body, compresslevel=6, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
    return response


def _takes_gzip() -> bool:
    return flask.request.accept_encodings["gzip"] > 0


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    compressed = None if path.suffix in _ALREADY_COMPRESSED else gzip.compress(body, compresslevel=9, mtime=0)
    return Asset(body, compressed, MIMETYPES[path.suffix])
