"""The preparation of tuning: the network, the pictures, the time that each costs, and the extras."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..errors import WeightsError
from ..model.backbones import find_weights_to_load, load_backbone
from ..model.engines import choose_precision
from ..model.heads import Floats
from ..model.solver import Numbers, fit_softmax, spectrum
from ..model.weights import Weights
from ..photos.protocol import Wanted
from ..processes.plan import available_cpus, memory_limit
from .backbones import Chosen
from .fitting import Task
from .learning import Lesson
from .photosets import PhotoSet
from .tuning_data import Crops, decode_squares, mapped, square_of, views_within
from .tuning_net import Tunable, activation_bytes, map_shape
from .tuning_plan import Plan, Sizes, Speeds, plan_epochs
from .tuning_result import ALL, LAST, Choice, Extras, Options
from .tuning_schedule import TRIAL, Phase
from .tuning_state import Journal
from .tuning_steps import BATCH, OutOfTime, Shown, Trainer, Watch, run_phase

# With fewer photos, statistics of batches of 32 are worse than those that the backbone has of millions.
MIN_PHOTOS_FOR_NORMS = 10_000
# The fold of the photos that learn by which extras are compared; 0 and 1 are left out.
_INNER = 2
MIN_INNER = 20
_TRIAL_EPOCHS = 2
_TIMED, _TIMES = 8, 5
_SMOOTHING = 0.1
TRIED = {"none": Extras(), "smoothing": Extras(smoothing=_SMOOTHING), "mixup": Extras(mixup=True)}
# The share of photos that two such networks see differently: the square root of its number is a standard error.
_DIFFERING = 0.1


@dataclass(frozen=True)
class Job:
    """All that a run of tuning is about; `folds` has the fold of each photo, and `choices` grows as it decides."""

    chosen: Chosen
    photo_set: PhotoSet
    lesson: Lesson
    options: Options
    folds: Numbers
    watch: Watch
    journal: Journal
    shown: Shown
    begun: float = field(default_factory=time.monotonic)
    choices: list[Choice] = field(default_factory=list)

    @property
    def everything(self) -> Numbers:
        """Return the places of all photos to learn from."""
        return np.arange(len(self.lesson.findings.photos))

    @property
    def learning(self) -> Numbers:
        """Return the places of those that are not left out."""
        return np.setdiff1d(self.everything, self.watch.places)

    def choose(self, key: str, **values: object) -> None:
        """Note a decision for the report, and show it."""
        self.choices.append(Choice(key, values))
        self.shown.chose(self.choices[-1])

    @property
    def trial_photos(self) -> tuple[Numbers, Numbers]:
        """Return the places of those that learn in trials of extras, and of those by which trials are compared.

        The left-out photos take no part, so that the accuracy on them has no bias.
        """
        is_inner = self.folds[self.learning] == _INNER
        return self.learning[~is_inner], self.learning[is_inner]


def make_trainer(job: Job) -> Trainer:
    """Load the backbone with the head of the photos that learn, and decode all photos; raises as `tune` does."""
    weights = weights_to_tune(job.chosen)
    backbone = load_backbone(weights, len(job.chosen.model.labels))
    torch.set_num_threads(available_cpus())
    record, findings = weights.record, job.lesson.findings
    squares = decode_squares(
        job.photo_set,
        [*findings.photos, *findings.held_out],
        Wanted(square_of(record), job.chosen.settings.max_pixels),
        job.chosen.settings,
        path=job.journal.folder / "squares",
        report=lambda done, total: job.shown.bar("Decoding for tuning", done, total),
    )
    crops = Crops(squares, record.geometry.crop, record.geometry.interpolation == "bicubic", job.options.has_flip)
    weight = _head_without_left_out(job)
    network = Tunable(backbone, record, weight[:, :-1], weight[:, -1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = Trainer(
        network=network.to(device).to(memory_format=torch.channels_last),
        crops=crops,
        classes=findings.task.classes,
        class_weights=class_weights(findings.task.classes[job.learning], findings.task.class_count),
        device=device,
        half=torch.cuda.is_bf16_supported() if device == "cuda" else choose_precision("auto") == "bf16",
        frozen_norms=len(findings.photos) < MIN_PHOTOS_FOR_NORMS,
        shown=job.shown,
    )
    job.choose("norms.frozen" if trainer.frozen_norms else "norms.learnt", photos=len(findings.photos))
    job.choose("bf16" if trainer.half else "fp32")
    _fit_memory(job, trainer)
    return trainer


def weights_to_tune(chosen: Chosen) -> Weights:
    """Return the file of the backbone's weights, from which torch loads it.

    A prepared model was loaded without that file, so it is looked for, and downloaded if it is nowhere. Raises
    WeightsError if it cannot be had, or is not the one of the prepared model.
    """
    weights = chosen.model.weights
    if not weights.path.is_dir():
        return weights
    found = find_weights_to_load(chosen.settings)
    if found.sha256 != weights.sha256:
        raise WeightsError(f"{found.path} is not the file that the prepared model was made of: train again.")
    return found


def class_weights(classes: Numbers, class_count: int) -> Floats:
    """Return a weight for each class so that all that occur weigh the same, with a mean of 1 over the photos."""
    counts = np.bincount(classes, minlength=class_count)
    weights = len(classes) / (np.maximum(counts, 1) * np.count_nonzero(counts))
    return np.asarray(weights, np.float32)


def _head_without_left_out(job: Job) -> Floats:
    """Fit the head on the photos that learn: with it, tuning begins as the model that it is compared to."""
    task, views = job.lesson.findings.task, slice(None) if job.options.has_flip else slice(1)
    learning = job.learning
    part = Task(task.rows[learning][:, views], task.classes[learning], task.groups[learning], task.class_count)
    examples = part.examples()
    return np.asarray(fit_softmax(examples, job.lesson.fitted.strength, spectrum(examples)), np.float32)


def _fit_memory(job: Job, trainer: Trainer) -> None:
    """Take fewer photos at a time if a batch might take more than half of the free memory."""
    if trainer.device != "cpu":
        return  # where a GPU runs out, batches are halved then
    each = activation_bytes(trainer.network, trainer.crops.side)
    while trainer.micro_batch > 1 and trainer.micro_batch * each > free_bytes() // 2:
        trainer.micro_batch //= 2
    if trainer.micro_batch < BATCH:
        job.choose("memory", micro=trainer.micro_batch, batch=BATCH)


def free_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the memory that this machine can still give, or the limit of the process if that is less.

    That includes the system's cache of files, which takes nearly all free memory of a machine that has run for long.
    Where the system does not say how much it can give, all of its memory counts.
    """
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    except OSError:
        found = None
    free = 1024 * int(found[1]) if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = memory_limit()
    return free if limit is None else min(free, limit)


