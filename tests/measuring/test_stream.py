"""Photos from files and folders: which are found, in which order, and how they are read."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from fakes import colour_png, fake_classifier, fake_model, make_classifier

from app.classifier import Answer
from app.errors import NoPhoto
from app.measuring.stream import classify_files, printable
from app.photos.folders import SUFFIXES, FileProblem, list_photos


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


def test_only_a_few_files_are_read_ahead(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(colour_png(1, 0, 2, size=(30, 30)))
    taken = itertools.count()
    files = (str(tmp_path / "a.png") for _ in iter(lambda: next(taken), None))  # without an end
    rows = classify_files(fake_classifier(), files, top=1, max_pixels=10**6)
    for _ in range(10):
        assert next(rows)[1].predictions[0].class_id == 1
    rows.close()
    assert next(taken) <= 10 + 2 * fake_classifier().max_parallel + 1


def test_many_files_keep_their_order(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{number}.png") for number in range(30)]
    for number, file in enumerate(files):
        Path(file).write_bytes(colour_png(number, 200, 201, size=(30 + 40 * (number % 3), 30)))
    rows = classify_files(make_classifier(fake_model, cpus=3), files, top=1, max_pixels=10**6)
    assert [(name, outcome.predictions[0].class_id) for name, outcome in rows] == [
        (file, number) for number, file in enumerate(files)
    ]


def test_files_that_cannot_be_read_load_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    classifier = make_classifier(lambda: pytest.fail("The model was loaded."))
    files = [str(tmp_path / name) for name in ("missing.png", "empty.png")]
    assert len(list(classify_files(classifier, files, top=1, max_pixels=10**6))) == 2


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
def test_printable_escapes_only_what_would_break_a_line(name: str, shown: str) -> None:
    assert printable(name) == shown
