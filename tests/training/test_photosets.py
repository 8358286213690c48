"""Photo sets: which photos a folder, an archive or a table holds, and which sets are refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from app.photos.folders import FileProblem
from app.training.photosets import PhotoSetError, open_photo_set

NAMES = "label,label_zh\ncat,猫\n"


def fill(folder: Path, *names: str, data: bytes = b"photo") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def labels_of(path: Path) -> list[tuple[str, bool]]:
    return [(photo.label, photo.is_held_out) for photo in open_photo_set(path).photos]


def test_each_folder_is_a_class(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.jpg", "cat/more/2.png", "dog/1.jpg", "dog/notes.txt", "alone.jpg")
    assert labels_of(tmp_path) == [("cat", False), ("cat", False), ("dog", False)]


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
def test_a_folder_beside_train_only_tests(tmp_path: Path, held_out: str) -> None:
    fill(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", f"{held_out}/cat/2.jpg")
    assert sorted(labels_of(tmp_path)) == [("cat", False), ("cat", True), ("dog", False)]


@pytest.mark.parametrize("place", ["", "train/"])
def test_folders_without_a_photo_are_named(tmp_path: Path, place: str) -> None:
    fill(tmp_path, *(f"{place}{name}" for name in ("cat/1.jpg", "dog/1.jpg", ".git/config")))
    if place:
        fill(tmp_path, "val/cat/2.jpg")
    (tmp_path / place / "bird").mkdir()
    (tmp_path / place / "cow").symlink_to(tmp_path / place / "cat")
    assert open_photo_set(tmp_path).empty == ("bird", "cow (a link, which is not followed)")


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    fill(tmp_path, "train/1.jpg", "bus/1.jpg")
    assert labels_of(tmp_path) == [("bus", False), ("train", False)]


def test_an_archive_is_read_like_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in ("set/cat/1.jpg", "set/dog/1.jpg", "__MACOSX/set/cat/._1.jpg"):
            archive.writestr(name, name)
    found = open_photo_set(tmp_path / "photos.zip")
    assert found.classes == ("cat", "dog")
    assert [found.read(photo.file) for photo in found.photos] == [b"set/cat/1.jpg", b"set/dog/1.jpg"]


def test_a_table_names_files_and_labels(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "labels.csv").write_text("file,label,label_zh\na.jpg,either/or,猫\nb.jpg,🐶,\n", encoding="utf-8")
    found = open_photo_set(tmp_path)
    assert found.classes == ("either/or", "🐶")
    assert found.names_zh == {"either/or": "猫"}
    assert found.read(found.photos[0].file) == b"photo"


def test_chinese_names_come_from_a_table(tmp_path: Path) -> None:
    fill(tmp_path / "set", "Cat/1.jpg", "dog/1.jpg")
    (tmp_path / "names.csv").write_text(NAMES, encoding="utf-8-sig")
    assert open_photo_set(tmp_path / "set", tmp_path / "names.csv").names_zh == {"Cat": "猫"}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "no photo"),
        (["cat/1.jpg"], "only the class 'cat'"),
        (["1.jpg", "2.jpg"], "put the photos of each class into a folder of its own"),
        (["train/cat/1.jpg", "val/cat/2.jpg", "more/a/3.jpg"], "'more' is neither for training nor for testing"),
        (["cat/1.jpg", "Cat/1.jpg"], "differ in case only"),
        (["cat/1.jpg", "d\x07g/1.jpg"], "control characters"),
        ([f"{'é' * 110}/{'x' * 99}/1.jpg", f"{'b' * 201}/1.jpg"], "more than 200 characters"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused(tmp_path: Path, files: list[str], sentence: str) -> None:
    with pytest.raises(PhotoSetError, match=sentence) as caught:
        open_photo_set(fill(tmp_path, *files))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("name,label\na.jpg,cat\n", "no column 'file'"),
        ("file,label\na.jpg,\n", "Row 1 of .*/labels.csv is not complete"),
        ("file,label\na.jpg,cat\n", "at least two"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, table: str, sentence: str) -> None:
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    with pytest.raises(PhotoSetError, match=sentence):
        open_photo_set(tmp_path)


def test_a_table_of_another_name_is_named_when_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text(NAMES, encoding="utf-8")
    with pytest.raises(PhotoSetError, match="/names.csv has no column 'file'"):
        open_photo_set(tmp_path / "names.csv")


@pytest.mark.parametrize("entry", ["猫/1.jpg", "狗\\2.jpg"])
def test_names_in_an_archive_need_no_mark(tmp_path: Path, entry: str) -> None:
    """The archiver of macOS writes UTF-8 without saying so, and some programs a backslash between folders."""
    raw = entry.encode()
    path = packed(tmp_path / "a.zip", "dog/1.jpg", "x" * len(raw))
    path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw))
    assert open_photo_set(path).classes == ("dog", entry[0])


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(PhotoSetError, match="neither a folder"):
        open_photo_set(tmp_path / "photos.zip")


def packed(path: Path, *names: str) -> Path:
    """Write an archive of empty files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return path


@pytest.mark.parametrize("stray", ["cover.jpg", "pics/cover.jpg", "pics/mug/labels.csv"])
def test_a_stray_file_of_an_archive_hides_no_class(tmp_path: Path, stray: str) -> None:
    found = open_photo_set(packed(tmp_path / "a.zip", "pics/mug/1.jpg", "pics/glass/2.jpg", stray))
    assert sorted(found.classes) == ["glass", "mug"]


def test_an_entry_that_is_damaged_is_a_problem_of_that_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("mug/1.jpg", b"photo" * 100)
        archive.writestr("glass/2.jpg", b"photo" * 100)
    data = bytearray(path.read_bytes())
    at = data.index(b"mug/1.jpg") + len(b"mug/1.jpg")
    data[at + 4 : at + 9] = b"\xff" * 5  # the properties of LZMA
    path.write_bytes(data)
    with pytest.raises(FileProblem, match="damaged"):
        open_photo_set(path).read("mug/1.jpg")
