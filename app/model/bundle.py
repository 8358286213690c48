"""The bundle: one archive with everything that is needed to serve a model; its layout, and how it is verified.

A bundle is a tar file (POSIX ustar) of `MEMBERS` in that order, and of `OWN_MEMBERS` if it holds a model of one's own,
whose head is on the model of the others; of a fine-tuned model, those are made of its weights and its head. Nothing is
compressed: float32 weights would shrink by less than a tenth, and data that is not compressed cannot expand. Owner,
mode and time of each member are fixed, so that the same model makes the same bytes. A header is rejected if it differs
in any bit from the one that we would write, as those of links, of sparse files and of paths out of the folder do.
`sha256sum -c` can check `SHA256SUMS`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO

from ..errors import BundleError, OwnModelError
from ..photos.protocol import INTERPOLATIONS, MAX_CROP_SIDE
from . import own_format
from .artifact import FILES, MANIFEST, PREPARE_VERSION, Manifest
from .own_format import OwnModel
from .records import FILE, RECORDS, TIMM, ModelRecord, as_json, from_json

# A bundle with a model of one's own has a later format, since earlier versions would take it for damaged.
FORMAT, FORMAT_WITH_OWN, FORMAT_TUNED = 1, 2, 3
DESCRIPTION = "bundle.json"
SUMS = "SHA256SUMS"
LABELS = "labels.csv"
MODEL = "model"
MEMBERS = (DESCRIPTION, SUMS, LABELS, *(f"{MODEL}/{name}" for name in (MANIFEST, *FILES)))
OWN = "own"
OWN_MEMBERS = tuple(f"{OWN}/{name}" for name in own_format.FILES)
END = bytes(2 * tarfile.BLOCKSIZE)
# These are kept in memory while a bundle is read, up to this number of bytes; real texts have some kilobytes.
_MAX_BYTES = dict.fromkeys((DESCRIPTION, SUMS, f"{MODEL}/{MANIFEST}"), 1024 * 1024)
_MAX_BYTES |= {f"{OWN}/{name}": size for name, size in own_format.MAX_BYTES.items()}
COPY_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Description:
    """The description in a bundle: `model` is the model's record, `openvino` the only version that can serve it."""

    format: int
    model: dict[str, Any]
    weights_sha256: str
    fallback: bool
    precision: str
    classes: int
    accuracy: dict[str, Any] | None
    topthree: str
    openvino: str
    prepare_version: int


_KINDS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "model": dict,
    "weights_sha256": str,
    "fallback": bool,
    "precision": str,
    "classes": int,
    "accuracy": (dict, NoneType),
    "topthree": str,
    "openvino": str,
    "prepare_version": int,
}


@dataclass(frozen=True)
class Member:
    """Where a member's bytes lie in the archive, and their SHA-256."""

    name: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A complete bundle, with all checksums verified; `sha256` is that of the whole file.

    The file was read once. The bytes that are unpacked later must match the checksums in `members` again. `own` is the
    model of one's own that it holds, if any; its head is on the backbone that the rest of the bundle is.
    """

    path: Path
    sha256: str
    description: Description
    members: tuple[Member, ...]
    own: OwnModel | None = None

    @property
    def record(self) -> ModelRecord | None:
        """Return the model's record from our table, or the bundle's own for a model outside it; None if it is unknown.

        A model whose preprocessing differs from that of our record is unknown.
        """
        asked = self.description.model
        if str(asked.get("name", "")).startswith((TIMM, FILE)):
            return _read_record(asked)
        known = RECORDS.get(asked.get("name", ""))
        return known if known and _preprocessing(as_json(known)) == _preprocessing(asked) else None

    @property
    def obstacle(self) -> str | None:
        """Return in one sentence why this installation cannot serve it, or None if it can."""
        made = self.description
        if made.openvino != openvino_version():
            return (
                f"{self.path} serves with OpenVINO {made.openvino}, and this is {openvino_version()}: install "
                f"openvino=={made.openvino}, or make the bundle again with this one."
            )
        if made.prepare_version != PREPARE_VERSION or self.record is None:
            return (
                f"{self.path} was made by topthree {made.topthree} for a model that this version prepares in another "
                "way: serve it with that version, or make the bundle again with this one."
            )
        return None


def read_bundle(path: Path, sha256: str | None = None) -> Bundle:
    """Read a bundle from beginning to end and verify it; `sha256` is the digest that the whole file must have.

    Raises BundleError if the file cannot be read, is no bundle, or differs in any way from what was written.
    """
    try:
        with path.open("rb") as file:
            reader = _Reader(file)
            try:
                members, texts = _read_members(reader, path)
            except BundleError:
                _compare(reader.finish(), sha256, path)  # a wrong digest says more than what is wrong with this file
                raise
            digest = reader.finish()
        _compare(digest, sha256, path)
    except OSError as error:
        raise BundleError(f"The bundle {path} cannot be read: {error.strerror or error}.") from error
    description = _describe(texts[DESCRIPTION], path)
    _verify(members, texts, description, path)
    return Bundle(path, digest, description, members, _read_own(texts, description, path))


def tar_header(name: str, size: int) -> bytes:
    """Build a member's header, the same on every machine and at any time."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT)


