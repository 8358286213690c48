"""`Served`: the models of one process, which share one backbone and its forward pass; how new versions are noticed.

Nothing here changes what answers: `refreshed` returns another `Served`, with the versions that a folder of models
holds now, each read and checked. A version that cannot be used is logged once, and the one before it stays.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ModelUnavailable, OwnModelError, UnknownModel, WeightsError
from ..parsers import is_model_file
from ..processes.plan import make_plan
from ..settings import Settings
from . import Model, load_model, with_own
from .artifact import Prepared
from .engines import DeviceClient, Inference
from .graphs import EngineOnUse, Graphs
from .opening import open_serving
from .own_format import FILES, TRUNK, OwnModel
from .own_models import list_names, read_version, version_in_use
from .records import FILE, RECORDS, TIMM, find_record
from .tuned import ensure_tuned, on_use, open_tuned, record_of_table

log = logging.getLogger(__name__)

# Beyond these, by the order of names, models are not served: each takes memory and a label of metrics.
MAX_MODELS = 100

# The version in use, and inode, size and time of each of its files; anything that is written changes it.
Stamp = tuple[object, ...]
_GONE: Stamp = ("removed",)
_CARRIED: Stamp = ("carried over",)


@dataclass(frozen=True)
class Slot:
    """One name: the model that answers, None if there is no usable one yet, and the stamp that was last read.

    A model of a bundle has no stamp, and is never read again.
    """

    model: Model | None
    stamp: Stamp | None = None

    @property
    def is_bundled(self) -> bool:
        """Return whether the model came in a bundle."""
        return self.model is not None and self.stamp is None


@dataclass(frozen=True)
class Tuned:
    """How fine-tuned models are opened, and those of them that are open."""

    settings: Settings
    graphs: Graphs

    @classmethod
    def from_settings(cls, settings: Settings) -> Tuned:
        """Create what opens fine-tuned models within the memory of the plan; nothing is open yet."""
        return cls(settings, Graphs(make_plan(settings).graph_memory_bytes))


@dataclass(frozen=True)
class Served:
    """A backbone with its published head, the heads on it by name, and which of them answers by default.

    `root` is the folder of models, None without one. An empty `default` is the backbone's own head. `trouble` is what
    was last logged about the folder as a whole. Fine-tuned models are not heads on the backbone: each has an engine of
    its own, which `tuned` opens on use; without that none answers. If one is the default, it is the backbone too.
    """

    backbone: Model
    root: Path | None = None
    default: str = ""
    slots: Mapping[str, Slot] = field(default_factory=dict)
    trouble: str = ""
    tuned: Tuned | None = None

    @property
    def has_default(self) -> bool:
        """Return whether the default model is usable."""
        return not self.default or self.slots.get(self.default, Slot(None)).model is not None

    @property
    def models(self) -> dict[str, Model]:
        """Return all models that answer, by name; the default one comes first."""
        found = {self.backbone.name: self.backbone}
        found |= {name: slot.model for name, slot in self.slots.items() if slot.model is not None}
        first = self.default or self.backbone.name
        return {name: found[name] for name in sorted(found, key=lambda name: (name != first, name))}

    @property
    def default_model(self) -> Model:
        """Return the model that answers if a request names none; `refreshed` ensures that there is one."""
        return self.models[self.default or self.backbone.name]

    def find(self, name: str) -> Model:
        """Return the model of a name; raises UnknownModel with the nearest names."""
        models = self.models
        if name in models:
            return models[name]
        near = difflib.get_close_matches(name, models, n=3, cutoff=0.5)
        advice = f"Did you mean {' or '.join(near)}?" if near else "GET /api/v1/models lists all."
        raise UnknownModel(f"There is no model named '{name[:64]}'. {advice}")


def own_default(settings: Settings) -> str:
    """Return the name of TOPTHREE_MODEL if it is that of a model of one's own, else an empty text."""
    is_other = settings.model in RECORDS or settings.model.startswith(TIMM) or is_model_file(settings.model)
    return "" if is_other else settings.model


def read_own_default(settings: Settings, version: int | None = None) -> OwnModel | None:
    """Read the model of one's own that TOPTHREE_MODEL names, None if it names a published one or nothing.

    It is read in the version that is in use, unless another is given. Raises OwnModelError if the model cannot be
    read, and WeightsError if no model has the name.
    """
    name = own_default(settings)
    if not name:
        return None
    names = list_names(settings.models) if settings.models else []
    if settings.models is None or name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        if not near:
            find_record(name)  # which raises the reason
        raise OwnModelError(f"There is no model named {name!r} for TOPTHREE_MODEL. Did you mean {' or '.join(near)}?")
    return read_version(settings.models, name, version)


