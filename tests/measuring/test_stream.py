"""Photos from files and folders: which are found, in which order, and how they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeEngine, colour_png, fake_classifier

from app.classifier import MAX_BATCH, Answer
from app.errors import NoPhoto
from app.measuring.stream import classify_files, printable
from app.photos.folders import SUFFIXES, FileProblem, list_photos


class CountingEngine(FakeEngine):
    """Remember how many photos each inference had."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def infer(self, batch, *, alone=False):
        self.sizes.append(len(batch))
        return super().infer(batch, alone=alone)


@pytest.mark.parametrize("suffix", [*sorted(SUFFIXES), ".JPG", ".Heic"])
def test_a_folder_gives_every_kind_of_photo(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x{suffix}").touch()
    assert list_photos([str(tmp_path)]) == [str(tmp_path / f"x{suffix}")]


@pytest.mark.parametrize("name", ["notes.txt", "jpg", "x.jpg.part", "x.svg", ".jpg"])
def test_a_folder_gives_nothing_else(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "album.jpg").mkdir()
    with pytest.raises(FileProblem, match="no photo in"):
        list_photos([str(tmp_path)])


def test_a_folder_is_read_to_its_depth_and_sorted(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/z/c.jpg", "a/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_photos([str(tmp_path)]) == [str(tmp_path / name) for name in ("a/a.jpg", "a/z/c.jpg", "b.jpg")]


def test_a_named_file_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    assert list_photos([str(tmp_path / "photo.bin"), "-"]) == [str(tmp_path / "photo.bin"), "-"]


def test_a_folder_called_dash_is_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").mkdir()
    assert list_photos(["-"]) == ["-"]


def test_each_file_comes_with_its_photo_or_its_problem(tmp_path: Path) -> None:
    good, empty, missing = (str(tmp_path / name) for name in ("good.png", "empty.png", "missing.png"))
    Path(good).write_bytes(colour_png(1, 0, 2))
    Path(empty).touch()
    rows = list(classify_files(fake_classifier(), [missing, good, empty], top=1, max_pixels=10**6))
    assert [name for name, _ in rows] == [missing, good, empty]
    assert [type(outcome) for _, outcome in rows] == [FileProblem, Answer, NoPhoto]
    assert rows[1][1].predictions[0].class_id == 1


def test_no_more_than_one_batch_is_read_ahead(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{number}.png") for number in range(MAX_BATCH + 3)]
    for file in files:
        Path(file).write_bytes(colour_png(1, 0, 2, size=(30, 30)))
    engine = CountingEngine()
    rows = classify_files(fake_classifier(engine), files, top=1, max_pixels=10**6)
    next(rows)
    assert sum(engine.sizes) == MAX_BATCH
    assert len(list(rows)) == MAX_BATCH + 2
    assert sum(engine.sizes) == MAX_BATCH + 3


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("[bold]猫‍é.jpg", "[bold]猫‍é.jpg"),
        ("a\tb\nc\r.jpg", r"a\tb\nc\r.jpg"),
        ("\x1b[2J\x9b.jpg", r"\x1b[2J\x9b.jpg"),
        ("\u2028\u2029.jpg", r"\u2028\u2029.jpg"),
        ("\udcff.jpg", r"\udcff.jpg"),
    ],
)
def test_printable_escapes_what_would_break_a_line_and_nothing_else(name: str, shown: str) -> None:
    assert printable(name) == shown