def padding(size: int) -> int:
    """Return the number of zeros that fill a member's last block."""
    return -size % tarfile.BLOCKSIZE


def openvino_version() -> str:
    """Return the version of the installed OpenVINO, without importing it."""
    return importlib.metadata.version("openvino")


def _preprocessing(record: Mapping[str, Any]) -> Any:
    return record.get("mean"), record.get("std"), record.get("geometry")


def _read_record(values: Mapping[str, Any]) -> ModelRecord | None:
    """Read the record of a model that is not in our table; None if it is impossible."""
    try:
        record = from_json(values)
        geometry = record.geometry
        is_sane = (
            isinstance(geometry.crop, int)
            and isinstance(geometry.resize, int)
            and 1 <= geometry.crop <= geometry.resize <= MAX_CROP_SIDE
            and geometry.interpolation in INTERPOLATIONS
            and len(record.mean) == len(record.std) == 3
            and all(map(math.isfinite, (*record.mean, *record.std)))
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return record if is_sane else None


class _Reader:
    """A file that is read once, from beginning to end, and hashed at the same time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.offset = 0

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        data = self._file.read(size)
        self._digest.update(data)
        self.offset += len(data)
        return data

    def finish(self) -> str:
        """Read the rest, and return the SHA-256 of the whole file."""
        while self.read(COPY_BYTES):
            pass
        return self._digest.hexdigest()


def _compare(digest: str, demanded: str | None, path: Path) -> None:
    if demanded and digest != demanded:
        raise BundleError(f"{path} has SHA-256 {digest}, but TOPTHREE_BUNDLE_SHA256 demands {demanded}.")


def _read_members(reader: _Reader, path: Path) -> tuple[tuple[Member, ...], dict[str, bytes]]:
    """Find the members and keep the texts; each header must be, to the last bit, the one that we write."""
    found: list[Member] = []
    texts: dict[str, bytes] = {}
    for name in _expected(texts, path):
        header = reader.read(tarfile.BLOCKSIZE)
        size = _size(header)
        if header != tar_header(name, size):
            # A later format may have other members after the description, which is no damage: look at its version.
            if found:
                _describe(texts[DESCRIPTION], path)
            problem = f"is damaged: {name} is not where it belongs" if found else "is not a bundle of topthree"
            raise BundleError(f"{path} {problem}.")
        offset, kept = reader.offset, bytearray()
        limit = _MAX_BYTES.get(name, 0)
        digest = _read_member(reader, size, kept, limit, path)
        if len(kept) > limit:
            raise BundleError(f"{path} is damaged: {name} is far too large.")
        texts[name] = bytes(kept)
        found.append(Member(name, offset, size, digest))
        reader.read(padding(size))
    if reader.read(len(END) + 1) != END:
        raise BundleError(f"{path} is damaged: it does not end where it should.")
    return tuple(found), texts


def _expected(texts: Mapping[str, bytes], path: Path) -> Iterator[str]:
    """Yield the names of the members in their order; those after `MEMBERS` depend on the description in `texts`."""
    yield from MEMBERS
    if _describe(texts[DESCRIPTION], path).format != FORMAT:
        yield from OWN_MEMBERS


def _size(header: bytes) -> int:
    field = header[124:135]  # eleven octal digits, as POSIX defines it
    return int(field, 8) if len(field) == 11 and not field.strip(b"01234567") else 0


def _read_member(reader: _Reader, size: int, kept: bytearray, limit: int, path: Path) -> str:
    """Read a member and return its SHA-256; append its bytes to `kept` while these are not above a limit, unless 0."""
    digest = hashlib.sha256()
    while size > 0:
        chunk = reader.read(min(size, COPY_BYTES))
        if not chunk:
            raise BundleError(f"{path} is damaged: it is cut short.")
        digest.update(chunk)
        if limit and len(kept) <= limit:
            kept += chunk
        size -= len(chunk)
    return digest.hexdigest()


def _parse(text: bytes, name: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {name} cannot be read.") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path} is damaged: {name} cannot be read.")
    return value


def _describe(text: bytes, path: Path) -> Description:
    values = _parse(text, DESCRIPTION, path)
    version = values.get("format")
    if isinstance(version, int) and version not in (FORMAT, FORMAT_WITH_OWN, FORMAT_TUNED):
        raise BundleError(
            f"{path} is a bundle of format {version}, and this version of topthree reads formats {FORMAT} to "
            f"{FORMAT_TUNED}: make the bundle again with this version."
        )
    if values.keys() != _KINDS.keys() or not all(isinstance(values[key], kind) for key, kind in _KINDS.items()):
        raise BundleError(f"{path} is damaged: {DESCRIPTION} does not say what it should.")
    return Description(**values)


def _verify(members: tuple[Member, ...], texts: dict[str, bytes], description: Description, path: Path) -> None:
    """Compare every member with the sums, and the artifact's manifest with the bundle's description."""
    manifest = f"{MODEL}/{MANIFEST}"
    if texts[SUMS] != write_sums({each.name: each.sha256 for each in members if each.name != SUMS}):
        raise BundleError(f"{path} is damaged: its files are not those of its {SUMS}.")
    inner = _parse(texts[manifest], manifest, path)
    said = (description.model.get("name"), description.weights_sha256, description.precision, description.classes)
    files = {each.name.removeprefix(f"{MODEL}/"): each.sha256 for each in members[4 : len(MEMBERS)]}
    same = said == tuple(inner.get(key) for key in ("name", "weights_sha256", "precision", "classes"))
    known = {field.name for field in dataclasses.fields(Manifest)}
    if not same or inner.get("files") != files or inner.keys() != known:
        raise BundleError(f"{path} is damaged: {manifest} does not fit {DESCRIPTION}.")


def _read_own(texts: Mapping[str, bytes], description: Description, path: Path) -> OwnModel | None:
    if description.format == FORMAT:
        return None
    content = {name: texts[f"{OWN}/{name}"] for name in own_format.FILES}
    try:
        name, version = own_format.name_and_version(content)
        own = own_format.parse_version(content, f"{path}: {OWN}", name=name, version=version)
    except (OwnModelError, AttributeError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {OWN} cannot be read: {str(error).rstrip('.')}.") from error
    if own.features_sha256 != description.weights_sha256 or (own.trunk is None) == (
        description.format == FORMAT_TUNED
    ):
        raise BundleError(f"{path} is damaged: {OWN} is a head on other weights than those of {MODEL}.")
    return own


def write_sums(sums: dict[str, str]) -> bytes:
    """Return SHA-256 sums as `sha256sum` writes them, in the order of the archive."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode("ascii")