class _Planned(NamedTuple):
    """A plan as the journal keeps it, with the milliseconds a photo of the last stage and of all layers."""

    last: int
    all: int
    has_finish: bool
    has_trials: bool
    last_ms: float
    all_ms: float


def plan_run(job: Job, trainer: Trainer) -> tuple[Plan, int]:
    """Return how many epochs there are time for, and how many views of each photo are kept as feature maps."""
    photos, has_stages = len(trainer.crops.pixels), len(trainer.network.stages) > 1
    shape = map_shape(trainer.network, trainer.crops.side)
    views = views_within(photos, 2 * int(np.prod(shape))) if has_stages else 0
    outer, inner = job.trial_photos
    has_trials = views > 0 and job.options.extras is None and len(inner) >= MIN_INNER
    trials = len(TRIED) * _TRIAL_EPOCHS * len(outer) if has_trials else 0
    sizes = Sizes(len(job.learning), len(job.watch.places), views * photos, trials)

    def decide() -> _Planned:
        speeds = measure_speeds(trainer, job.learning, shape if views else None)
        seconds = 60 * job.options.minutes - (time.monotonic() - job.begun)
        plan = plan_epochs(job.options.method, seconds, speeds, sizes, job.options.epochs)
        times = round(1000 * speeds.last, 1), round(1000 * speeds.all, 1)
        return _Planned(plan.last, plan.all, plan.has_finish, plan.has_trials, *times)

    last, every, has_finish, has_trials, last_ms, all_ms = job.journal.once("plan", _Planned, decide)
    if job.options.epochs is None:
        trainer.deadline = job.begun + 60 * job.options.minutes
    times = {"last_ms": f"{last_ms:.1f}", "all_ms": f"{all_ms:.1f}"}
    job.choose("left_out", left_out=sizes.left_out, photos=sizes.photos)
    if job.options.epochs is None:
        job.choose("plan", minutes=f"{job.options.minutes:g}", last=last, all=every, **times)
    else:
        job.choose("plan.asked", last=last, all=every, **times)
    if not last and not every:
        job.choose("plan.none")
    return Plan(last, every, has_finish, has_trials), views


