"""`topthree train`: from a folder to a version of a model and its report, by the packaged model."""

from __future__ import annotations

import io
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from colour_graphs import save_graph
from fakes import share_decoders
from made_photos import write_photos
from own_heads import backbone_model
from PIL import Image

from app.commands import cli
from app.errors import OwnModelError
from app.model.own_models import list_models, list_versions, read_version
from app.model.records import RECORDS
from app.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def decoders_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode in the shared processes here too; `tests/live/test_live_train.py` trains with decoders of its own."""
    share_decoders(monkeypatch, "app.training.embeddings", "app.training.report")


@pytest.fixture
def train(runner: CliRunner, packaged_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command with the packaged model, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    environment = packaged_settings.as_environment() | {"TOPTHREE_MODELS": str(tmp_path / "models")}

    def run(*arguments: str, **settings: object) -> Result:
        own = {f"TOPTHREE_{name.upper()}": str(value) for name, value in settings.items()}
        return runner.invoke(cli, ["train", *arguments], env=environment | own)

    return run


@pytest.fixture
def fake_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a fake engine compute the embeddings, of four channels, where those of the real one prove nothing more."""
    monkeypatch.setattr("app.training.backbones.load_model", lambda settings: (backbone_model(), None))


def test_a_folder_becomes_the_same_model_twice_with_a_report(train, tmp_path: Path) -> None:
    write_photos(tmp_path / "things")
    result = train("things", "--no-thumbnails")
    assert result.exit_code == 0, result.output
    model = read_version(tmp_path / "models", "things")
    assert [label.label for label in model.labels] == ["cat", "coffee", "rocket"]
    assert model.photos == 12
    assert model.accuracy is not None
    assert model.accuracy.top1 > 80
    assert "<svg" in (tmp_path / "things-report.html").read_text(encoding="utf-8")
    # The same photos give the same head.
    assert train("things", "--no-thumbnails").exit_code == 0
    heads = [(tmp_path / "models/things" / version / "head.safetensors").read_bytes() for version in ("1", "2")]
    assert heads[0] == heads[1]


def test_auto_compares_the_backbones_at_hand(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "things")
    monkeypatch.setattr("app.training.backbones.RECORDS", {"efficientnet_lite0": RECORDS["efficientnet_lite0"]})
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\nother\n")
    graph = save_graph(tmp_path)
    result = train("things", "--no-thumbnails", "--backbone", "auto", model=graph, labels=tmp_path / "names.txt")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.output.splitlines() if line.startswith("Backbones compared"))
    shares = {name: float(share) for name, share in re.findall(r"(\w+) ([\d.]+)%", line)}
    assert set(shares) == {"model", "efficientnet_lite0"}
    assert read_version(tmp_path / "models", "things").backbone == max(shares, key=shares.__getitem__)


def test_a_dry_run_reports_and_writes_nothing(train, tmp_path: Path) -> None:
    write_photos(tmp_path / "things")
    (tmp_path / "things/cat/broken.jpg").write_bytes(b"\xff\xd8\xff damaged")
    copy = (tmp_path / "things/cat/0.jpg").read_bytes()
    (tmp_path / "things/cat/copy.jpg").write_bytes(copy)
    (tmp_path / "things/coffee/wrong.jpg").write_bytes((tmp_path / "things/cat/1.jpg").read_bytes())
    result = train("things", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "Left out as exact copies: 1 file" in result.output
    assert "the same photo under several labels: 2 photos" in result.output
    assert "Not read: 1 photo" in result.output
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "things-report.html").exists()


def test_one_photo_in_each_class_is_enough(fake_backbone: None, train, tmp_path: Path) -> None:
    write_photos(tmp_path / "things", count=1)
    assert train("things").exit_code == 0
    assert list_versions(tmp_path / "models", "things") == [1]


def test_one_photo_in_each_class_is_never_tuned(fake_backbone: None, train, tmp_path: Path) -> None:
    write_photos(tmp_path / "things", count=1)
    result = train("things", "--tune", "all", "--no-thumbnails")
    assert result.exit_code == 0, result.output
    sentence = "Only the head was trained: every class has one photo, so no gain could be measured."
    assert sentence in result.output
    assert sentence in (tmp_path / "things-report.html").read_text(encoding="utf-8")
    assert read_version(tmp_path / "models", "things").trunk is None


