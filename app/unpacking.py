"""Which prepared model serves: a bundle's, unpacked once into the cache, or the one made here."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from .bundles import COPY_BYTES, LABELS, MODEL, Bundle, Member, read_bundle
from .digests import file_sha256
from .errors import BundleError
from .prepared import MANIFEST, Manifest, Prepared, ensure_prepared, precision_family
from .settings import Settings
from .weights import Weights

FALLBACK_REASON = "The bundle was made of the packaged model, since ResNet-18 could not be had."


def open_serving(settings: Settings) -> Prepared:
    """Open what serves: the bundle, where TOPTHREE_BUNDLE names one, else the prepared model, made if need be."""
    return open_bundle(settings.bundle, settings) if settings.bundle else ensure_prepared(settings)


def open_bundle(path: Path, settings: Settings) -> Prepared:
    """Verify a bundle and open what lies unpacked in the cache, after unpacking it where it does not.

    Raises BundleError, in one sentence, where it is damaged, does not suit the settings or this installation, or
    cannot be unpacked.
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
    folder = unpack(bundle, settings.cache)
    manifest = Manifest(**json.loads((folder / MODEL / MANIFEST).read_text(encoding="utf-8")))
    assert bundle.record is not None
    reason = FALLBACK_REASON if made.fallback else ""
    weights = Weights(path, made.weights_sha256, bundle.record, "bundle", reason)
    return Prepared(folder / MODEL, manifest, weights, labels=folder / LABELS)


def unpack(bundle: Bundle, cache: Path) -> Path:
    """Return the folder of the cache that holds the bundle's files, unpacked and verified.

    Of several processes that come at once, one unpacks and the others wait; nobody ever sees half of it. Nothing is
    written where it lies there whole already. Raises BundleError where the cache cannot be written.
    """
    target = cache / "bundles" / bundle.sha256
    if _is_whole(bundle, target):
        return target
    from filelock import FileLock  # takes 20 ms to import, and is needed once

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock"):
            if not _is_whole(bundle, target):
                _unpack(bundle, target)
    except OSError as error:
        raise BundleError(
            f"The bundle {bundle.path} cannot be unpacked into {target.parent}: {error.strerror or error}. "
            "Set TOPTHREE_CACHE to a folder that can be written and has room for it."
        ) from error
    return target


def _is_whole(bundle: Bundle, folder: Path) -> bool:
    try:
        return all(file_sha256(folder / member.name) == member.sha256 for member in bundle.members)
    except OSError:
        return False


def _unpack(bundle: Bundle, target: Path) -> None:
    for left in target.parent.glob(".unfinished-*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
    try:
        unfinished.chmod(0o755)
        (unfinished / MODEL).mkdir()
        with bundle.path.open("rb") as file:
            for member in bundle.members:
                _copy(file, member, unfinished / member.name, bundle.path)
        if target.exists():
            shutil.rmtree(target)
        os.rename(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _copy(file: BinaryIO, member: Member, target: Path, path: Path) -> None:
    file.seek(member.offset)
    with target.open("wb") as out:
        left = member.size
        while left and (chunk := file.read(min(left, COPY_BYTES))):
            out.write(chunk)
            left -= len(chunk)
    if file_sha256(target) != member.sha256:
        raise BundleError(f"{path} changed while it was unpacked; start again.")
