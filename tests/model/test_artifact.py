"""An artifact is found by what it depends on, verified, rebuilt when damaged, and never half there."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from colour_graphs import save_graph
from fakes import colour_png

from app.commands import cli
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
from app.model.model_files import file_digest
from app.model.records import RECORDS
from app.model.weights import FALLBACK_MARKER, packaged_weights
from app.settings import Settings

RESNET18 = RECORDS["resnet18"]
EFFICIENTNET_LITE0 = RECORDS["efficientnet_lite0"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(packaged_settings: Settings, tmp_path: Path) -> Settings:
    """Settings whose cache is a copy, for this test alone, of one with the packaged model prepared."""
    cache = tmp_path / "copy"
    shutil.copytree(packaged_settings.cache, cache, ignore=other_models)
    return dataclasses.replace(packaged_settings, cache=cache)


def other_models(folder: str, names: list[str]) -> list[str]:
    """Return the names in a folder of the cache that belong to what other tests prepare there."""
    prefix = f"{EFFICIENTNET_LITE0.name}-{EFFICIENTNET_LITE0.sha256[:8]}"
    is_of_models = Path(folder).name == "prepared"
    return [name for name in names if is_of_models and name != ".lock" and not name.startswith(prefix)]


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
    bad = tmp_path / "bad.onnx"
    bad.write_text("not a model")
    with pytest.raises(WeightsError) as caught:
        ensure_prepared(dataclasses.replace(settings, model=str(bad)))
    assert f" could not be prepared: {bad} cannot be read by OpenVINO: it is damaged" in str(caught.value)
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


PREPARE_WATCHED = """
import socket, sys
connect = socket.socket.connect
def watched(self, address):
    print("opened", address, file=sys.__stdout__)  # which --quiet does not redirect
    return connect(self, address)
socket.socket.connect = watched
socket.getaddrinfo = lambda *what, **more: print("looked up", what, file=sys.__stdout__)
from app.commands import cli
cli(sys.argv[1:])
"""


def prepare(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    """Start the command in a process of its own that prints the hosts which it asks."""
    command = [sys.executable, "-c", PREPARE_WATCHED, "prepare", *arguments]
    environment = os.environ | settings.as_environment()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


@pytest.fixture
def of_file(make_settings: Callable[..., Settings], tmp_path: Path) -> Settings:
    """Settings of a small model file, whose preparing needs no torch, and an empty cache."""
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\nother\n")
    return make_settings(model=save_graph(tmp_path), labels=tmp_path / "names.txt", cache=tmp_path / "cache")


def test_two_processes_make_a_damaged_artifact_again_once(of_file: Settings) -> None:
    record = dataclasses.replace(RESNET18, name="file/model")
    damaged = artifact_folder(of_file.cache, record, file_digest(Path(of_file.model)), "fp32")
    unfinished = damaged.with_name(".unfinished-killed")
    for folder in (damaged, unfinished):
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(b"half")
    both = [prepare(of_file) for _ in range(2)]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [each for each in damaged.parent.iterdir() if each.is_dir()] == [damaged]
    assert open_prepared(of_file, identify_weights(of_file)) is not None
    assert not any("opened" in output or "looked up" in output for output, _ in outputs)


def test_what_is_prepared_already_is_said_to_be_left(of_file: Settings) -> None:
    outputs = [prepare(of_file, *more).communicate(timeout=240)[0] for more in ((), (), ("--rebuild",))]
    left = "Prepared already, and left as it is; --rebuild makes it again: "
    assert [output.startswith(("Prepared: ", left)) for output in outputs] == [True] * 3
    assert [output.startswith(left) for output in outputs] == [False, True, False]


def test_preparing_int8_quietly_says_nothing_and_asks_no_host(
    of_file: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(20):
        (photos / f"{number}.png").write_bytes(colour_png(12 * number, 255 - 12 * number, 100))
    asked, connect = list[object](), socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda self, to: (asked.append(to), connect(self, to))[1])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *host, **more: asked.append(host))
    for name, value in of_file.as_environment().items():
        monkeypatch.setenv(name, value)
    # In this process, where another test may have imported nncf, which takes seconds.
    with pytest.raises(SystemExit) as ended:
        cli(["prepare", "--precision", "int8", "--calibrate", str(photos), "--quiet"])
    output, errors = capfd.readouterr()
    assert (output, asked) == ("", [])
    # Twenty plain colours may not pass the test; that it was reached is what shows that all before it ran.
    assert len(errors.splitlines()) == ended.value.code, errors
    assert all(line.startswith("Error: ") and "nothing was written" in line for line in errors.splitlines())
    made = [path for path in (of_file.cache / "prepared").iterdir() if path.is_dir() and "-int8-" in path.name]
    assert len(made) == 1 - ended.value.code
