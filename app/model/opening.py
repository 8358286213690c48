"""Opening the prepared model that serves: a bundle's, unpacked once into the cache, or the one made here."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..errors import BundleError
from ..settings import Settings
from ..writing import alone_in, filling, sweep
from .artifact import FILES, MANIFEST, Manifest, Prepared, ensure_prepared, precision_family
from .bundle import COPY_BYTES, LABELS, MODEL, Bundle, Member, read_bundle
from .digests import bytes_sha256
from .records import RECORDS, TIMM
from .room import not_writable
from .weights import Weights

FALLBACK_REASON = "The bundle holds the built-in model, since ResNet-18 could not be downloaded when it was made."


def open_serving(settings: Settings) -> Prepared:
    """Open the bundle of TOPTHREE_BUNDLE if that is set, else the prepared model, which is made if necessary."""
    return open_bundle(settings.bundle, settings) if settings.bundle else ensure_prepared(settings)


def open_bundle(path: Path, settings: Settings) -> Prepared:
    """Verify a bundle and open its files in the cache, into which they are unpacked if necessary.

    Raises BundleError, in one sentence, if it is damaged, does not suit the settings or this installation, or cannot
    be unpacked.
    """
    bundle = read_bundle(path, settings.bundle_sha256)
    if bundle.obstacle:
        raise BundleError(bundle.obstacle)
    made = bundle.description
    if settings.precision and precision_family(settings.precision) != made.precision:
        raise BundleError(
            f"TOPTHREE_PRECISION is {settings.precision}, but {path} of TOPTHREE_BUNDLE holds an {made.precision} "
            "model: leave TOPTHREE_PRECISION unset, or make a bundle with that precision."
        )
    assert bundle.record is not None
    is_published = settings.model in RECORDS or settings.model.startswith(TIMM)  # others may be in TOPTHREE_MODELS
    if is_published and settings.model != bundle.record.name:
        raise BundleError(
            f"TOPTHREE_MODEL is {settings.model}, but {path} of TOPTHREE_BUNDLE holds {bundle.record.name}: "
            "leave TOPTHREE_MODEL unset, or name the bundle of that model."
        )
    unpacked = unpack(bundle, settings.cache)
    manifest = Manifest(**json.loads(unpacked.content[f"{MODEL}/{MANIFEST}"]))
    content = {name: unpacked.content[f"{MODEL}/{name}"] for name in FILES}
    # A model that TOPTHREE_MODEL names replaces no other, although the bundle was made where it did.
    reason = FALLBACK_REASON if made.fallback and settings.model != bundle.record.name else ""
    weights = Weights(path, made.weights_sha256, bundle.record, "bundle", reason)
    labels = unpacked.content[LABELS]
    return Prepared(unpacked.folder / MODEL, manifest, weights, content, labels, bundle.own)


@dataclass(frozen=True)
class Unpacked:
    """The folder of the cache that holds a bundle's files, and the bytes of each as they were verified."""

    folder: Path
    content: Mapping[str, bytes] = field(repr=False)


def unpack(bundle: Bundle, cache: Path) -> Unpacked:
    """Return the bundle's files, unpacked and verified.

    Of several processes that start at once, one unpacks and the others wait. The folder is moved into place as a
    whole, and nothing is written if an undamaged one exists. Raises BundleError if the cache cannot be written.
    """
    target = cache / "bundles" / bundle.sha256
    content = _read_whole(bundle, target)
    if content is not None:
        return Unpacked(target, content)
    try:
        with alone_in(target.parent):
            content = _read_whole(bundle, target)
            if content is None:
                _unpack(bundle, target)
                content = _read_whole(bundle, target)
    except OSError as error:
        raise BundleError(
            f"The bundle {bundle.path} cannot be unpacked. {not_writable(target.parent, error)}"
        ) from error
    if content is None:
        raise BundleError(f"The files unpacked into {target} cannot be read back; is the disk full?")
    return Unpacked(target, content)


def _read_whole(bundle: Bundle, folder: Path) -> dict[str, bytes] | None:
    """Read each file once; None if one is missing or differs from the bundle's."""
    content: dict[str, bytes] = {}
    for member in bundle.members:
        try:
            content[member.name] = (folder / member.name).read_bytes()
        except OSError:
            return None
        if bytes_sha256(content[member.name]) != member.sha256:
            return None
    return content


def _unpack(bundle: Bundle, target: Path) -> None:
    sweep(target.parent)
    with filling(target) as unfinished:
        for folder in {Path(member.name).parent for member in bundle.members}:
            (unfinished / folder).mkdir(exist_ok=True)
        with bundle.path.open("rb") as file:
            for member in bundle.members:
                _copy(file, member, unfinished / member.name, bundle.path)
        if target.exists():
            shutil.rmtree(target)


def _copy(file: BinaryIO, member: Member, target: Path, path: Path) -> None:
    file.seek(member.offset)
    digest, left = hashlib.sha256(), member.size
    with target.open("wb") as out:
        while left and (chunk := file.read(min(left, COPY_BYTES))):
            out.write(chunk)
            digest.update(chunk)
            left -= len(chunk)
    if digest.hexdigest() != member.sha256:
        raise BundleError(f"{path} changed while it was unpacked; start again.")