def on_backbone(settings: Settings) -> Settings:
    """Return the settings with the backbone in place of a model of one's own that TOPTHREE_MODEL names.

    A bundle has its own backbone. Raises what `read_own_default` raises, and OwnModelError for a backbone that is not
    known, or that is a file.
    """
    own = None if settings.bundle else read_own_default(settings)
    if own is None:
        return settings
    if own.backbone.startswith(FILE):
        raise OwnModelError(
            f"{own.name} is a head on the model file {own.backbone.removeprefix(FILE)}: set TOPTHREE_MODEL to that "
            f"file, start the service, and choose the head with ?model={own.name}."
        )
    if not own.backbone.startswith(TIMM):
        record_of_table(own)
    return dataclasses.replace(settings, model=own.backbone)


def open_default(settings: Settings) -> Prepared:
    """Open the prepared model on whose features the default model answers; raises what `load_served` raises."""
    own = None if settings.bundle else read_own_default(settings)
    if own is not None and own.trunk is not None:
        return ensure_tuned(settings, own)
    return open_serving(on_backbone(settings))


def load_served(settings: Settings, device: DeviceClient | None = None) -> Served:
    """Load the backbone, and the head of its bundle if there is one; `refreshed` adds the models of the folder.

    With a `device`, torch's engine is in its process; a fine-tuned model has its own engine here.
    """
    tuned, default = Tuned.from_settings(settings), own_default(settings)
    own = None if settings.bundle else read_own_default(settings)
    if own is not None and own.trunk is not None:
        backbone = open_tuned(settings, own)
        return Served(backbone, settings.models, default, {own.name: Slot(backbone, _CARRIED)}, tuned=tuned)
    backbone, bundled = load_model(on_backbone(settings), device)
    if bundled is None:
        return Served(backbone, settings.models, default, tuned=tuned)
    default = default or ("" if settings.model else bundled.name)
    model = backbone if bundled.trunk else bound(bundled, backbone)
    return Served(backbone, settings.models, default, {bundled.name: Slot(model)}, tuned=tuned)


def carried_over(fresh: Served, old: Served | None) -> Served:
    """Return the newly loaded models with those of the old ones added that are fine-tuned or fit the new backbone.

    Their versions are all read again by `refreshed`; those that cannot be used then stay as they are.
    """
    slots = dict(fresh.slots)
    for name, slot in old.slots.items() if old else ():
        own = slot.model.own if slot.model else None
        if own is None or name in slots or slot.is_bundled:
            continue
        if own.trunk is not None and fresh.tuned is not None:
            slots[name] = Slot(on_use(fresh.tuned.settings, own, fresh.tuned.graphs), _CARRIED)
        elif own.trunk is None and own.weights_sha256 == fresh.backbone.weights.sha256:
            slots[name] = Slot(bound(own, fresh.backbone), _CARRIED)
    return dataclasses.replace(fresh, slots=slots)


def refreshed(served: Served, known: Callable[[], Inference]) -> Served:
    """Return the models that the folder holds now; the same object if nothing has changed.

    `known` computes the known photo; it is called only if there is a version to check. Raises OwnModelError, and what
    `known` raises, as long as the default model was never usable.
    """
    try:
        slots, trouble = _look(served, known)
    except (OwnModelError, WeightsError, ModelUnavailable) as error:
        if not served.has_default:
            raise
        slots, trouble = served.slots, str(error)
    if trouble and trouble != served.trouble:
        log.error("Models of one's own: %s", trouble)
    found = dataclasses.replace(served, backbone=_backbone(served, slots), slots=slots, trouble=trouble)
    if not found.has_default:
        raise OwnModelError(f"There is no model named {served.default} in {served.root or 'any folder'}.")
    if trouble == served.trouble and _is_same(slots, served.slots):
        return served
    if found.tuned is not None:
        engines = (model.engine for model in found.models.values())
        found.tuned.graphs.keep_only({engine.key for engine in engines if isinstance(engine, EngineOnUse)})
    return found


def _backbone(served: Served, slots: Mapping[str, Slot]) -> Model:
    """Return the backbone: the same one, unless it is a fine-tuned model of which there is a new version."""
    newest = slots.get(served.default, Slot(None)).model
    is_tuned = served.backbone.own is not None and newest is not None and newest.own is not None and newest.own.trunk
    return newest if is_tuned and newest is not None else served.backbone


