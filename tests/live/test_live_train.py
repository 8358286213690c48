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
from made_photos import write_photos
from servers import ROOT, TOPTHREE, environment, serving
from small_disk import MOUNT

from app.model.own_models import list_models, list_names, list_versions
from app.settings import Settings

pytestmark = [pytest.mark.live, pytest.mark.slow]

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve photos of three classes."""
    return write_photos(tmp_path / "things")


@pytest.fixture
def start(small_settings: Settings, photos: Path, tmp_path: Path) -> Iterator[Start]:
    """Start trainings with a small model, each in a session of its own; all of them end with the test."""
    begun: list[subprocess.Popen[str]] = []

    def run(*arguments: str, prefix: tuple[str, ...] = (), **settings: object) -> subprocess.Popen[str]:
        small = {"model": small_settings.model, "labels": small_settings.labels, "models": tmp_path / "models"}
        own = environment(small_settings.cache, **small | settings)
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


def test_a_head_on_a_model_file_is_served_beside_it(small_settings: Settings, photos: Path, tmp_path: Path) -> None:
    command = (*TOPTHREE, "train", str(photos), "--report", str(tmp_path / "report.html"), "--serve")
    options = {"model": small_settings.model, "labels": small_settings.labels, "models": tmp_path / "models"}
    with serving(small_settings.cache, tmp_path / "log", command=command, **options) as server:
        assert server.wait_until_ready().json()["model"]["name"].startswith("file/")
        photo = (photos / "cat" / "1.jpg").read_bytes()
        answer = httpx.post(
            f"{server.url}/api/v1/predict?model=things", content=photo, headers={"Content-Type": "image/jpeg"}
        )
        assert answer.json()["model"]["name"] == "things"
    assert "choose things on the page, or with ?model=things." in server.log


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
    "report": ("4k", "report.html cannot be written: No space left on device; the model is kept."),
}


@pytest.mark.parametrize("place", FULL)
def test_a_full_disk_is_one_sentence(start: Start, tmp_path: Path, place: str) -> None:
    size, sentence = FULL[place]
    disk = tmp_path / "disk"
    disk.mkdir()
    prefix = ("unshare", "-rm", "sh", "-c", MOUNT, "sh", size, str(disk))
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
