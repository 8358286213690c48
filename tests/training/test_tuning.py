"""Tuning of a real network with random weights, on 110 small pictures of three classes."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import share_decoders
from safetensors.torch import load, save
from tunable import Killed, interrupt_at, kill_at, small_model, teach, write_parts

from app.commands import train
from app.model import load_model
from app.model.backbones import load_backbone
from app.model.backbones.timm_family import timm_record
from app.model.backbones.tuned import load_tuned
from app.model.own_models import read_version, write_version
from app.model.weights import Weights
from app.photos.decoding import Geometry
from app.settings import Settings
from app.training import tuning, tuning_schedule, tuning_setup, tuning_steps
from app.training.backbones import Chosen
from app.training.learning import Lesson, with_tuning
from app.training.photosets import PhotoSet, PhotoSetError
from app.training.tuning_net import Tunable
from app.training.tuning_result import Choice, Options, Tuning

pytestmark = pytest.mark.slow

Taught = tuple[Chosen, PhotoSet, Lesson]
Tune = Callable[..., Tuning]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """A head that was learnt by a small network, once for all tests."""
    folder = tmp_path_factory.mktemp("tuning")
    settings = Settings.from_environment({"TOPTHREE_CACHE": str(folder / "cache"), "XDG_CACHE_HOME": str(folder)})
    with pytest.MonkeyPatch.context() as patch:
        share_decoders(patch, "app.training.embeddings")
        return teach(write_parts(folder / "things", count=36), small_model(folder), settings)


@pytest.fixture
def tune(taught: Taught, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tune]:
    """Tune with one thread; `said` is called with each line, `lesson` replaces the one of `of` that was learnt."""
    share_decoders(monkeypatch, "app.training.embeddings", "app.training.tuning_data")
    monkeypatch.setattr(tuning_setup, "available_cpus", lambda: 1)
    monkeypatch.setattr(tuning_setup, "_TIMES", 1)  # no test asks how exact the measured speed is
    threads = torch.get_num_threads()

    def run(
        said: Callable[[str], None] = str,
        lesson: Lesson | None = None,
        of: Taught = taught,
        chosen: Callable[[Choice], None] = str,
        **options: object,
    ) -> Tuning:
        asked = Options(**({"method": "last", "epochs": 2} | options))
        shown = tuning_steps.Shown(lambda name, done, total: None, said, chosen)
        return tuning.tune(of[0], of[1], lesson or of[2], asked, name="small", shown=shown)

    yield run
    tuning.remove_files(taught[0], "small")
    torch.set_num_threads(threads)


def worst_head(lesson: Lesson) -> Lesson:
    """Return the lesson of a head that was wrong for every left-out photo, so that any network is better."""
    wrong = -np.eye(3)[lesson.findings.task.classes]
    return dataclasses.replace(lesson, fitted=dataclasses.replace(lesson.fitted, left_out=wrong))


def elsewhere(lesson: Lesson) -> Lesson:
    """Return the lesson of the same photos if their folder is given by another path."""
    photos = tuple(dataclasses.replace(each, file=f"../{each.file}") for each in lesson.findings.photos)
    return dataclasses.replace(lesson, findings=dataclasses.replace(lesson.findings, photos=photos))


def is_same(one: Tuning, another: Tuning) -> bool:
    """Return whether two runs made the same bytes."""
    assert one.tuned is not None
    assert another.tuned is not None
    pairs = [
        (one.tuned.weight, another.tuned.weight),
        *((one.tuned.trunk[k], another.tuned.trunk[k]) for k in one.tuned.trunk),
    ]
    return all(np.array_equal(first, second) for first, second in pairs)


def keys(found: Tuning) -> list[str]:
    """Return what was decided."""
    return [choice.key for choice in found.choices]


def changed(file: Path, change: Callable[[str, torch.Tensor], dict[str, torch.Tensor]]) -> None:
    """Change the tensors of a file one by one."""
    found: dict[str, torch.Tensor] = {}
    for name, value in load(file.read_bytes()).items():
        found |= change(name, value)
    file.write_bytes(save(found))


@pytest.fixture(scope="module")
def files_of_killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs the files of a killed run keeps them for the others."""
    return tmp_path_factory.mktemp("killed") / "small"


