"""`topthree index` and `topthree similar`: what they write, print and refuse."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_photos import png
from click.testing import CliRunner, Result
from fakes import encode, fake_model
from indexes import ColourEngine
from PIL import Image
from waiting import wait_until

from app.batch.listing import list_entries
from app.batch.store import Store
from app.commands import cli
from app.commands.index import below, root_of
from app.model.served import Served
from app.search.library import Library

JOB = str(Path(__file__).resolve().parents[1] / "support" / "index_job.py")


@pytest.fixture(autouse=True)
def fake_weights(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the commands use a fake engine; they set a handler of SIGTERM, which is put back."""
    monkeypatch.setattr("app.classifier.load_served", lambda *_: Served(fake_model(ColourEngine())))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def picture(seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Make a picture of a few large squares in random colours."""
    chance = random.Random(seed)
    small = Image.frombytes("RGB", (4, 3), chance.randbytes(36))
    return small.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with four photos in two folders."""
    (tmp_path / "photos/sea").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "sea/a.png", "sea/c.png")):
        (tmp_path / "photos" / name).write_bytes(encode(picture(number)))
    return tmp_path / "photos"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def paths_in(folder: Path) -> list[str]:
    return sorted(row.path for row in Library.open(folder).rows)


def test_the_same_command_adds_what_is_new(photos: Path, tmp_path: Path) -> None:
    first = run("index", photos, "--output", tmp_path / "lib")
    assert (first.exit_code, first.stdout) == (0, "")
    assert first.stderr.splitlines()[-1] == f"4 photos in {tmp_path}/lib, 0 failed."
    assert paths_in(tmp_path / "lib") == ["a.png", "b.png", "sea/a.png", "sea/c.png"]
    before = list(Library.open(tmp_path / "lib").rows)
    (photos / "new.png").write_bytes(encode(picture(9)))
    assert run("index", f"{photos}/", "--output", tmp_path / "lib").exit_code == 0
    library = Library.open(tmp_path / "lib")
    assert list(library.rows)[:4] == before
    facts = library.rows[4]
    assert (facts.path, facts.width, facts.height, facts.format) == ("new.png", 60, 40, "PNG")
    assert facts.bytes == (photos / "new.png").stat().st_size
    assert library.thumbnail(4).startswith(b"\xff\xd8")


def test_a_photo_that_changed_replaces_the_old_one(photos: Path, tmp_path: Path) -> None:
    assert run("index", photos, "--output", tmp_path / "lib").exit_code == 0
    before = {row.path: row.sha256 for row in Library.open(tmp_path / "lib").rows}
    (photos / "sea/a.png").write_bytes(encode(picture(9, (80, 80))))
    (photos / "b.png").unlink()  # which is not what was asked to be removed
    result = run("index", photos, "--output", tmp_path / "lib")
    assert "1 photo had changed" in result.stderr
    after = {row.path: row.sha256 for row in Library.open(tmp_path / "lib").rows}
    assert after.keys() == before.keys()
    assert [path for path in before if after[path] != before[path]] == ["sea/a.png"]


@pytest.mark.parametrize("is_json", [False, True])
def test_similar_prints_the_nearest_first(photos: Path, tmp_path: Path, is_json: bool) -> None:
    run("index", photos, "--output", tmp_path / "lib")
    (tmp_path / "copy.jpg").write_bytes(encode(picture(2, (90, 60)), "JPEG"))
    arguments = ("similar", tmp_path / "copy.jpg", "--index", tmp_path / "lib", "--count", "2")
    result = run(*arguments, *(["--json"] if is_json else []))
    assert result.exit_code == 0
    if is_json:
        found = json.loads(result.stdout)
        assert (found["photo"], len(found["similar"])) == (f"{tmp_path}/copy.jpg", 2)
        assert found["similar"][0]["path"] == "sea/a.png"
        assert found["similar"][0]["cosine"] > 0.99 > found["similar"][1]["cosine"]
    else:
        cosine, path = result.stdout.splitlines()[0].split()
        assert (float(cosine) > 0.99, path) == (True, "sea/a.png")
    assert run(*arguments, "--exact", *(["--json"] if is_json else [])).stdout == result.stdout


def test_a_full_disk_while_listing_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    run("index", photos, "--output", tmp_path / "lib")
    for number in range(9):
        (photos / f"{number}{'x' * 200}.png").write_bytes(b"")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        full = run("index", photos, "--output", tmp_path / "lib")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (full.exit_code, len(paths_in(tmp_path / "lib"))) == (3, 4)
    assert f"Error: The index {tmp_path}/lib cannot be written: File too large. 0 of 0 photos" in full.stderr


