"""Fine-tuning: from a head that was fitted to a network whose trunk was tuned, if left-out photos show that it pays.

Two of the ten folds of photos are left out of a first run, grouped by near-duplicates. Its best epochs show what
tuning is worth; a second run learns from all photos in the same way, if there is time. docs/fine-tuning.md has the
reasons and what each part was measured to give.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..model.heads import Floats
from ..model.shares import Share, share_right
from ..model.solver import Numbers
from .backbones import Chosen
from .fitting import Task, divide
from .learning import Lesson
from .photosets import PhotoSet
from .tuning_net import Tensors
from .tuning_plan import LAST_SHARE, Plan, why_only_head
from .tuning_result import ALL, FOLDER, HEAD, LAST, Epoch, Gain, Options, Row, Tuning, paired_gain
from .tuning_schedule import FINISHING, MEASURING, Phase
from .tuning_setup import Job, choose_extras, class_weights, make_maps, make_trainer, plan_run
from .tuning_state import Journal, remove_run
from .tuning_steps import (
    BATCH,
    RATE,
    Measured,
    Shown,
    Trainer,
    Watch,
    as_run,
    average,
    history_of,
    measure,
    run_phase,
)

# The folds, of ten, that are left out; each is one half of the left-out photos.
_LEFT_OUT = (0, 1)
# The share of the time left, less that of a second run, by which the epochs of the first run end.
_USED_SHARE = 0.95


def tune(chosen: Chosen, photo_set: PhotoSet, lesson: Lesson, options: Options, *, name: str, shown: Shown) -> Tuning:
    """Tune the backbone of a lesson, whose head is kept unless left-out photos show that the tuned network is better.

    Ctrl-C ends the run with what is best so far. Raises PhotoSetError for a checkpoint of other photos, or if the
    cache cannot be written, and WeightsError if the backbone has no weights that torch can read.
    """
    folds = divide(lesson.findings.task, options.seed)
    watch = _left_out(lesson.findings.task, folds)
    folder = chosen.settings.cache / FOLDER / name
    journal = Journal(folder, _fingerprint(chosen, lesson, options), resume=options.resume)
    reason = why_only_head(options.method, lesson.findings.counts, len(watch.places))
    if reason is not None:
        shown.chose(reason)
        return Tuning(kept=HEAD, rows=(), epochs=(), choices=(reason,))
    if options.resume and not journal.is_resumed:
        shown.say("There is no checkpoint to go on from: tuning begins from the head.")
    with torch.random.fork_rng():
        return _Run(Job(chosen, photo_set, lesson, options, folds, watch, journal, shown)).go()


def remove_files(chosen: Chosen, name: str) -> None:
    """Remove the files that tuning keeps in the cache until its result is written."""
    remove_run(chosen.settings.cache / FOLDER / name)


def _left_out(task: Task, folds: Numbers) -> Watch:
    """Leave out two folds, except of classes that would have no other photo."""
    remaining = np.bincount(task.classes[~np.isin(folds, _LEFT_OUT)], minlength=task.class_count)
    places = np.flatnonzero(np.isin(folds, _LEFT_OUT) & (remaining[task.classes] > 0))
    return Watch(places, task.classes[places], folds[places])


def _fingerprint(chosen: Chosen, lesson: Lesson, options: Options) -> str:
    """Return what a checkpoint belongs to: also the order of the photos, but not the folder in which they lie."""
    files = [photo.file for photo in (*lesson.findings.photos, *lesson.findings.held_out)]
    shared = len(os.path.commonprefix(files))
    parts = [
        lesson.findings.data_sha256,
        chosen.model.weights.sha256,
        *(str(getattr(options, part)) for part in ("method", "epochs", "seed", "has_flip", "extras")),
        *(file[shared:] for file in files),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass
class _Run:
    """A job and its results so far: all epochs, and each method's phase with its predictions for left-out photos.

    `seconds` is what the first run took.
    """

    job: Job
    epochs: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0
    measured: dict[str, tuple[Phase, Measured]] = field(default_factory=dict)

    def go(self) -> Tuning:
        """Tune, measure, choose, and learn from all photos; Ctrl-C goes on with the best so far."""
        job = self.job
        try:
            trainer = make_trainer(job)
            plan, views = plan_run(job, trainer)
        except KeyboardInterrupt:
            job.choose("stopped")
            return self._outcome(HEAD, was_stopped=True)
        start, was_stopped = trainer.network.copy(), False
        try:
            if plan.last and views:
                trainer.maps = make_maps(job, trainer, views)
            trainer.extras = choose_extras(job, trainer, plan)
            self._measure(trainer, plan)
        except KeyboardInterrupt:
            job.choose("stopped")
            job.shown.say("--resume goes on later; Ctrl-C again ends at once.")
            was_stopped = True
            self._measure_what_there_is(trainer, self._phases(MEASURING, plan))
        method = self._decide()
        if method == HEAD:
            return self._outcome(HEAD, was_stopped=was_stopped)
        if plan.has_finish and not was_stopped and self._has_time_for_all(trainer):
            was_stopped = self._finish(trainer, start, method, plan)
        else:
            self._load_measured(trainer, method)
            job.choose("finish.stopped" if was_stopped else "finish.no", photos=len(job.learning))
        return self._tuned(trainer, method, was_stopped=was_stopped)

    def _phases(self, run: str, plan: Plan) -> list[Phase]:
        found = ((LAST, plan.last), (ALL, plan.all))
        seed = self.job.options.seed
        return [Phase(f"{run} {method}", method, epochs, seed=seed) for method, epochs in found if epochs]

    def _measure(self, trainer: Trainer, plan: Plan) -> None:
        job, begun = self.job, time.monotonic()
        share = len(job.learning) / (len(job.learning) + len(job.everything)) if plan.has_finish else 1.0
        seconds = _USED_SHARE * share * (trainer.deadline - begun)
        for phase in self._phases(MEASURING, plan):
            is_first = phase.method == LAST and plan.all > 0
            trainer.until = begun + (LAST_SHARE if is_first else 1.0) * seconds
            done = run_phase(trainer, phase, job.learning, job.journal, job.watch)
            self.epochs += done
            if done:
                self._predict(trainer, phase)
        self.seconds = time.monotonic() - begun

    def _measure_what_there_is(self, trainer: Trainer, phases: list[Phase]) -> None:
        for phase in phases:
            done = history_of(phase, self.job.journal)
            if done and phase.method not in self.measured:
                self.epochs = [epoch for epoch in self.epochs if epoch.phase != phase.name] + done
                self._predict(trainer, phase)

    def _predict(self, trainer: Trainer, phase: Phase) -> None:
        phase = as_run(phase, self.job.journal)
        self.measured[phase.method] = phase, measure(trainer, phase, self.job.journal, self.job.watch)

    def _has_time_for_all(self, trainer: Trainer) -> bool:
        """Return whether a run on all photos, if it is as fast as the first one, ends in time."""
        seconds = self.seconds * len(self.job.everything) / len(self.job.learning)
        return time.monotonic() + seconds <= trainer.deadline

    def _head_is_right(self) -> np.ndarray:
        watch = self.job.watch
        return np.asarray(self.job.lesson.fitted.left_out[watch.places].argmax(axis=1) == watch.classes)

    def _gain(self, logits: Floats) -> Gain:
        watch = self.job.watch
        groups = self.job.lesson.findings.task.groups[watch.places]
        return paired_gain(logits.argmax(axis=1) == watch.classes, self._head_is_right(), groups)

    def _decide(self) -> str:
        """Keep the method that gains most on the left-out photos, if that excludes a loss; the head otherwise."""
        gains = {method: self._gain(found.logits) for method, (_, found) in self.measured.items()}
        if not gains:
            self.job.choose("kept.head.untried")
            return HEAD
        best = max(gains, key=lambda method: (gains[method].excludes_loss, gains[method].points))
        gain, kept = gains[best], best if gains[best].excludes_loss else HEAD
        numbers = {name: f"{getattr(gain, name):+.1f}" for name in ("points", "low", "high")}
        self.job.choose(f"kept.{kept}", method=best, **numbers)
        return kept

    def _load_measured(self, trainer: Trainer, method: str) -> None:
        phase, found = self.measured[method]
        trainer.network.load(average(self.job.journal, phase, list(found.chosen)))

    def _finish(self, trainer: Trainer, start: Tensors, method: str, plan: Plan) -> bool:
        """Learn from all photos as the first run did; return whether Ctrl-C ended that, so that the first counts."""
        job, task = self.job, self.job.lesson.findings.task
        weight = torch.from_numpy(job.lesson.fitted.weight.astype(np.float32))
        trainer.network.load(start | {"head.weight": weight[:, :-1], "head.bias": weight[:, -1]})
        trainer.class_weights = class_weights(task.classes, task.class_count)
        was_stopped = is_whole = False
        try:
            is_whole = all(
                self._has_finished(trainer, phase)
                for phase in self._phases(FINISHING, plan)
                if phase.method in (LAST, method)
            )
        except KeyboardInterrupt:
            was_stopped = True
            job.shown.say("--resume goes on later; Ctrl-C again ends at once.")
        if not is_whole:
            self._load_measured(trainer, method)
        learnt = job.everything if is_whole else job.learning
        job.choose("finish.yes" if is_whole else "finish.stopped", photos=len(learnt))
        return was_stopped

    def _has_finished(self, trainer: Trainer, phase: Phase) -> bool:
        """Run a phase on all photos up to the epochs that were chosen; return False if its time was over before."""
        if phase.method not in self.measured:
            return True
        measured, found = self.measured[phase.method]
        chosen = found.chosen
        phase = replace(phase, epochs=measured.epochs, kept=chosen)
        done = run_phase(trainer, phase, self.job.everything, self.job.journal, None)
        if len(done) < phase.last_epoch:
            return False
        trainer.network.load(average(self.job.journal, phase, list(chosen)))
        return True

    def _outcome(self, kept: str, *, tested: Share | None = None, was_stopped: bool) -> Tuning:
        head = Row(HEAD, share_right(self._head_is_right()), None, self.job.lesson.tested)
        rows = [
            Row(
                method,
                share_right(found.logits.argmax(axis=1) == self.job.watch.classes),
                self._gain(found.logits),
                tested if method == kept else None,
            )
            for method, (_, found) in self.measured.items()
        ]
        return Tuning(
            kept=kept,
            rows=(head, *rows),
            epochs=tuple(self.epochs),
            choices=tuple(self.job.choices),
            places=self.job.watch.places,
            was_stopped=was_stopped,
        )

    def _tuned(self, trainer: Trainer, method: str, *, was_stopped: bool) -> Tuning:
        found, findings = self._without_bias(), self.job.lesson.findings
        tested = None
        if findings.held_out:
            # Through the pixels, as a service computes them.
            logits, _ = trainer.predict(len(findings.photos) + np.arange(len(findings.held_out)), ALL)
            tested = share_right(logits.argmax(axis=1) == findings.held_out_classes)
        recipe = {
            "tune": method,
            "epochs": {name: phase.epochs for name, (phase, _) in self.measured.items()},
            "rate": RATE,
            "batch": BATCH,
            "smoothing": trainer.extras.smoothing,
            "mixup": trainer.extras.mixup,
            "precision": "bf16" if trainer.half else "fp32",
            "threads": torch.get_num_threads(),
        }
        return replace(
            self._outcome(method, tested=tested, was_stopped=was_stopped),
            tuned=trainer.network.tuned(),
            left_out=found.logits,
            embeddings=found.embeddings,
            recipe=recipe,
        )

    def _without_bias(self) -> Measured:
        """Return the predictions for each half of the left-out photos by the method that is best on the other half."""
        watch = self.job.watch
        halves = []
        for half in (0, 1):
            other = watch.halves != half
            right = {
                method: int((found.logits.argmax(axis=1) == watch.classes)[other].sum())
                for method, (_, found) in self.measured.items()
            }
            halves.append(self.measured[max(right, key=lambda method: right[method])][1])
        in_second = (watch.halves == 1)[:, None]
        logits = np.where(in_second, halves[1].logits, halves[0].logits)
        embeddings = np.where(in_second, halves[1].embeddings, halves[0].embeddings)
        return Measured(logits, embeddings, ())
