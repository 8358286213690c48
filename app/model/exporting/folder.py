"""The folder of an exported model: its file, a README and an example, written only if the file computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...errors import TopthreeError
from ...writing import filling
from ..engines import Pixels
from ..facts import Facts
from ..heads import Floats
from ..probabilities import softmax
from .files import LOAD, WRITE, Run, infer
from .formats import FORMATS
from .texts import example, readme

MAX_PROBABILITY_ERROR = 0.002
MAX_EMBEDDING_ERROR = 0.01


class ExportRefused(TopthreeError):
    """The exported file is not written: it computes something else, or its folder cannot be made."""


def export_network(network: nn.Module, facts: Facts, crops: Pixels, to: str, target: Path) -> float:
    """Write a folder with a network in a format, and return the largest error of a probability on the crops.

    `network` maps uint8 RGB (n, side, side, 3) to logits (n, classes) and an embedding (n, C), in eval mode; `to` is
    a key of `FORMATS`. Raises ExportRefused, and writes nothing, if a crop has another first class than in torch, a
    probability that differs by more than 0.002, or an embedding that differs by more than 1% of its largest number.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportRefused(f"{target} exists already; name a new or empty folder with --output.")
    chosen, side = FORMATS[to], facts.geometry.crop
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        with filling(target) as folder:
            # A batch of 1 would be taken for a constant.
            pixels = torch.zeros((2, side, side, 3), dtype=torch.uint8)
            file = folder / chosen.file
            WRITE[to](network, pixels, facts.to_json(), file)
            error_found = _compare(lambda crop: infer(network, crop), LOAD[to](file), file.name, crops)
            (folder / "README.txt").write_text(readme(facts, chosen), encoding="utf-8")
            (folder / "classify.py").write_text(example(chosen), encoding="utf-8")
    except OSError as error:
        raise ExportRefused(f"{target} cannot be written: {error.strerror or error}.") from error
    return error_found


def _compare(original: Run, exported: Run, file: str, crops: Pixels) -> float:
    """Return the largest error of a probability; raises ExportRefused if the answers are not the network's."""
    if exported(crops[:2])[0].shape != original(crops[:2])[0].shape:
        raise ExportRefused(f"{file} does not compute batches; nothing was written.")
    (logits, embeddings), (found, others) = _all(original, crops), _all(exported, crops)
    largest = compare_logits(logits, found, file)
    compare_embeddings(embeddings, others, file)
    return largest


def compare_logits(original: Floats, exported: Floats, file: str) -> float:
    """Return the largest error of a probability, from logits (n, classes); raises ExportRefused if it is too large."""
    others = int((original.argmax(axis=1) != exported.argmax(axis=1)).sum())
    if others or original.shape != exported.shape:
        raise ExportRefused(
            f"{file} gives another first class than torch for {others} of {len(original)} crops; nothing was written."
        )
    largest = float(np.abs(softmax(original) - softmax(exported)).max())
    if not largest <= MAX_PROBABILITY_ERROR:
        raise ExportRefused(
            f"{file} gives probabilities that differ from torch's by up to {largest:.4f}, more than "
            f"{MAX_PROBABILITY_ERROR}; nothing was written."
        )
    return largest


def compare_embeddings(original: Floats, exported: Floats, file: str) -> None:
    """Compare embeddings (n, C); raises ExportRefused if they are of other shapes or differ too much."""
    same = original.shape == exported.shape
    if not same or not np.abs(original - exported).max() <= MAX_EMBEDDING_ERROR * np.abs(original).max():
        raise ExportRefused(f"{file} gives other embeddings than torch; nothing was written.")


def _all(run: Run, crops: Pixels) -> tuple[Floats, Floats]:
    logits, embeddings = zip(*(run(crop[None]) for crop in crops), strict=True)
    return np.concatenate(logits), np.concatenate(embeddings)