def measure_speeds(trainer: Trainer, places: Numbers, shape: tuple[int, ...] | None) -> Speeds:
    """Measure the seconds a photo of each kind of work by small batches, from which nothing is learnt.

    `shape` is that of the maps before the last stage, None if they are too many to be kept.
    """
    part, network = places[:_TIMED], trainer.network
    served = trainer.crops.centre(part).to(trainer.device)
    classes = torch.from_numpy(trainer.classes[part])

    def learning(method: str, make: Callable[[], torch.Tensor], first: int) -> float:
        before = network.copy()
        trainer.begin(Phase("speed", method, epochs=1), len(network.stages))
        seconds = _seconds(lambda: trainer.learn(make(), classes, first)) / len(part)
        network.zero_grad(set_to_none=True)
        network.load(before)  # as it was: batch norms that learn have taken the statistics of these batches
        return seconds

    def predicting(values: torch.Tensor, first: int) -> float:
        network.set_mode(training=False, frozen_norms=True)
        with torch.inference_mode(), trainer.autocast():
            return _seconds(lambda: network(values, first)) / len(part)

    everything = learning(ALL, lambda: trainer.crops.random(part, trainer.crops.small_side).to(trainer.device), 0)
    whole = predicting(served, 0)
    if shape is None:
        return Speeds(0.0, learning(LAST, lambda: served, 0), whole, everything, whole)
    maps, last = torch.zeros((len(part), *shape), device=trainer.device), network.stages[-1]
    on_maps = predicting(maps, last)
    return Speeds(max(0.0, whole - on_maps), learning(LAST, lambda: maps, last), on_maps, everything, whole)


def _seconds(work: Callable[[], object]) -> float:
    """Return the median time of some calls after the first one, which prepares kernels.

    On a busy machine a single call may take ten times as long as it does on average.
    """
    work()
    times = []
    for _ in range(_TIMES):
        begun = time.monotonic()
        work()
        times.append(time.monotonic() - begun)
    return statistics.median(times)


def make_maps(job: Job, trainer: Trainer, views: int) -> npt.NDArray[np.float16] | None:
    """Compute the inputs of the last stage for the crop that serves, its mirror image and random crops of photos.

    Return None if the time allowed is over before.
    """
    crops, network, last = trainer.crops, trainer.network, trainer.network.stages[-1]
    count = len(crops.pixels)

    def fill(rows: npt.NDArray[Any]) -> None:
        network.set_mode(training=False, frozen_norms=True)
        torch.manual_seed(job.options.seed)
        for view in range(views):
            for start in range(0, count, BATCH):
                if time.monotonic() > trainer.deadline:
                    raise OutOfTime
                places = range(start, min(start + BATCH, count))
                is_served = view == 0 or (view == 1 and crops.has_flip)
                pixels = crops.centre(places, mirrored=view == 1) if is_served else crops.random(places, crops.side)
                with torch.inference_mode(), trainer.autocast():
                    found = network.features(pixels.to(trainer.device), 0, last)
                rows[start : start + len(places), view] = found.float().cpu().numpy()
                job.shown.bar("Computing feature maps", view * count + start + len(places), views * count)

    shape = (count, views, *map_shape(network, crops.side))
    try:
        maps = mapped(job.journal.folder / "maps", shape, np.float16, fill)
    except OutOfTime:
        job.shown.say("Feature maps: the time allowed is over.")
        return None
    job.choose("maps", views=views)
    return maps


def choose_extras(job: Job, trainer: Trainer, plan: Plan) -> Extras:
    """Try label smoothing and mixup on the last stage, and compare them by one fold of the photos that learn."""
    if job.options.extras is not None:
        return job.options.extras
    if not plan.has_trials:
        job.choose("extras.untried")
        return Extras()
    inner = job.trial_photos[1]
    try:
        hits = job.journal.once("trial", _Hits, lambda: _try_extras(job, trainer))._asdict()
    except OutOfTime:
        job.choose("extras.untried")
        return Extras()
    best = max(TRIED, key=lambda key: hits[key])
    if hits[best] - hits["none"] <= np.sqrt(_DIFFERING * len(inner)):
        best = "none"
    percent = {key: f"{100 * right / len(inner):.1f}" for key, right in hits.items()}
    job.choose(f"extras.{best}", count=len(inner), **percent)
    return TRIED[best]


class _Hits(NamedTuple):
    """How many photos each of `TRIED` got right."""

    none: int
    smoothing: int
    mixup: int


def _try_extras(job: Job, trainer: Trainer) -> _Hits:
    outer, inner = job.trial_photos
    watch = Watch(inner, trainer.classes[inner], np.zeros(len(inner), np.intp))
    start, hits = trainer.network.copy(), {}
    for key, extras in TRIED.items():
        trainer.network.load(start)
        trainer.extras = extras
        phase = Phase(f"{TRIAL} {key}", LAST, _TRIAL_EPOCHS, seed=job.options.seed)
        epochs = run_phase(trainer, phase, outer, job.journal, watch)
        job.journal.prune(phase.name, ())
        trainer.network.load(start)
        if len(epochs) < _TRIAL_EPOCHS:
            raise OutOfTime
        hits[key] = epochs[-1].hits
    return _Hits(**hits)
