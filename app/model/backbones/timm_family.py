"""Models of timm, by its names: their records, their weights from the Hugging Face hub, and how they are divided.

timm is needed to prepare such a model, never to serve it.
"""

from __future__ import annotations

import difflib
import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import WeightsError
from ...photos.decoding import Geometry
from ...photos.protocol import INTERPOLATIONS, MAX_CROP_SIDE
from ..digests import file_sha256
from ..records import TIMM, ModelRecord
from ..weights import Weights
from .families import Family, Parts

_FILE_NAME = "model.safetensors"


class _Features(nn.Module):
    """The part of a network of timm up to its last feature map."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, normalised: torch.Tensor) -> torch.Tensor:
        """Map normalised pixels (n, 3, side, side) to features (n, C, h, w)."""
        features: torch.Tensor = self.network.forward_features(normalised)
        return features


class _Head(nn.Module):
    """The part of a network of timm after its last feature map."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features (n, C, h, w) to logits (n, classes)."""
        logits: torch.Tensor = self.network.forward_head(features)
        return logits


def timm_record(name: str) -> ModelRecord:
    """Build the record of a model of timm from its configuration there; `name` begins with `timm/`.

    Raises WeightsError, in one sentence, if timm is missing or does not have it, or if it needs other photos.
    """
    config = _config(name)
    side = config.input_size[1]
    resize = math.floor(side / config.crop_pct)
    if config.input_size != (3, side, side) or config.crop_mode != "center" or resize > MAX_CROP_SIDE:
        raise WeightsError(f"{name} needs photos of another shape than RGB squares of at most {MAX_CROP_SIDE} pixels.")
    if config.interpolation not in INTERPOLATIONS:
        raise WeightsError(
            f"{name} needs photos resized by {config.interpolation}, not {' or '.join(INTERPOLATIONS)}."
        )
    if not isinstance(config.classifier, str):
        raise WeightsError(f"{name} has more than one classifier.")
    return ModelRecord(
        name=name,
        family="timm",
        source=f"https://huggingface.co/{config.hf_hub_id}/{config.hf_hub_filename or _FILE_NAME}",
        sha256="",
        size_bytes=0,
        size_slack=0,
        parameters=0,
        licence=config.license or "",
        mean=_levels(config.mean),
        std=_levels(config.std),
        top1=None,
        top5=None,
        temperature=None,
        geometry=Geometry(resize, side, config.interpolation),
    )


def cached_timm(record: ModelRecord) -> Weights | None:
    """Return the weights of a model of timm in the hub's own cache, None if they are not there; never downloads."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(*_place(record))
    return Weights(Path(found), file_sha256(Path(found)), record, "hub") if isinstance(found, str) else None


def timm_weights(record: ModelRecord) -> Weights:
    """Download the weights of a model of timm into the hub's own cache, unless they are cached."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils.logging import set_verbosity

    set_verbosity(logging.ERROR)  # it reports each attempt to connect, and the sentence below says how they end
    try:
        path = Path(hf_hub_download(*_place(record)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0].rstrip(".")
        raise WeightsError(
            f"The weights of {record.name} cannot be downloaded: {reason}. Set TOPTHREE_WEIGHTS to a file."
        ) from error
    return Weights(path, file_sha256(path), record, "hub")


def _place(record: ModelRecord) -> tuple[str, str]:
    """Return the repository of the hub and the file in it."""
    repository, _, file_name = record.source.removeprefix("https://huggingface.co/").rpartition("/")
    return repository, file_name


def timm_family(record: ModelRecord) -> Family:
    """Return how a model of timm is built and divided."""
    config = _config(record.name)
    build = partial(_build, _timm_name(record.name))
    return Family(build, config.classifier, _split, builds_empty=False)


def _split(network: Any) -> Parts:
    if not hasattr(network, "forward_features") or not hasattr(network, "forward_head"):
        raise WeightsError("This model of timm cannot be divided into feature map and head.")
    return Parts(_Features(network), _Head(network))


def _build(name: str, _: str, classes: int) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    return network


def _timm_name(name: str) -> str:
    return name.removeprefix(TIMM)


def _config(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise WeightsError(f"{name} needs timm to be prepared: pip install 'topthree[timm]'") from error
    try:
        return timm.get_pretrained_cfg(_timm_name(name), allow_unregistered=False)
    except RuntimeError as error:
        near = _nearest(_timm_name(name), timm.list_models(pretrained=True))
        advice = f" Did you mean {' or '.join(TIMM + each for each in near)}?" if near else ""
        raise WeightsError(f"timm has no model named {_timm_name(name)}.{advice}") from error


def _nearest(name: str, known: list[str]) -> list[str]:
    """Return the names of other weights of the same architecture, else the most similar names."""
    architecture = name.partition(".")[0]
    others = [each for each in known if each.partition(".")[0] == architecture]
    return others[:3] or difflib.get_close_matches(name, known, n=3, cutoff=0.5)


def _levels(values: Any) -> tuple[float, float, float]:
    red, green, blue = (255 * float(value) for value in values)
    return red, green, blue