def _look(served: Served, known: Callable[[], Inference]) -> tuple[Mapping[str, Slot], str]:
    """Return the slots as the folder holds them now, and a sentence on the folder as a whole if it has a fault."""
    root = served.root
    if root is None:
        return served.slots, ""
    if not all(slot.is_bundled for slot in served.slots.values()) and not os.path.isdir(root):
        raise OwnModelError(f"The folder {root} is gone; the models that were loaded still answer.")
    names = sorted(list_names(root), key=lambda name: (name != served.default, name))
    slots = _remaining(served, names)
    remembered = functools.cache(known)
    for name in names[:MAX_MODELS]:
        old = served.slots.get(name, Slot(None))
        stamp = _stamp(root, name)
        if stamp != old.stamp and not old.is_bundled:
            slots[name] = Slot(_replacement(served, name, remembered), stamp)
    too_many = f"{root} holds {len(names)} models, and only the first {MAX_MODELS} of them answer."
    return slots, too_many if len(names) > MAX_MODELS else ""


def _remaining(served: Served, names: Sequence[str]) -> dict[str, Slot]:
    """Return the slots without those of models that were removed; the default one answers until the process ends."""
    slots = dict(served.slots)
    for name in served.slots.keys() - set(names):
        slot = slots[name]
        if name == served.default and slot.stamp != _GONE and not slot.is_bundled:
            log.error("The model %s was removed; it still answers, since it is the default.", name)
            slots[name] = Slot(slot.model, _GONE)
        elif name != served.default and not slot.is_bundled:
            log.info("The model %s was removed.", name)
            del slots[name]
    return slots


def _stamp(root: Path, name: str) -> Stamp:
    try:
        version = version_in_use(root, name)
        folder = root / name / str(version)
        facts = [os.stat(folder / file) for file in FILES]
        facts += [os.stat(folder / TRUNK)] if (folder / TRUNK).exists() else []
    except (OwnModelError, OSError) as error:  # reading it says the same, and is logged once for this stamp
        return (str(error),)
    return (version, *((each.st_ino, each.st_size, each.st_mtime_ns) for each in facts))


def _replacement(served: Served, name: str, known: Callable[[], Inference]) -> Model | None:
    """Read and check the version of a model that is in use now; if it fails, log why and return the one before."""
    assert served.root is not None
    old = served.slots.get(name, Slot(None)).model
    try:
        own = read_version(served.root, name)
        if own.trunk is None:
            model = bound(own, served.backbone)
            _check(model, known())
        else:
            model = _tuned(served, own, old)
    except (OwnModelError, WeightsError) as error:
        if name == served.default and old is None:
            raise
        log.error("The model %s %s: %s", name, "stays as it was" if old else "does not answer", error)
        return old
    if old is None or old.fingerprint != model.fingerprint:
        before = f" in place of version {old.version}" if old else ""
        log.info("The model %s answers in version %d%s.", name, model.version, before)
    return model


def _tuned(served: Served, own: OwnModel, old: Model | None) -> Model:
    """Return a fine-tuned model, which is opened and so checked now if it answers by default or replaces a version.

    Raises OwnModelError and WeightsError.
    """
    if old is not None and old.own is not None and _identity(old.own) == _identity(own):
        return old
    if served.tuned is None:
        raise OwnModelError(f"version {own.version} is a fine-tuned model, which cannot be opened here.")
    try:
        if own.name == served.default:
            return open_tuned(served.tuned.settings, own)
        model = on_use(served.tuned.settings, own, served.tuned.graphs)
        if old is not None:
            assert isinstance(model.engine, EngineOnUse)
            model.engine.open()
    except (RuntimeError, OSError, ValueError, ImportError) as error:  # of engines
        raise OwnModelError(f"it cannot be opened: {error}") from error
    except ModelUnavailable as error:
        raise OwnModelError(error.reason) from error
    return model


def _identity(own: OwnModel) -> tuple[object, ...]:
    return own.name, own.version, own.trunk, own.sha256, own.labels, own.calibration


def bound(own: OwnModel, backbone: Model) -> Model:
    """Put a head on the backbone, in place of any other; raises OwnModelError if it was made for another backbone."""
    if own.weights_sha256 != backbone.weights.sha256:
        raise OwnModelError(
            f"version {own.version} is a head on {own.backbone} (SHA-256 {own.weights_sha256[:12]}…), and the "
            f"backbone here is {backbone.name} (SHA-256 {backbone.weights.sha256[:12]}…): set TOPTHREE_MODEL to "
            f"{own.name}, or train it on this backbone."
        )
    return with_own(backbone, own)


def _check(model: Model, known: Inference) -> None:
    """Check how a head classifies the known photo; raises OwnModelError."""
    assert model.own is not None
    channels = known.features.shape[1]
    if model.own.weight.shape[1] != channels:
        raise OwnModelError(
            f"its head takes {model.own.weight.shape[1]} channels, and {model.own.backbone} has {channels}."
        )
    if not np.isfinite(model.logits(known)).all():
        raise OwnModelError("it gives no finite number for each class of the known photo.")


def _is_same(first: Mapping[str, Slot], second: Mapping[str, Slot]) -> bool:
    return first.keys() == second.keys() and all(first[name] is second[name] for name in first)
