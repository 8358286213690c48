"""Jobs: what they write, what they do again, and what several of them do on one output folder."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from batches import MAX_PIXELS, batch, make_job, paths_of, rows_of
from fakes import colour_png, fake_classifier, fake_model, make_classifier
from own_heads import classifier_with_heads
from waiting import wait_until

from app.batch.answering import Options
from app.batch.entries import entry_of, problem_entry, shard_of
from app.batch.parts import Parts
from app.batch.rows import Columns
from app.batch.runs import default_shards, read_run, write_run
from app.batch.start import begin
from app.batch.tables import FORMATS, read_table
from app.errors import BatchError, BatchStopped
from app.model.labels import Label
from app.model.served import Served

SMALL = colour_png(0, 2, 1, size=(30, 20))
COMMAND = (sys.executable, str(Path(__file__).resolve().parents[1] / "support" / "batch_job.py"))
PATIENCE_SECONDS = 60.0
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with 40 photos, of which three fail."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(37):
        (folder / f"{number:02}.png").write_bytes(SMALL)
    (folder / "empty.png").write_bytes(b"")
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "text.jpg").write_text("Just some words.")
    return folder


def slugs(output: Path) -> dict[str, str]:
    return {Path(row["path"]).name: row["error"] for row in rows_of(output) if row["error"]}


FAILED = {"empty.png": "no-photo", "gone.png": "unreadable-file", "text.jpg": "unsupported-image"}


@pytest.mark.parametrize("format_", FORMATS)
def test_every_photo_is_one_row(photos: Path, tmp_path: Path, format_: str) -> None:
    progress = batch([photos], tmp_path / "out", format_=format_, shards=3)
    assert (progress.photos, progress.done, progress.failed, progress.busy) == (40, 40, 3, 0)
    assert paths_of(tmp_path / "out") == sorted(str(path) for path in photos.iterdir())
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
        "_run.json",
        *(f"part-0000{number}.{format_}" for number in range(3)),
    ]
    assert slugs(tmp_path / "out") == FAILED


@pytest.mark.parametrize(("format_", "name"), [("parquet", "parquet"), ("ndjson", "json"), ("csv", "csv")])
def test_other_programs_read_the_folder(photos: Path, tmp_path: Path, format_: str, name: str) -> None:
    from pyarrow.dataset import dataset

    batch([photos], tmp_path / "out", format_=format_, shards=3)
    (tmp_path / "out" / f".part-00000.{format_}.1").write_bytes(b"of a job that was killed")
    assert dataset(tmp_path / "out", format=name).count_rows() == 40


@pytest.mark.parametrize("format_", FORMATS)
def test_a_row_has_what_the_photo_shows(tmp_path: Path, format_: str) -> None:
    (tmp_path / "=1 '.png").write_bytes(SMALL)
    batch([tmp_path / "=1 '.png"], tmp_path / "out", format_=format_)
    (row,) = rows_of(tmp_path / "out")
    facts = {name: row[name] for name in ("path", "format", "label_1", "label_2", "error", "probability_1", "group")}
    assert facts == {
        "path": f"{tmp_path}/=1 '.png",
        "format": "PNG",
        "label_1": "tench",
        "label_2": "great white shark",
        "error": None,
        "probability_1": None,
        "group": None,
    }
    assert [float(row[name]) for name in ("width", "height", "class_id_2")] == [30, 20, 2]
    assert float(row["confidence_1"]) == pytest.approx(0.665241)


@pytest.mark.parametrize("format_", ["parquet", "ndjson"])
def test_embeddings_are_kept_in_float16(photos: Path, tmp_path: Path, format_: str) -> None:
    batch([photos], tmp_path / "out", format_=format_, embeddings=True)
    rows = {Path(row["path"]).name: row["embedding"] for row in rows_of(tmp_path / "out")}
    assert np.asarray(rows["00.png"], np.float16).tolist() == [1, 1, 1, 1]
    assert rows["text.jpg"] is None


def test_several_models_share_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(SMALL)
    classifier = classifier_with_heads(tmp_path / "models")
    models = classifier.find_models(["pets", "tools"])
    options = Options(Columns(1, ("pets", "tools"), embeddings=False), MAX_PIXELS)
    output, sources = tmp_path / "out", [str(tmp_path / "a.png")]
    output.mkdir()
    job, entries = begin(classifier, models, sources, output, options, format_="parquet", shards=None)
    job.run(entries)
    (row,) = rows_of(output)
    assert (row["label_1"], row["tools.label_1"]) == ('dog, "big"', "cat")


def test_heat_maps_are_named_by_digest(photos: Path, tmp_path: Path) -> None:
    batch([photos], tmp_path / "out", heatmaps=tmp_path / "maps")
    digests = {row["sha256"] for row in rows_of(tmp_path / "out") if not row["error"]}
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {f"{digest}.webp" for digest in digests}


def test_the_same_command_again_computes_nothing(photos: Path, tmp_path: Path) -> None:
    batch([photos], tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    progress = batch([photos], tmp_path / "out")
    assert (progress.computed, progress.done, progress.failed) == (0, 40, 3)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")} == before


@pytest.mark.parametrize("format_", FORMATS)
def test_a_collection_may_grow_and_shrink(photos: Path, tmp_path: Path, format_: str) -> None:
    batch([photos], tmp_path / "out", format_=format_)
    (photos / "00.png").unlink()
    for name in ("=new.png", "'=new.png", os.fsdecode(b"\xff.png"), "new\nline\r.png"):
        (photos / name).write_bytes(SMALL)
    assert batch([photos], tmp_path / "out", format_=format_).computed == 4
    assert batch([photos], tmp_path / "out", format_=format_).computed == 0
    paths = paths_of(tmp_path / "out")
    assert len(paths) == len(set(paths)) == 44


def test_a_path_that_is_listed_twice_is_one_row(photos: Path, tmp_path: Path) -> None:
    progress = batch([photos, photos / "00.png", f"{photos}/*"], tmp_path / "out")
    assert (progress.photos, progress.done, len(paths_of(tmp_path / "out"))) == (40, 40, 40)


@pytest.mark.parametrize("format_", FORMATS)
def test_only_failed_photos_are_tried_again(photos: Path, tmp_path: Path, format_: str) -> None:
    batch([photos], tmp_path / "out", format_=format_)
    (photos / "empty.png").write_bytes(SMALL)
    (photos / "nowhere").write_bytes(SMALL)
    progress = batch([photos], tmp_path / "out", format_=format_, retry_failed=True)
    assert (progress.computed, progress.done, progress.failed) == (3, 40, 1)
    assert slugs(tmp_path / "out") == {"text.jpg": "unsupported-image"}
    assert paths_of(tmp_path / "out") == sorted(str(path) for path in photos.iterdir() if path.name != "nowhere")


def test_a_folder_that_can_be_read_by_now_has_no_row(photos: Path, tmp_path: Path) -> None:
    job, entries = make_job([photos], tmp_path / "out")
    failed = problem_entry(f"{photos}/sub", "unreadable-folder", "The folder cannot be read: Permission denied.")
    assert job.run([*entries, failed]).failed == 4
    assert batch([photos], tmp_path / "out").failed == 4
    assert batch([photos], tmp_path / "out", retry_failed=True).failed == 3
    assert slugs(tmp_path / "out") == FAILED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_unreadable_folder_is_a_row(tmp_path: Path) -> None:
    for name in ("open/a.png", "closed/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(SMALL)
    (tmp_path / "closed").chmod(0)
    code = (
        "import os, sys; from app.batch.walking import Walk; os.chdir(sys.argv[1]); os.setuid(65534)\n"
        "print(sorted((entry.name, entry.detail) for entry in Walk().below('.')))"
    )
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    wanted = [("./closed", "The folder cannot be read: Permission denied."), ("./open/a.png", "")]
    assert done.stdout.strip() == str(wanted)


def test_slices_share_a_folder_without_overlap(photos: Path, tmp_path: Path) -> None:
    counts = [batch([photos], tmp_path / "out", number=number, jobs=3).computed for number in range(3)]
    assert (sum(counts), min(counts) > 5) == (40, True)
    assert paths_of(tmp_path / "out") == sorted(str(path) for path in photos.iterdir())


@pytest.mark.parametrize(
    ("photos", "jobs", "shards"),
    [(0, 1, 1), (64, 1, 1), (65, 1, 2), (10**6, 1, 512), (100, 16, 256), (10**6, 64, 1024)],
)
def test_the_number_of_shards_follows_the_photos(photos: int, jobs: int, shards: int) -> None:
    assert default_shards(photos, jobs) == shards


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"top": 3}, "top is 2 there and 3 now"),
        ({"embeddings": True}, "embeddings is no there and yes now"),
        ({"format_": "csv"}, "format is ndjson there and csv now"),
        ({"shards": 9}, "was begun with --shards 1, which cannot change"),
    ],
)
def test_another_run_in_the_folder_is_an_error(
    photos: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    batch([photos], tmp_path / "out")
    with pytest.raises(BatchError, match=said):
        batch([photos], tmp_path / "out", **changes)
    assert len(paths_of(tmp_path / "out")) == 40


def test_a_model_that_changes_under_a_job_is_not_mixed_in(photos: Path, tmp_path: Path) -> None:
    model = fake_model()
    other = dataclasses.replace(model, labels=(Label(0, None, "other", None), *model.labels[1:]))
    classifier = fake_classifier()
    job, entries = make_job([photos], tmp_path / "out", classifier, shards=4)
    job.note = lambda progress: classifier.use(Served(other))
    job.run(entries)
    assert {row["label_1"] for row in rows_of(tmp_path / "out") if not row["error"]} == {"tench"}
    with pytest.raises(BatchError, match="holds another run: model is resnet18 .* there and resnet18 .* now"):
        batch([photos], tmp_path / "out", make_classifier(lambda: other))


def test_a_folder_with_other_files_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"holds other files and no _run\.json"):
        batch([photos], photos)


def test_a_damaged_part_is_an_error_and_stays(photos: Path, tmp_path: Path) -> None:
    batch([photos], tmp_path / "out", format_="parquet")
    part = tmp_path / "out" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(BatchError, match=r"part-00000\.parquet cannot be read; move it away"):
        batch([photos], tmp_path / "out", format_="parquet")
    part.rename(tmp_path / "away")
    assert batch([photos], tmp_path / "out", format_="parquet").done == 40


def test_a_part_of_another_run_is_an_error(photos: Path, tmp_path: Path) -> None:
    for name, top in (("out", 2), ("other", 3)):
        batch([photos], tmp_path / name, format_="parquet", top=top)
    (tmp_path / "other" / "part-00000.parquet").rename(tmp_path / "out" / "part-00000.parquet")
    with pytest.raises(BatchError, match=r"part-00000\.parquet is of another run"):
        batch([photos], tmp_path / "out", format_="parquet")


def test_the_first_of_two_jobs_fixes_the_run(tmp_path: Path) -> None:
    batch([Path(__file__).parents[2] / "static" / "samples" / "cat.webp"], tmp_path / "out", shards=5)
    first = read_run(tmp_path / "out")
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda n: write_run(tmp_path, msgspec.structs.replace(first, shards=n)), range(1, 33)))
    assert len({run.shards for run in runs}) == 1
    assert sorted(path.name for path in tmp_path.glob(".run*")) == []


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_disk_that_fills_costs_only_the_newest_part(photos: Path, tmp_path: Path, full_disk: Path) -> None:
    job, entries = make_job([photos], full_disk / "out", shards=8)
    filler = full_disk / "filler"

    def fill(progress: object) -> None:
        if len(list(full_disk.glob("out/part-*"))) >= 3 and not filler.exists():
            with pytest.raises(OSError, match="No space left"):
                filler.write_bytes(bytes(2**20))

    job.note = fill
    with pytest.raises(BatchStopped, match=r"part-0000\d\.ndjson cannot be written: No space left on device\."):
        job.run(entries)
    kept = paths_of(full_disk / "out")
    assert 0 < job.progress.done == len(kept) == len(set(kept)) < 40
    assert list(full_disk.glob("out/.part*")) == []
    filler.unlink()
    batch([photos], full_disk / "out")
    assert paths_of(full_disk / "out") == sorted(str(path) for path in photos.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_names_that_do_not_fit_the_disk_stop_the_job(photos: Path, tmp_path: Path, full_disk: Path) -> None:
    job, _ = make_job([photos], full_disk / "out", shards=8)
    filler = full_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(filler, filler.stat().st_size - 2 * 4096)
    with pytest.raises(BatchStopped, match=r"out cannot be written: No space left on device\."):
        job.run(entry_of(f"{'a' * 100}/{number}.png") for number in range(500))


def test_a_file_system_without_locks_stops_the_job(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", no_locks)
    with pytest.raises(BatchStopped, match=r"\.locks cannot be locked: No locks available\."):
        batch([photos], tmp_path / "out")


@pytest.fixture
def start() -> Iterator[Start]:
    """Start jobs in processes of their own, which end with the test."""
    with ExitStack() as stack:

        def run(*arguments: object, **environment: object) -> subprocess.Popen[str]:
            variables = os.environ | {name: str(value) for name, value in environment.items()}
            command = [*COMMAND, *map(str, arguments), "--format", "ndjson", "--top", "2"]
            job = stack.enter_context(subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True))
            stack.callback(job.kill)
            return job

        yield run


def wait_for_parts(output: Path, count: int) -> None:
    wait_until(lambda: len(list(output.glob("part-*"))) >= count)


def test_a_killed_job_loses_and_repeats_nothing(photos: Path, tmp_path: Path, start: Start) -> None:
    output = tmp_path / "out"
    for number in range(200):
        (photos / f"more-{number}.png").write_bytes(SMALL)
    for parts in (2, 8, 15):
        job = start(photos, "--output", output, "--shards", 20)
        wait_for_parts(output, parts)
        job.kill()
        job.wait()
        for part in output.glob("part-*"):
            assert list(read_table(part, "ndjson"))
    done = len(paths_of(output))
    progress = batch([photos], output)
    assert progress.computed == 240 - done
    assert paths_of(output) == sorted(str(path) for path in photos.iterdir())
    assert Parts(output, read_run(output)).leftovers() == {}


def held_in_the_last(folder: Path, shards: int) -> Path:
    """Write a photo that is held back, by a name whose shard is the last."""
    paths = (folder / f"held-{number}.png" for number in itertools.count())
    path = next(path for path in paths if shard_of(os.fsencode(path), shards) == shards - 1)
    path.write_bytes(colour_png(200, size=(30, 20)))
    return path


def test_two_jobs_share_a_folder_shard_by_shard(tmp_path: Path, start: Start) -> None:
    photos, gate = tmp_path / "photos", tmp_path / "gate"
    photos.mkdir()
    for number in range(30):
        (photos / f"{number:02}.png").write_bytes(SMALL)
    held_in_the_last(photos, 4)
    output = tmp_path / "out"
    first = start(photos, "--output", output, "--shards", 4, BATCH_GATE=gate)
    wait_for_parts(output, 1)
    second = batch([photos], output)
    assert second.busy >= 1
    assert len(paths_of(output)) < 31
    gate.touch()
    assert first.wait(PATIENCE_SECONDS) == 0, first.stderr.read()
    assert paths_of(output) == sorted(str(path) for path in photos.iterdir())
    assert batch([photos], output).computed == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_job_says_what_is_left(tmp_path: Path, start: Start, number: int) -> None:
    shards = {path: shard_of(os.fsencode(path), 9) for path in (tmp_path / f"{number}.png" for number in range(99))}
    photos = [path for path, shard in shards.items() if shard < 8][:4]
    for photo in photos:
        photo.write_bytes(SMALL)
    output = tmp_path / "out"
    job = start(*photos, held_in_the_last(tmp_path, 9), "--output", output, "--shards", 9, BATCH_GATE=tmp_path / "g")
    wait_for_parts(output, len({shards[photo] for photo in photos}))
    job.send_signal(number)
    (tmp_path / "g").touch()
    said = job.communicate(timeout=PATIENCE_SECONDS)[1]
    assert job.returncode == 3
    assert said.splitlines()[-1] == (
        "Error: The job was stopped. 4 of 5 photos are done; the same command does the rest."
    )
