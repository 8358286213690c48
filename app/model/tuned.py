"""Fine-tuned models: their weights file as one that is prepared, and the engine that is made of it.

OpenVINO computes them on a CPU, also beside a backbone that has another engine.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

import numpy as np

from ..errors import OwnModelError
from ..processes.plan import graph_bytes, make_plan
from ..settings import Settings
from . import Model, load_prepared, with_own
from .artifact import Found, Prepared, artifacts_with_records, find_or_prepare, open_prepared
from .engines import choose_precision
from .graphs import EngineOnUse, Graphs, Opener
from .labels import write_labels
from .own_format import OwnModel
from .records import RECORDS, TIMM, ModelRecord
from .weights import Weights, key_of

log = logging.getLogger(__name__)

SOURCE = "fine-tuned model"
_PRECISIONS = ("fp32", "bf16", "int8", "auto")


def tuned_settings(settings: Settings, own: OwnModel) -> Settings:
    """Return the settings that prepare a fine-tuned model; the backbone that serves beside it does not matter."""
    precision = settings.precision if settings.precision in _PRECISIONS else "fp32"
    return settings.of_model(own.name, engine="openvino", precision=precision)


def tuned_weights(own: OwnModel, record: ModelRecord) -> Weights:
    """Return a fine-tuned model's weights file as one to prepare; `record` is that of the backbone it was made of.

    A record of timm loses its address, so that the prepared model is not taken for one of the published weights.
    """
    assert own.trunk is not None
    assert own.trunk.path is not None
    if record.name.startswith(TIMM):
        record = dataclasses.replace(record, source="")
    return Weights(own.trunk.path, own.trunk.sha256, record, SOURCE, head_sha256=own.sha256)


def identify_tuned(settings: Settings, own: OwnModel) -> Weights:
    """Return a fine-tuned model's weights with their record, which for a model of timm only the artifact has.

    That is prepared first if there is none. Raises WeightsError, and OwnModelError for a backbone that is not known.
    """
    return tuned_weights(own, _prepared(settings, own, lambda: _find_record(settings, own)))


def _find_record(settings: Settings, own: OwnModel) -> ModelRecord | None:
    if not own.backbone.startswith(TIMM):
        return record_of_table(own)
    assert own.trunk is not None
    key = key_of(own.trunk.sha256, own.sha256)
    found = artifacts_with_records(tuned_settings(settings, own), own.backbone, key[:16])
    return next((record for _, digest, record in found if digest == own.trunk.sha256), None)


def record_of(own: OwnModel) -> ModelRecord:
    """Return the record of the backbone that a fine-tuned model was made of, where torch is installed.

    Raises OwnModelError for a backbone that is not known, and WeightsError for a model of timm without timm.
    """
    if own.backbone.startswith(TIMM):
        from .backbones.timm_family import timm_record  # which imports torch

        return timm_record(own.backbone)
    return record_of_table(own)


def record_of_table(own: OwnModel) -> ModelRecord:
    """Return the record of a model's backbone; raises OwnModelError for one that is not in the table."""
    if own.backbone not in RECORDS:
        raise OwnModelError(
            f"version {own.version} of {own.name} was made of {own.backbone}, "
            "which this version of topthree does not have."
        )
    return RECORDS[own.backbone]


def ensure_tuned(settings: Settings, own: OwnModel) -> Prepared:
    """Open the artifact of a fine-tuned model; if there is none, prepare it first in a process of its own.

    Raises WeightsError with the reason if there can be none, and OwnModelError for a backbone that is not known.
    """
    weights = identify_tuned(settings, own)
    prepared = _prepared(settings, own, lambda: open_prepared(tuned_settings(settings, own), weights))
    return dataclasses.replace(prepared, own=own, labels=write_labels(own.labels))


def _prepared(settings: Settings, own: OwnModel, find: Callable[[], Found | None]) -> Found:
    """Return what `find` finds of a fine-tuned model's artifact; if that is None, prepare the artifact first."""
    name, version = f"version {own.version} of {own.name}", str(own.version)
    return find_or_prepare(find, tuned_settings(settings, own), name, "--version", version)


def on_use(settings: Settings, own: OwnModel, graphs: Graphs) -> Model:
    """Return a fine-tuned model whose graph is opened when it is needed.

    A model of timm that is not prepared is prepared now, since only that shows which crop it takes. Raises what
    `identify_tuned` raises.
    """
    weights = identify_tuned(settings, own)
    assert own.trunk is not None
    size_bytes = graph_bytes(make_plan(settings), own.trunk.size_bytes)
    opener = Opener(weights.key, own.name, size_bytes, lambda: open_tuned(settings, own).engine)
    precision = choose_precision(tuned_settings(settings, own).precision)
    engine = EngineOnUse(graphs, opener, precision)
    return with_own(Model(engine, own.labels, weights), own)


def open_tuned(settings: Settings, own: OwnModel) -> Model:
    """Load a fine-tuned model into an engine of its own and check it.

    Raises OwnModelError and WeightsError with the reason, and what engines raise.
    """
    prepared = ensure_tuned(settings, own)
    model = with_own(load_prepared(tuned_settings(settings, own), prepared), own)
    _check(model, own)
    log.info("Loaded version %d of %s, fine-tuned from %s.", own.version, own.name, own.backbone)
    return model


def _check(model: Model, own: OwnModel) -> None:
    """Check the graph's results for a crop of noise; raises OwnModelError."""
    side = model.weights.record.geometry.crop
    crop = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    for alone in (True, False):
        found = model.engine.infer(crop, alone=alone)
        if found.features.shape[1] != own.weight.shape[1]:
            raise OwnModelError(
                f"its head takes {own.weight.shape[1]} channels, and its weights give {found.features.shape[1]}."
            )
        if not np.isfinite(found.logits).all() or not np.isfinite(model.logits(found)).all():
            raise OwnModelError("it gives no finite number for each of its classes.")