def test_photos_that_fail_are_listed_and_tried_again(photos: Path, tmp_path: Path) -> None:
    (photos / "empty.png").write_bytes(b"")
    (photos / "gone.png").symlink_to("nowhere")
    (photos / "text.jpg").write_text("Just some words.")
    (photos / "big.png").write_bytes(png(40_000, 40_000, 8, b""))
    failed = run("index", photos, "--output", tmp_path / "lib")
    assert failed.exit_code == 1
    assert f"4 photos in {tmp_path}/lib, 4 failed." in failed.stderr
    lines = (tmp_path / "lib/data-1/failed.ndjson").read_text().splitlines()
    assert {row["path"]: row["error"] for row in map(json.loads, lines)} == {
        "big.png": "too-many-pixels",
        "empty.png": "no-photo",
        "gone.png": "unreadable-file",
        "text.jpg": "unsupported-image",
    }
    (photos / "empty.png").write_bytes(encode(picture(7)))
    again = run("index", photos, "--output", tmp_path / "lib")
    assert (again.exit_code, f"4 photos in {tmp_path}/lib, 4 failed." in again.stderr) == (1, True)
    retried = run("index", photos, "--output", tmp_path / "lib", "--retry-failed")
    assert f"5 photos in {tmp_path}/lib, 3 failed." in retried.stderr
    assert "empty.png" in paths_in(tmp_path / "lib")


def test_odd_names_are_kept_and_printed_on_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    names = {b"a\nb.png": r"a\nb.png", b"\xff.png": r"\\xff.png", b"c\\d.png": r"c\\d.png"}
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(encode(picture(1)))
    assert run("index", folder, "--output", tmp_path / "lib").exit_code == 0
    assert paths_in(tmp_path / "lib") == ["\\xff.png", "a\nb.png", "c\\\\d.png"]
    shown = run("similar", folder / "c\\d.png", "--index", tmp_path / "lib").stdout.splitlines()
    assert len(shown) == 3
    assert run("index", "--output", tmp_path / "lib", "--remove", "\\xff.png", "a\nb.png").exit_code == 0
    assert paths_in(tmp_path / "lib") == ["c\\\\d.png"]


def test_paths_are_below_the_source(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(photos / "a.png", "in/a.png")
    monkeypatch.chdir(photos)
    sources = {
        str(photos / "sea"): ["a.png", "c.png"],
        "sea": ["a.png", "c.png"],
        ".": ["a.png", "b.png", "sea/a.png", "sea/c.png"],
        f"{photos}/*/c.png": ["sea/c.png"],
        f"{photos}/b.png": ["b.png"],
        f"{tmp_path}/x.zip": ["x.zip/in/a.png"],
        "../*.zip": ["x.zip/in/a.png"],
    }
    for source, expected in sources.items():
        entries = list_entries([source], Store(), [])
        assert sorted(below(entry, root_of(source)) for entry in entries) == expected


def test_removed_photos_are_no_longer_found(photos: Path, tmp_path: Path) -> None:
    run("index", photos, "--output", tmp_path / "lib")
    removed = run("index", "--output", tmp_path / "lib", "--remove", "sea/", "a.png")
    assert (removed.exit_code, removed.stderr) == (0, f"3 photos removed; 1 left in {tmp_path}/lib.\n")
    assert paths_in(tmp_path / "lib") == ["b.png"]
    assert len(run("similar", photos / "a.png", "--index", tmp_path / "lib").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["index", "{photos}"], "Missing option '--output'"),
        (["index", "--output", "{tmp}/lib"], "Name the source, or the photos to remove."),
        (
            ["index", "{photos}", "{photos}", "--output", "{tmp}/lib"],
            "Name one source: paths in the index are below it.",
        ),
        (["index", "{tmp}/list.txt", "--output", "{tmp}/lib"], "and not of a list of paths."),
        (["index", "{tmp}/empty", "--output", "{tmp}/lib"], "There is no photo in "),
        (["index", "{photos}", "--output", "{photos}"], "holds other files and no index.json."),
        (["index", "--remove", "a.png", "--output", "{tmp}/empty"], "is not an index: it has no index.json."),
        (["similar", "{photos}/a.png", "--index", "{tmp}/empty"], "is not an index: it has no index.json."),
        (["similar", "{photos}/none.png", "--index", "{tmp}/good"], "none.png: The file cannot be read: No such file"),
        (["similar", "/dev/null", "--index", "{tmp}/good"], "The file is empty."),
    ],
)
def test_what_cannot_be_done_is_one_sentence(photos: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "empty").mkdir()
    run("index", photos, "--output", tmp_path / "good")
    result = run(*(each.format(photos=photos, tmp=tmp_path) for each in arguments))
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert result.stderr.count("Error: ") == 1


def test_killed_jobs_lose_and_repeat_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.png").write_bytes(encode(picture(number, (20, 20))))
    command = [sys.executable, JOB, str(folder), "--output", str(tmp_path / "lib")]
    for wanted in (8, 24):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as job:
            wait_until(lambda wanted=wanted: len_of(tmp_path / "lib") >= wanted)
            held = len_of(tmp_path / "lib")
            job.send_signal(signal.SIGKILL)
        assert len_of(tmp_path / "lib") >= held
    # A machine that is overloaded may fail to start a decoder; such photos are tried again without being asked.
    assert any(subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0 for _ in range(5))
    library = Library.open(tmp_path / "lib")
    assert sorted(row.path for row in library.rows) == sorted(path.name for path in folder.iterdir())
    assert library.bits.tolist() == library.signs.bits(library.vectors).tolist()
    for row in range(0, 40, 10):
        assert library.nearest(library.vectors[row], 1, exact=True)[0][1] == pytest.approx(1, abs=1e-3)


def len_of(folder: Path) -> int:
    return len(Library.open(folder)) if (folder / "index.json").exists() else 0