def test_names_are_escaped_in_the_report(fake_backbone: None, train, tmp_path: Path) -> None:
    write_photos(tmp_path / "things", count=2)
    (tmp_path / "things/cat").rename(tmp_path / "things/<script>alert(1)<")
    assert train("things").exit_code == 0
    report = (tmp_path / "things-report.html").read_text(encoding="utf-8")
    assert "<script" not in report
    assert "&lt;script&gt;alert(1)&lt;" in report


def test_a_second_training_of_the_same_model_is_refused(train, tmp_path: Path) -> None:
    from filelock import FileLock

    write_photos(tmp_path / "things", count=1)
    # The files of tuning lie in the cache, which another folder of models may share.
    for folder, options in (tmp_path / "models", ()), (tmp_path / "cache/tuning", ("--tune", "last")):
        folder.mkdir(parents=True)
        with FileLock(folder / ".train-things.lock"):
            result = train("things", *options, cache=tmp_path / "cache")
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert f"Another process is training things in {folder}" in result.output


def test_recompressed_copies_are_grouped(train, tmp_path: Path) -> None:
    write_photos(tmp_path / "things")
    for path in list((tmp_path / "things").rglob("*.jpg")):
        out = io.BytesIO()
        Image.open(path).save(out, "JPEG", quality=85)
        path.with_name(f"again-{np.random.default_rng(path.stat().st_size).integers(1e9)}.jpg").write_bytes(
            out.getvalue()
        )
    result = train("things", "--dry-run")
    assert "24 photos of 3 classes" in result.output
    found = next(line for line in result.output.splitlines() if line.startswith("Nearly the same"))
    assert int(found.split()[-2]) >= 12


def test_a_folder_without_letters_needs_a_name(train, tmp_path: Path) -> None:
    write_photos(tmp_path / "衣服", count=1)
    result = train("衣服")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "choose one with --name" in result.output


def test_a_report_without_a_folder_is_refused_at_once(train, tmp_path: Path) -> None:
    write_photos(tmp_path / "things", count=1)
    result = train("things", "--report", "missing/report.html")
    assert "there is no folder missing" in result.output
    assert not (tmp_path / "models").exists()


def test_a_folder_of_models_that_is_a_file_is_refused(train, tmp_path: Path) -> None:
    write_photos(tmp_path / "things", count=1)
    (tmp_path / "models").touch()
    assert "cannot be written: File exists" in train("things").output


STAGES = [
    "app.commands.train.open_photo_set",
    "app.training.backbones.load_model",
    "app.training.embeddings._record",
    "app.training.embeddings.np.save",
    "app.training.embeddings._collect",
    "app.training.findings.group_duplicates",
    "app.training.learning.fit",
    "app.model.own_models._publish",
    "app.model.own_models.os.fsync",
    "app.commands.train.write_report",
]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupt_leaves_nothing_half_written(
    fake_backbone: None, train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, moment: str
) -> None:
    write_photos(tmp_path / "things")
    with monkeypatch.context() as patch:
        interrupt(patch, stage, moment)
        result = train("things", "--no-thumbnails", cache=tmp_path / "cache")
    assert (result.exit_code, "Traceback" in result.output) == (130, False), result.output
    for listed in list_models(tmp_path / "models"):
        assert not isinstance(listed.found, OwnModelError)
    assert not [path for path in tmp_path.rglob(".*") if path.name.startswith((".unfinished", ".things-report"))]
    assert {path.name for path in tmp_path.glob("models/[!.]*")} <= {"things"}
    before = len(list(list_models(tmp_path / "models")))
    assert train("things", "--no-thumbnails", cache=tmp_path / "cache").exit_code == 0
    assert list_versions(tmp_path / "models", "things") == [1, 2][: before + 1]


def interrupt(patch: pytest.MonkeyPatch, stage: str, moment: str) -> None:
    """Have a function end as if Ctrl-C was pressed right before or after it."""
    module, _, name = stage.rpartition(".")
    work = getattr(pkgutil.resolve_name(module), name)

    def stop(*args: object, **values: object) -> None:
        if moment == "after":
            work(*args, **values)
        raise KeyboardInterrupt

    patch.setattr(stage, stop)