@pytest.fixture
def killed(taught: Taught, tune: Tune, files_of_killed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a run of three epochs that was killed after the first, as if it had been this test's own."""
    monkeypatch.setattr(tuning_setup, "MIN_INNER", 1)
    folder = taught[0].settings.cache / tuning.FOLDER / "small"
    if not files_of_killed.exists():
        with pytest.raises(Killed):
            tune(kill_at("First run, last stage, epoch 1"), epochs=3)
        shutil.copytree(folder, files_of_killed)
    shutil.copytree(files_of_killed, folder, dirs_exist_ok=True)
    return folder


def test_a_damaged_checkpoint_is_refused(tune: Tune, killed: Path, files_of_killed: Path) -> None:
    for change in (
        lambda name, value: {name: value[:1] if value.ndim else value},
        lambda name, value: {name.replace("optimizer:0", "optimizer:999"): value},
    ):
        changed(killed / "checkpoint.safetensors", change)
        with pytest.raises(PhotoSetError, match="damaged: leave out --resume to begin again"):
            tune(epochs=3, resume=True)
        shutil.copytree(files_of_killed, killed, dirs_exist_ok=True)


WRONG = [
    {"plan": "soon"},
    {"plan": [3, 0, True]},
    {"trial": [1, None, 2]},
    {"epochs measuring last": [["low", 1, 2]]},
    {"epochs measuring last": {}},
    {"done measuring last": "yes"},
]


def test_a_journal_of_other_values_is_refused(tune: Tune, killed: Path, files_of_killed: Path) -> None:
    journal = json.loads((killed / "journal.json").read_bytes())
    for wrong in WRONG:
        (killed / "journal.json").write_text(json.dumps(journal | wrong), encoding="utf-8")
        with pytest.raises(PhotoSetError, match=r"journal.json is damaged: leave out --resume to begin again\.$"):
            tune(epochs=3, resume=True)
        shutil.copytree(files_of_killed, killed, dirs_exist_ok=True)


def test_measuring_the_speed_teaches_nothing(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_setup, "MIN_PHOTOS_FOR_NORMS", 0)
    measure_speeds = tuning_setup.measure_speeds

    def compare(trainer: tuning_steps.Trainer, *values: Any) -> Any:
        before = trainer.network.copy()
        speeds = measure_speeds(trainer, *values)
        assert [name for name, value in trainer.network.copy().items() if not torch.equal(value, before[name])] == []
        return speeds

    monkeypatch.setattr(tuning_setup, "measure_speeds", compare)
    assert "norms.learnt" in keys(tune(epochs=1))


def test_a_trial_that_runs_out_of_time_chooses_nothing(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_setup, "MIN_INNER", 1)
    learn = tuning_steps.Trainer.epoch

    def epoch(trainer: tuning_steps.Trainer, phase: tuning_schedule.Phase, *rest: Any) -> float:
        if phase.name == "trial mixup":
            raise tuning_steps.OutOfTime
        return learn(trainer, phase, *rest)

    monkeypatch.setattr(tuning_steps.Trainer, "epoch", epoch)
    assert "extras.untried" in keys(tune())


def check_that_it_serves(taught: Taught, found: Tuning, folder: Path) -> None:
    """Check that a tuned network is another one than before, and that its version computes what it computes."""
    chosen, _, lesson = taught
    assert found.tuned is not None
    tuned = with_tuning(lesson, found)
    assert tuned.accuracy.count == len(found.places) == len(tuned.shares)
    write_version(folder, "small", tuned.model, found.tuned.trunk)
    own = read_version(folder, "small")
    assert own.trunk is not None
    record, path = chosen.model.weights.record, folder / "small/1/weights.safetensors"
    served = load_tuned(Weights(path, own.trunk.sha256, record, "own"), own)
    learnt = Tunable(load_backbone(chosen.model.weights, 1000), record, own.weight, own.bias)
    before = learnt.copy()
    assert any(not np.array_equal(before[name], value) for name, value in found.tuned.trunk.items())
    head = {"head.weight": torch.from_numpy(own.weight), "head.bias": torch.from_numpy(own.bias)}
    learnt.load({name: torch.from_numpy(value) for name, value in found.tuned.trunk.items()} | head)
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(served(pixels)[0], learnt(pixels)[0], atol=1e-4)


def test_a_better_network_is_kept_and_served(taught: Taught, tune: Tune, tmp_path: Path, capsys: Capture) -> None:
    worse = worst_head(taught[2])
    found = tune(lesson=worse, method="all", epochs=1)
    assert (found.kept in ("last", "all"), keys(found)[-1]) == (True, "finish.yes")
    check_that_it_serves((*taught[:2], worse), found, tmp_path)
    train._print_result(with_tuning(worse, found))
    assert f"% of the {len(found.places)} left-out photos (95% interval " in capsys.readouterr().out


def test_a_model_of_timm_is_tuned_as_one_stage(tune: Tune, tmp_path: Path) -> None:
    record = dataclasses.replace(timm_record("timm/test_efficientnet.r160_in1k"), geometry=Geometry(72, 64))
    settings = Settings.from_environment({"TOPTHREE_CACHE": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})
    chosen, photo_set, lesson = teach(write_parts(tmp_path / "things", 24), small_model(tmp_path, record), settings)
    worse = chosen, photo_set, worst_head(lesson)
    found = tune(of=worse, epochs=1)
    assert "maps" not in keys(found)
    check_that_it_serves(worse, found, tmp_path / "models")


@pytest.mark.usefixtures("packaged_classifier")  # by which it is prepared
def test_a_prepared_model_is_tuned_from_its_file(taught: Taught, packaged_settings: Settings) -> None:
    model = load_model(packaged_settings)[0]
    assert model.weights.path.is_dir()
    found = tuning_setup.weights_to_tune(dataclasses.replace(taught[0], model=model, settings=packaged_settings))
    assert (found.path.is_file(), found.sha256) == (True, model.weights.sha256)


def test_a_killed_run_resumes_to_the_same_bytes(taught: Taught, tune: Tune) -> None:
    lesson = worst_head(taught[2])
    whole = tune(lesson=lesson)
    with pytest.raises(Killed):
        tune(kill_at("First run, last stage, epoch 1 "), lesson=lesson)
    torn = taught[0].settings.cache / tuning.FOLDER / "small/.checkpoint.safetensors-x"
    torn.write_bytes(b"half of a file")
    lines: list[str] = []
    resumed = tune(lines.append, lesson=elsewhere(lesson), resume=True)
    assert lines[0].startswith("First run, last stage, epoch 2 of 2")
    assert not torn.exists()
    assert is_same(whole, resumed)


def test_a_run_that_has_nothing_to_resume_says_so(tune: Tune) -> None:
    with pytest.raises(Killed):
        tune(kill_at("There is no checkpoint to go on from: tuning begins from the head."), resume=True)


def test_ctrl_c_keeps_the_best_so_far(taught: Taught, tune: Tune) -> None:
    found = tune(interrupt_at("First run, last stage, epoch 1 "), lesson=worst_head(taught[2]), epochs=3)
    assert (found.kept, found.was_stopped) == ("last", True)
    assert [epoch.number for epoch in found.epochs] == [1]
    assert keys(found)[-3:] == ["stopped", "kept.last", "finish.stopped"]


def test_ctrl_c_in_the_second_run_keeps_the_first(taught: Taught, tune: Tune) -> None:
    found = tune(interrupt_at("Second run, on all photos, last stage, epoch 1 "), lesson=worst_head(taught[2]))
    assert (found.kept, found.was_stopped, keys(found)[-1]) == ("last", True, "finish.stopped")
    assert found.tuned is not None


@pytest.mark.usefixtures("killed")
def test_a_checkpoint_of_other_options_is_refused(tune: Tune) -> None:
    with pytest.raises(PhotoSetError, match="is of other photos, another backbone or other options: leave out"):
        tune(seed=1, epochs=3, resume=True)


def test_a_run_that_is_slower_than_planned_is_shortened(
    taught: Taught, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_USED_SHARE", 0.0)  # the time for the first run is over at once
    lines: list[str] = []
    found = tune(lines.append, lesson=worst_head(taught[2]), epochs=None, minutes=60.0)
    assert re.match(
        r"First run, last stage: an epoch takes .* min; 1 instead of \d epochs fit into the time\.$", lines[0]
    )
    assert [epoch.number for epoch in found.epochs] == [1]
    assert re.search(r"epoch 1 of 1: .*% of .* left-out photos, loss .*; at most [1-9]\d* min left$", lines[1])
    assert keys(found)[-1] == "finish.yes"


def test_a_second_run_without_time_is_not_begun(taught: Taught, tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = tuning._Run._measure

    def slow(run: tuning._Run, *arguments: Any) -> None:
        measure(run, *arguments)
        run.seconds = 1e6

    monkeypatch.setattr(tuning._Run, "_measure", slow)
    lines: list[str] = []
    found = tune(lines.append, lesson=worst_head(taught[2]), epochs=None, minutes=60.0)
    assert keys(found)[-1] == "finish.no"
    assert not [line for line in lines if line.startswith("Second run")]


def test_decisions_are_shown_when_they_are_made(tune: Tune) -> None:
    shown: list[Choice] = []
    found = tune(chosen=shown.append, epochs=1)
    assert tuple(shown) == found.choices
    assert "plan.asked" in keys(found)


def test_a_checkpoint_of_more_photos_is_kept_from_a_head(
    taught: Taught, tune: Tune, killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "why_only_head", lambda *_: Choice("single"))
    findings = dataclasses.replace(taught[2].findings, data_sha256="of one photo a class")
    with pytest.raises(PhotoSetError, match="is of other photos"):
        tune(lesson=dataclasses.replace(taught[2], findings=findings), epochs=3, resume=True)
    assert (killed / "checkpoint.safetensors").exists()


def test_maps_that_run_out_of_time_are_not_kept(taught: Taught, tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_run = tuning.plan_run

    def late(job: tuning_setup.Job, trainer: tuning_steps.Trainer) -> Any:
        found = plan_run(job, trainer)
        trainer.deadline = 0.0
        return found

    monkeypatch.setattr(tuning, "plan_run", late)
    lines: list[str] = []
    found = tune(lines.append)
    assert lines[:2] == [
        "Feature maps: the time allowed is over.",
        "First run, last stage: the time allowed is over in epoch 1 of 2.",
    ]
    assert (found.kept, "maps" in keys(found), keys(found)[-1]) == ("head", False, "kept.head.untried")
    assert not list((taught[0].settings.cache / tuning.FOLDER / "small").glob("*maps*"))


@pytest.mark.parametrize("method", ["auto", "last", "all"])
def test_too_little_time_is_said_at_once(tune: Tune, method: str) -> None:
    found = tune(method=method, epochs=None, minutes=1e-6)
    assert "plan.none" in keys(found)
    assert (found.kept, found.epochs, keys(found)[-1]) == ("head", (), "kept.head.untried")


def test_a_network_that_became_worse_is_not_kept(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_steps, "RATE", 10.0)
    found = tune(epochs=1)
    assert (found.kept, found.tuned, keys(found)[-1]) == ("head", None, "kept.head")
    gain = found.rows[1].gain
    assert gain is not None
    assert gain.low < 0


def test_a_gpu_out_of_memory_halves_the_batch(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    learn_in_parts = tuning_steps.Trainer._learn_in_parts

    def fail_above_8(self: tuning_steps.Trainer, *values: object) -> float:
        if self.micro_batch > 8:
            raise torch.OutOfMemoryError
        return learn_in_parts(self, *values)

    monkeypatch.setattr(tuning_steps.Trainer, "_learn_in_parts", fail_above_8)
    tune(lines.append, epochs=1)
    assert [line for line in lines if "out of memory" in line] == [
        f"The GPU is out of memory: its batches are halved to {size}, gradients are added up." for size in (16, 8)
    ]


def test_short_memory_adds_up_gradients(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_setup, "free_bytes", lambda: 2**25)
    gradients: dict[int, torch.Tensor] = {}
    learn = tuning_steps.Trainer.learn

    def learn_twice(self: tuning_steps.Trainer, inputs: torch.Tensor, classes: torch.Tensor, first: int) -> float:
        for size in (tuning_steps.BATCH, self.micro_batch):
            self.network.zero_grad()
            with monkeypatch.context() as patch:
                patch.setattr(self, "micro_batch", size)
                loss = learn(self, inputs, classes, first)
            assert self.network.weight.grad is not None
            gradients[size] = self.network.weight.grad.clone()
        assert torch.allclose(*gradients.values(), rtol=1e-3, atol=1e-6)
        return loss

    monkeypatch.setattr(tuning_steps.Trainer, "learn", learn_twice)
    found = tune(epochs=1)
    assert "memory" in keys(found)
    assert len(gradients) == 2


def test_memory_that_keeps_files_at_hand_counts_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_setup, "memory_limit", lambda: None)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  8000 kB\nMemFree:  100 kB\nMemAvailable:  5000 kB\nCached:  4900 kB\n")
    assert tuning_setup.free_bytes(meminfo) == 5000 * 1024
    monkeypatch.setattr(tuning_setup, "memory_limit", lambda: 4096)
    assert tuning_setup.free_bytes(meminfo) == 4096
    assert tuning_setup.free_bytes(tmp_path / "none") == 4096
