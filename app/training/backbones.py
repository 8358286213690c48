"""Which backbone a head is learnt on: the one that serves, one that is named, or the best of those at hand."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import TopthreeError
from ..model import Model, load_model
from ..model.records import DEFAULT_NAME, RECORDS
from ..model.served import on_backbone
from ..model.weights import cached_candidates
from ..parsers import is_model_file
from ..settings import Settings
from .embeddings import embed
from .findings import Findings, examine
from .fitting import choose_strength
from .photosets import PhotoSet, PhotoSetError

AUTO = "auto"

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Chosen:
    """A backbone with what was found in the photos by it; `compared` has the left-out share of each that was tried."""

    model: Model
    settings: Settings
    findings: Findings
    compared: dict[str, float]


def choose(photo_set: PhotoSet, settings: Settings, name: str | None, step: Step) -> Chosen:
    """Embed the photos by the backbone `name`, by default that of the settings, or by the best one for `auto`.

    Raises what `load_model` and `examine` raise.
    """
    if name != AUTO:
        return _use(photo_set, settings if name is None else settings.of_model(name), step)
    tried = []
    for candidate in _candidates(settings):
        chosen = _use(photo_set, candidate, step)
        _, share, _ = choose_strength(chosen.findings.task)
        tried.append((share, chosen))
    best = max(tried, key=lambda pair: pair[0])[1]
    return dataclasses.replace(best, compared={found.model.weights.record.name: share for share, found in tried})


def _candidates(settings: Settings) -> list[Settings]:
    """Return the settings of each backbone whose weights are here: nothing is downloaded."""
    packaged = [
        settings.of_model(record.name)
        for record in RECORDS.values()
        if record.package and importlib.util.find_spec(record.package)
    ]
    if settings.weights or settings.bundle or is_model_file(settings.model):
        return [settings, *packaged]
    resnet = settings.of_model(DEFAULT_NAME)
    is_at_hand = any(found.path.exists() for found in cached_candidates(resnet))
    return [resnet, *packaged] if is_at_hand else packaged


def _use(photo_set: PhotoSet, settings: Settings, step: Step) -> Chosen:
    try:
        settings = on_backbone(settings)
        model, _ = load_model(settings)
    except TopthreeError:
        raise
    except (RuntimeError, OSError, ValueError, ImportError) as error:  # of engines
        raise PhotoSetError(f"The backbone cannot be loaded: {error}") from error
    name = model.weights.record.name
    embedded = embed(photo_set, model, settings, lambda done, total: step(f"Embedding by {name}", done, total))
    findings = examine(
        embedded, photo_set.classes, lambda done, total: step(f"Comparing photos by {name}", done, total)
    )
    return Chosen(model, settings, findings, {})
