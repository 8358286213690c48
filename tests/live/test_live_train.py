"""Training as a user does it: real processes, signals, a full disk, two at a time, and a service at the end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import torch
import torchvision
from made_photos import write_photos
from servers import ROOT, TOPTHREE, environment, serving
from workers import wait_until

from app.model.own_models import list_models, list_names, list_versions, read_version
from app.settings import Settings

pytestmark = pytest.mark.live

MOUNT = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve photos of three classes."""
    return write_photos(tmp_path / "things")


@pytest.fixture
def start(packaged_settings: Settings, photos: Path, tmp_path: Path) -> Iterator[Start]:
    """Start trainings with the packaged model, each in a session of its own; all of them end with the test."""
    begun: list[subprocess.Popen[str]] = []

    def run(*arguments: str, prefix: tuple[str, ...] = (), **settings: object) -> subprocess.Popen[str]:
        values = {"model": "efficientnet_lite0", "models": tmp_path / "models"} | settings
        own = environment(packaged_settings.cache, **values)
        command = [*prefix, *TOPTHREE, "train", str(photos), "--report", str(tmp_path / "report.html"), *arguments]
        begun.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=own,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return begun[-1]

    yield run
    for process in begun:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_folder_becomes_a_service(packaged_settings: Settings, photos: Path, tmp_path: Path) -> None:
    command = (*TOPTHREE, "train", str(photos), "--report", str(tmp_path / "report.html"), "--serve")
    options = {"model": "efficientnet_lite0", "models": tmp_path / "models"}
    with serving(packaged_settings.cache, tmp_path / "log", command=command, **options) as server:
        ready = server.wait_until_ready().json()
        assert (ready["model"]["name"], ready["model"]["version"]) == ("things", 1)
        for label in ("cat", "coffee", "rocket"):
            photo = (photos / label / "1.jpg").read_bytes()
            answer = httpx.post(f"{server.url}/api/v1/predict", content=photo, headers={"Content-Type": "image/jpeg"})
            assert answer.json()["predictions"][0]["label"] == label
    assert "Wrote version 1 of things" in server.log
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_better_backbone_is_chosen_and_serves(packaged_settings: Settings, photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    # A network that has learnt nothing: its embeddings say little about a photo.
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "own.pth")
    command = (*TOPTHREE, "train", str(photos), "--report", str(tmp_path / "report.html"), "--backbone", "auto")
    options = {"weights": tmp_path / "own.pth", "models": tmp_path / "models"}
    with serving(packaged_settings.cache, tmp_path / "log", command=(*command, "--serve"), **options) as server:
        assert server.wait_until_ready().json()["model"]["backbone"] == "efficientnet_lite0"
    assert read_version(tmp_path / "models", "things").backbone == "efficientnet_lite0"
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Backbones compared" in report
    assert "resnet18 " in report.partition("Backbones compared")[2]


@pytest.mark.parametrize("sign", ["models/.train-things.lock", "cache/embeddings/*/*.npy"])
def test_ctrl_c_ends_all_processes_and_leaves_nothing(
    start: Start, packaged_settings: Settings, tmp_path: Path, sign: str
) -> None:
    # A cache without embeddings, and with the model.
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache/prepared").symlink_to(packaged_settings.cache / "prepared")
    process = start(cache=tmp_path / "cache")
    wait_until(lambda: process.poll() is not None or any(tmp_path.glob(sign)))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert list_names(tmp_path / "models") == []
    assert not (tmp_path / "report.html").exists()
    again = start(cache=tmp_path / "cache")
    assert again.wait(timeout=120) == 0
    assert list_versions(tmp_path / "models", "things") == [1]


@pytest.mark.parametrize("names", [("things", "things"), ("things", "others")])
def test_two_processes_train_into_one_folder(start: Start, tmp_path: Path, names: tuple[str, str]) -> None:
    processes = [start("--name", name, "--no-thumbnails") for name in names]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    done = [process.returncode for process in processes]
    assert all(not isinstance(listed.found, Exception) for listed in list_models(tmp_path / "models"))
    if names[0] != names[1]:
        assert (done, list_names(tmp_path / "models")) == ([0, 0], ["others", "things"])
        return
    assert list_versions(tmp_path / "models", "things") == list(range(1, 1 + done.count(0)))
    assert 0 in done
    for status, error in zip(done, errors, strict=True):
        assert status == 0 or error.startswith("Error: Another process is training things in ")


FULL = {
    "models": ("8k", "/things cannot be written: No space left on device."),
    "cache": ("40k", ": its disk is full. Set TOPTHREE_CACHE to a folder on a disk with more room."),
    "report": ("4k", "report.html cannot be written: No space left on device; the model is kept."),
}


@pytest.mark.parametrize("place", FULL)
def test_a_full_disk_is_one_sentence(start: Start, packaged_settings: Settings, tmp_path: Path, place: str) -> None:
    size, sentence = FULL[place]
    disk = tmp_path / "disk"
    disk.mkdir()
    link = f'ln -s {packaged_settings.cache}/prepared {disk}/prepared && exec "$@"'
    prefix = ("unshare", "-rm", "sh", "-c", MOUNT, "sh", size, str(disk), "sh", "-c", link, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    if place == "report":
        process = start("--report", str(disk / "report.html"), prefix=prefix)
    else:
        process = start(prefix=prefix, **{place: disk})
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.splitlines()[-1].endswith(sentence), errors
    assert "Traceback" not in errors
    assert list_names(tmp_path / "models") == (["things"] if place == "report" else [])
