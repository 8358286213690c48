"""`Classifier`: photos in, predictions out; loads its models once per process, on first use."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from .errors import ModelUnavailable, Overloaded, Problem, TopthreeError
from .model import KNOWN_PHOTO, KNOWN_PIXELS, Model, check_model
from .model.engines import DeviceClient, DeviceEngine, Inference, Pixels
from .model.engines.frames import DeviceOutputs
from .model.graphs import MAX_WAIT_SECONDS
from .model.heads import Floats
from .model.loading import Models
from .model.served import Served, load_served
from .model.verdicts import DEFAULT_OUTPUTS, Outputs, Verdict, verdict_of
from .photos.decoders import Checked, Decoded, Decoders
from .photos.decoding import Geometry
from .photos.protocol import Wanted
from .processes.device import Device
from .processes.plan import SPARE_SLOTS, make_plan
from .queueing.computing import MAX_BATCH, Computing, crop_of
from .queueing.lanes import Lanes
from .queueing.scheduling import NO_DEADLINE, Deadline, Slots
from .settings import Settings
from .telemetry import metrics, traces

# The known photo may take this long, including the wait for a slot, before the check fails.
CHECK_SECONDS = 20.0
DOUBT_SECONDS = 10.0


@dataclass(frozen=True)
class Answer(Verdict):
    """The verdict of the first model that was asked for, facts about the image, and each stage's duration in seconds.

    `image` holds width, height, format and SHA-256 as answers show them and, if heat maps were asked for, the crop
    that they cover. `thumbnail` is uint8 RGB of shape (height, width, 3), and `embedding` float32 (C), the spatial
    mean of the features, if they were asked for; so are `logits`, float32 (classes). `batch_size` is the number of
    photos that were computed together. `others` are the verdicts of further models that were asked for.
    """

    image: dict[str, Any]
    thumbnail: Pixels | None
    embedding: Floats | None
    logits: Floats | None
    decode_seconds: float
    queue_seconds: float
    infer_seconds: float
    batch_size: int
    others: list[Verdict]


class Classifier:
    """The models of a process, on one backbone; `load` loads it on first use, and again on the next if it fails."""

    def __init__(self, load: Callable[[], Served], decoders: Decoders, *, cpus: int = 1) -> None:
        self._models = Models(load, self._known)
        self._cpus = cpus
        self._decoders = decoders
        self.slots = Slots(cpus + SPARE_SLOTS)
        self._computing = Computing(Lanes(self.slots, decoders))
        self._device: DeviceClient | None = None
        self._last_success = 0.0
        self._asked_since = False

    @classmethod
    def from_settings(cls, settings: Settings, *, max_bytes: int | None = None) -> Classifier:
        """Create the classifier of the settings; its model is loaded and its decoders start on first use.

        Photos may have up to `max_bytes`, by default as many as an upload.
        """
        plan = make_plan(settings)
        decoders = Decoders(
            plan.decoders, max_bytes=max_bytes or settings.max_upload_bytes, memory_bytes=plan.photo_memory_bytes
        )
        classifier = cls(lambda: load_served(settings, classifier._device), decoders, cpus=plan.cpus_per_worker)
        return classifier

    def connect(self, device: Device) -> None:
        """Compute in a device process from now on; to be called before the model is loaded."""
        self._device = DeviceClient(device)

    @property
    def is_connected(self) -> bool:
        """Return whether the device process lives; True if the default model is not in one."""
        model = self.loaded_model
        needs_device = model is not None and isinstance(model.engine, DeviceEngine)
        return not needs_device or (self._device is not None and self._device.is_connected)

    def load_model(self) -> Model:
        """Return the default model, loading it first if necessary; raises ModelUnavailable with the reason."""
        return self._models.get().default_model

    def find_models(self, names: Sequence[str]) -> list[Model]:
        """Return the models of these names, or the default one if there are no names, loading them first if necessary.

        Raises UnknownModel for a name that no model has, and ModelUnavailable with the reason.
        """
        served = self._models.get()
        return [served.find(name) for name in names] or [served.default_model]

    @property
    def loaded_model(self) -> Model | None:
        """Return the default model if it is loaded; never loads it."""
        loaded = self._models.loaded
        return loaded.default_model if loaded else None

    @property
    def loaded_models(self) -> list[Model]:
        """Return all models that answer, the default one first; never loads them."""
        loaded = self._models.loaded
        return list(loaded.models.values()) if loaded else []

    @property
    def failure(self) -> ModelUnavailable | None:
        """Return why the last load or check failed; None if it succeeded."""
        return self._models.failure

    @property
    def max_parallel(self) -> int:
        """Return how many photos of one request are computed in parallel; loads the model if necessary."""
        return MAX_BATCH if self.load_model().engine.batches else self._cpus

    @property
    def threads_of_job(self) -> int:
        """Return how many threads classify photos in a job of many; loads the model if necessary."""
        # More than there are slots, so that none is idle.
        return self.max_parallel + self.slots.count

    def build(self) -> Served:
        """Load and check the models again from the files that the settings name; those in use stay in use.

        Raises ModelUnavailable with the reason.
        """
        served = self._models.build()
        self._check(served)
        return served

    def use(self, served: Served) -> None:
        """Answer with these models from the next request on; requests in progress keep those they began with."""
        self._models.use(served)

    def refresh(self) -> None:
        """Take new versions of models of one's own, as `Models.refresh` does, and what a new device process serves.

        A device process that replaces one reads the files of the backbone as they are by then.
        """
        model = self.loaded_model
        if model is not None and isinstance(model.engine, DeviceEngine) and model.engine.is_gone:
            try:
                self.use(self.build())
            except ModelUnavailable as error:
                self._models.note_failure(error)
                return
        self._models.refresh()

    def warm_up(self) -> None:
        """Load the model and have it classify the known photo; raises ModelUnavailable with the reason.

        The photo takes the same path as any other, decoder included, so that a failure here is a failure of all.
        Decoders and model start at the same time.
        """
        with suppress(Overloaded):  # it is tried again with the known photo, whose failure is reported
            self._decoders.begin()
        served = self._models.get()
        try:
            self._check(served)
        except ModelUnavailable as error:
            self._models.note_failure(error)
            raise
        self._models.failure = None
        self._note_success()

    def start_decoders(self) -> None:
        """Start the decoders, so that a job ends at once where no photo can be decoded; raises Overloaded."""
        self._decoders.start()

    def log_sandbox(self) -> None:
        """Log which restrictions the decoders' sandbox enforces; call it when they have started."""
        self._decoders.log_measures()

    def _check(self, served: Served) -> None:
        with self._known_crop(served.backbone) as crop:
            check_model(served.backbone, crop)

    def _known(self, backbone: Model) -> Inference:
        """Compute the known photo; raises ModelUnavailable."""
        with self._known_crop(backbone) as crop:
            return backbone.engine.infer(crop[None])

    @contextmanager
    def _known_crop(self, backbone: Model) -> Iterator[Pixels]:
        wanted = Wanted(backbone.weights.record.geometry, KNOWN_PIXELS)
        deadline = Deadline(time.monotonic() + CHECK_SECONDS)
        try:
            with self._computing.decoded(KNOWN_PHOTO.read_bytes(), wanted, deadline) as (photo, _):
                yield crop_of(photo)
        except ModelUnavailable:
            raise
        except Problem as problem:
            raise ModelUnavailable(f"The known photo was not answered: {problem}") from problem
        except (OSError, RuntimeError, ValueError) as error:  # of engines and files; their texts may name paths
            raise ModelUnavailable(TopthreeError.public, f"The known photo was not answered: {error}") from error

    def _note_success(self) -> None:
        self._last_success, self._asked_since = time.monotonic(), False

    @property
    def is_in_doubt(self) -> bool:
        """Return whether there were requests for photos, but none has succeeded for `DOUBT_SECONDS`."""
        return self._asked_since and time.monotonic() - self._last_success >= DOUBT_SECONDS

    def classify(
        self,
        data: bytes,
        outputs: Outputs = DEFAULT_OUTPUTS,
        *,
        max_pixels: int,
        sha256: str | None = None,
        models: Sequence[Model] = (),
        deadline: Deadline = NO_DEADLINE,
    ) -> Answer:
        """Decode a photo and compute its outputs.

        `sha256` is the photo's digest if the caller knows it already. `models`, by default the default one, are from
        one call of `find_models`, which a change since then does not affect. Those on one backbone share one forward
        pass; a fine-tuned one has its own. Raises what `Lanes.decoded` and `make_ready` raise, and ModelUnavailable.
        """
        models = models or (self.load_model(),)
        self.make_ready(models, deadline)
        digest = sha256 or hashlib.sha256(data).hexdigest()
        passes: dict[int, list[Model]] = {}
        for model in models:
            passes.setdefault(id(model.engine), []).append(model)
        answers = [
            self._classify(data, outputs, max_pixels=max_pixels, sha256=digest, models=together, deadline=deadline)
            for together in passes.values()
        ]
        return answers[0] if len(answers) == 1 else _in_one(answers, models)

    def classify_or_explain(
        self, data: bytes, outputs: Outputs, *, max_pixels: int, models: Sequence[Model] = ()
    ) -> Answer | Problem:
        """Classify one photo of many: return its answer or its problem.

        Raises ModelUnavailable, which is not the fault of this photo, and the same for the next.
        """
        try:
            return self.classify(data, outputs, max_pixels=max_pixels, models=models)
        except ModelUnavailable:
            raise
        except Problem as problem:
            return problem

    def make_ready(self, models: Sequence[Model], deadline: Deadline = NO_DEADLINE) -> None:
        """Open the graphs of fine-tuned models that are not in memory; with a deadline, this waits some seconds.

        Raises Overloaded if that takes longer, and ModelUnavailable if one cannot be opened.
        """
        left = deadline.remaining_seconds
        self._models.make_ready(models, None if left is None else min(left, MAX_WAIT_SECONDS))

    def _classify(
        self,
        data: bytes,
        outputs: Outputs,
        *,
        max_pixels: int,
        sha256: str,
        models: Sequence[Model],
        deadline: Deadline,
    ) -> Answer:
        """Decode a photo and compute its outputs by models on one backbone, in one forward pass."""
        model, *others = models
        geometry = model.weights.record.geometry
        may_leave = isinstance(model.engine, DeviceEngine) and model.engine.decodes and not outputs.thumbnail_side
        wanted = Wanted(geometry, max_pixels, outputs.thumbnail_side, may_leave)
        self._asked_since = True
        found = self._computing.compute(
            model.engine, data, wanted, _device_outputs((model, *others), outputs), deadline
        )
        photo, inference = found.photo, found.inference
        answer = Answer(
            **vars(verdict_of(model, inference, outputs)),
            image=_image_facts(photo, sha256, geometry if outputs.heatmap else None),
            thumbnail=photo.thumbnail,
            embedding=inference.embeddings[0] if outputs.embedding else None,
            logits=model.logits(inference)[0] if outputs.logits else None,
            decode_seconds=found.decode_seconds,
            queue_seconds=found.queue_seconds,
            infer_seconds=found.infer_seconds,
            batch_size=found.batch_size,
            others=[verdict_of(other, inference, outputs) for other in others],
        )
        self._note_success()
        metrics.photo_computed(answer, [each.name for each in (model, *others)])
        traces.photo_computed(answer)
        return answer

    def thumbnail(
        self, data: bytes, *, side: int, max_pixels: int, deadline: Deadline = NO_DEADLINE
    ) -> tuple[Pixels, float, float]:
        """Decode a photo to the upright picture that the model's crop is cut from, no side above `side`.

        Return uint8 RGB of shape (height, width, 3), and how many seconds decoding and waiting for a slot took. Needs
        no model. Raises what `Lanes.decoded` raises.
        """
        arrived = time.monotonic()
        with self._computing.decoded(data, Wanted(Geometry(), max_pixels, side), deadline) as (photo, turn):
            seconds = time.monotonic() - arrived - turn.waited_seconds
        assert isinstance(photo, Decoded)
        assert photo.thumbnail is not None
        return photo.thumbnail, seconds, turn.waited_seconds

    def close(self) -> None:
        """Answer the requests that wait, then stop what computes and the decoders."""
        self._computing.close()
        if self._device is not None:
            self._device.close()
        self._decoders.close()


