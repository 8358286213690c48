"""An artifact is found by what it depends on, verified, rebuilt when damaged, and never half there."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import colour_png

from app.errors import WeightsError
from app.model import artifact_writer
from app.model.artifact import (
    FILES,
    MANIFEST,
    Manifest,
    artifact_folder,
    ensure_prepared,
    identify_weights,
    open_prepared,
)
from app.model.records import RECORDS
from app.model.weights import FALLBACK_MARKER, packaged_weights
from app.settings import Settings

RESNET18 = RECORDS["resnet18"]
EFFICIENTNET_LITE0 = RECORDS["efficientnet_lite0"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(packaged_settings: Settings, tmp_path: Path) -> Settings:
    """Settings whose cache is a copy, for this test alone, of one with the packaged model prepared."""
    ensure_prepared(packaged_settings)
    cache = tmp_path / "copy"
    shutil.copytree(packaged_settings.cache, cache, ignore=shutil.ignore_patterns(".unfinished-*"))
    return dataclasses.replace(packaged_settings, cache=cache)


def artifact(settings: Settings) -> Path:
    return artifact_folder(settings.cache, EFFICIENTNET_LITE0, EFFICIENTNET_LITE0.sha256, "fp32")


def test_an_artifact_says_what_it_is_and_what_made_it(settings: Settings) -> None:
    manifest = ensure_prepared(settings).manifest
    assert (manifest.name, manifest.precision, manifest.classes) == ("efficientnet_lite0", "fp32", 1000)
    assert manifest.weights_sha256 == EFFICIENTNET_LITE0.sha256
    assert manifest.preprocessing["interpolation"] == "bicubic"
    assert {"openvino", "torch"} <= manifest.versions.keys()
    assert manifest.files.keys() == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_noticed(settings: Settings, name: str) -> None:
    path = artifact(settings) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert open_prepared(settings, packaged_weights("")) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "x"}', "\xff"])
def test_a_damaged_manifest_is_noticed(settings: Settings, text: str) -> None:
    (artifact(settings) / MANIFEST).write_text(text, encoding="latin-1")
    assert open_prepared(settings, packaged_weights("")) is None


def test_a_damaged_artifact_is_made_again(settings: Settings) -> None:
    (artifact(settings) / "model.bin").write_bytes(b"cut short")
    assert ensure_prepared(settings).folder == artifact(settings)
    assert (artifact(settings) / "model.bin").stat().st_size > 10**7
    assert [path.name for path in (settings.cache / "prepared").iterdir() if path.name.startswith(".unf")] == []


def test_the_artifact_alone_serves_where_the_weights_are_gone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = EFFICIENTNET_LITE0.source.replace("package:", "package:not_installed_here_")
    monkeypatch.setitem(RECORDS, "efficientnet_lite0", dataclasses.replace(EFFICIENTNET_LITE0, source=gone))
    assert ensure_prepared(settings).weights.is_fallback


def test_a_published_models_artifact_needs_neither_weights_nor_network(settings: Settings) -> None:
    folder = artifact_folder(settings.cache, RESNET18, RESNET18.sha256, "fp32")
    shutil.move(artifact(settings), folder)
    (settings.cache / FALLBACK_MARKER).unlink()
    weights = identify_weights(dataclasses.replace(settings, fallback="none", weights_url="http://127.0.0.1:9/"))
    assert (weights.record, weights.path, weights.source) == (RESNET18, folder, "prepared model")


def test_int8_without_its_artifact_names_the_command(settings: Settings) -> None:
    with pytest.raises(WeightsError, match="topthree prepare --precision int8 --calibrate FOLDER"):
        ensure_prepared(dataclasses.replace(settings, precision="int8"))


def test_without_torch_a_missing_artifact_is_one_sentence(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(artifact(settings))
    monkeypatch.setattr("importlib.util.find_spec", without_torch())
    with pytest.raises(WeightsError, match="torch, which makes it, is not installed"):
        ensure_prepared(settings)


def without_torch() -> Callable[..., object]:
    import importlib.util

    find_spec = importlib.util.find_spec
    return lambda name, *rest: None if name == "torch" else find_spec(name, *rest)


def test_what_cannot_be_prepared_is_told_in_one_sentence(settings: Settings, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pth"
    bad.write_text("not weights")
    with pytest.raises(WeightsError) as caught:
        ensure_prepared(dataclasses.replace(settings, weights=bad))
    assert str(caught.value).endswith(f"{bad} is not a weights file: it is damaged, or holds more than weights.")
    assert "Traceback" not in str(caught.value)


def test_a_failure_while_writing_leaves_nothing(settings: Settings) -> None:
    shutil.rmtree(artifact(settings))

    def fail(folder: Path) -> Manifest:
        (folder / "model.bin").write_bytes(b"half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        artifact_writer.publish(settings, packaged_weights(""), fail)
    assert [path.name for path in (settings.cache / "prepared").iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_named(settings: Settings) -> None:
    folder = settings.cache / "prepared"
    shutil.rmtree(folder)
    folder.touch()
    with pytest.raises(WeightsError) as caught:
        ensure_prepared(settings)
    assert str(caught.value) == (
        f"efficientnet_lite0 could not be prepared: The folder {folder} cannot be written: File exists. "
        "Set TOPTHREE_CACHE to a folder that can be written."
    )


def test_what_a_killed_process_left_unfinished_is_removed(settings: Settings) -> None:
    unfinished = settings.cache / "prepared" / ".unfinished-killed"
    unfinished.mkdir()
    (unfinished / "model.bin").write_bytes(b"half")
    shutil.rmtree(artifact(settings))
    ensure_prepared(settings)
    assert not unfinished.exists()


def test_two_processes_at_once_prepare_once(settings: Settings) -> None:
    shutil.rmtree(artifact(settings))
    command = [sys.executable, "-m", "app", "prepare"]
    environment = os.environ | settings.as_environment()
    both = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [path.name for path in (settings.cache / "prepared").iterdir() if path.is_dir()] == [
        artifact(settings).name
    ]
    assert open_prepared(settings, packaged_weights("")) is not None


PREPARE_WATCHED = """
import socket, sys
connect = socket.socket.connect
def watched(self, address):
    print("opened", address)
    return connect(self, address)
socket.socket.connect = watched
socket.getaddrinfo = lambda *what, **more: print("looked up", what)
from app.commands import cli
cli(sys.argv[1:])
"""


@pytest.mark.parametrize("arguments", [["--rebuild"], ["--precision", "int8", "--calibrate"]], ids=["fp32", "int8"])
def test_preparing_sends_nothing_home(settings: Settings, tmp_path: Path, arguments: list[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(20):
        (photos / f"{number}.png").write_bytes(colour_png(12 * number, 255 - 12 * number, 100))
    folder = [str(photos)] if "--calibrate" in arguments else []
    command = [sys.executable, "-c", PREPARE_WATCHED, "prepare", *arguments, *folder]
    environment = os.environ | settings.as_environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)
    # Twenty plain colours may not pass the gate; that it was reached is what shows that all before it ran.
    assert "Prepared:" in done.stdout or "--max-drop" in done.stderr or "agree with float32" in done.stderr, (
        done.stderr
    )
    assert "opened" not in done.stdout
    assert "looked up" not in done.stdout
