"""`topthree batch`: options, exit status, what it prints, slices, and the status of a folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import paths_of
from click.testing import CliRunner, Result
from fakes import colour_png, fake_model
from indexes import full_disk

from app.batch.start import parse_slice
from app.batch.status import Status, pace_of, read_status
from app.commands import cli
from app.errors import BatchError
from app.model.served import Served
from app.photos.decoders import Decoders

SMALL = colour_png(0, 2, 1, size=(30, 20))


@pytest.fixture(autouse=True)
def fake_weights(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the command use the fake engine; it sets a handler of SIGTERM, which is put back."""
    monkeypatch.setattr("app.classifier.load_served", lambda *_: Served(fake_model()))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(SMALL)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["batch", *map(str, arguments)])


def test_all_classified_is_status_0(photos: Path, tmp_path: Path) -> None:
    result = run(photos, "--output", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines()[-1] == f"3 photos in {tmp_path}/out, 0 failed."
    assert paths_of(tmp_path / "out") == [f"{photos}/{number}.png" for number in range(3)]


@pytest.mark.parametrize("command", ["batch", "index"])
def test_no_decoders_is_one_sentence(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, command: str
) -> None:
    monkeypatch.setattr("app.classifier.Decoders", Decoders)  # of its own
    monkeypatch.setattr("app.photos.supervisor.MAX_WAIT_SECONDS", 0)
    with full_disk(200_000):
        result = CliRunner().invoke(cli, [command, str(photos), "--output", str(tmp_path / "out")])
    assert (result.exit_code, result.stderr) == (1, "Error: No process for decoding photos can be started.\n")
    assert "ulimit -f" in caplog.text
    assert list(tmp_path.glob("out/part-*")) == []


# The command in another process, which gets a signal when it loads the model.
STOPPED = """
import os, sys
import app.classifier
from app.commands import cli
number = int(sys.argv.pop())
app.classifier.load_served = lambda *_: os.kill(os.getpid(), number)
cli(prog_name="topthree")
"""


@pytest.mark.parametrize("command", ["batch", "index"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_stopped_early_says_so(photos: Path, tmp_path: Path, command: str, number: int) -> None:
    arguments = [command, photos, "--output", tmp_path / "out", str(int(number))]
    done = subprocess.run([sys.executable, "-c", STOPPED, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "Error: The job was stopped; the same command does the rest.\n")


def test_some_failed_is_status_1_and_shown_by_status(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"")
    assert run(photos, "--output", tmp_path / "out", "--format", "csv").exit_code == 1
    shown = run("--status", tmp_path / "out")
    assert (shown.exit_code, shown.stdout.splitlines()) == (
        0,
        ["done      4 of 4", "failed    1", "          1 no-photo, for example: The file is empty."],
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--output", "out"], "Error: Name at least one source, and --output."),
        (["photos"], "Error: Name at least one source, and --output."),
        (["--status", "photos"], "Error: photos is not the output folder of a batch."),
        (["gs://x/y", "--output", "out"], "Error: Of addresses, only s3://BUCKET/PREFIX can be read."),
        (["photos", "--output", "out", "--model", "nothing"], "There is no model named 'nothing'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(photos.parent)
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert sentence in result.stderr.splitlines()[-1]


SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2"}


@pytest.mark.parametrize(
    ("text", "environment", "found"),
    [
        ("1/1", {}, (0, 1)),
        ("3/16", {}, (2, 16)),
        ("auto", SLURM | {"SLURM_ARRAY_TASK_COUNT": "8"}, (3, 8)),
        ("auto/16", {"JOB_COMPLETION_INDEX": "15"}, (15, 16)),
    ],
)
def test_a_slice_is_given_or_found(text: str, environment: dict[str, str], found: tuple[int, int]) -> None:
    assert parse_slice(text, environment) == found


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("0/4", {}),
        ("5/4", {}),
        ("3", {}),
        ("x", {}),
        ("auto", {}),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}),
        ("auto/4", {"JOB_COMPLETION_INDEX": "4"}),
        ("auto/4", {"JOB_COMPLETION_INDEX": "first"}),
    ],
)
def test_a_slice_that_makes_no_sense_is_refused(text: str, environment: dict[str, str]) -> None:
    with pytest.raises(BatchError, match="--shard"):
        parse_slice(text, environment)


def test_the_pace_is_that_of_the_newest_parts() -> None:
    assert pace_of([(0.0, 900), (5000.0, 50), (5010.0, 100), (5020.0, 100)]) == 10.0
    assert pace_of([(5.0, 10)]) is None
    assert Status(rows=100, listed=400, photos_per_second=10.0).seconds_left == 30.0


def test_a_folder_that_is_no_batch_has_no_status(tmp_path: Path) -> None:
    with pytest.raises(BatchError):
        read_status(tmp_path)