def _device_outputs(models: Sequence[Model], outputs: Outputs) -> DeviceOutputs:
    """Return what an answer needs beside the logits."""
    wanted = DeviceOutputs.LOGITS
    if outputs.embedding or any(each.own is not None or each.judge.needs_embedding for each in models):
        wanted |= DeviceOutputs.EMBEDDING
    return wanted | DeviceOutputs.FEATURES if outputs.heatmap else wanted


def _in_one(answers: Sequence[Answer], models: Sequence[Model]) -> Answer:
    """Return the answers of several passes as one, whose verdicts are in the order of the models."""
    first = answers[0]
    verdicts: dict[str, Verdict] = {each.model.name: each for answer in answers for each in (answer, *answer.others)}
    stages = ("decode_seconds", "queue_seconds", "infer_seconds")
    seconds = {stage: sum(getattr(answer, stage) for answer in answers) for stage in stages}
    return dataclasses.replace(first, others=[verdicts[each.name] for each in models[1:]], **seconds)


def _image_facts(photo: Decoded | Checked, sha256: str, geometry: Geometry | None) -> dict[str, object]:
    facts: dict[str, object] = {"width": photo.width, "height": photo.height, "format": photo.format, "sha256": sha256}
    if geometry is not None:
        names = ("left", "top", "right", "bottom")
        edges = geometry.fractions(photo.width, photo.height)
        facts["crop"] = {name: round(edge, 6) for name, edge in zip(names, edges, strict=True)}
    return facts
