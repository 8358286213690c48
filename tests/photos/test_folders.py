"""Photos in folders: what is listed, what is left out, and what is reported since it cannot be read."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.photos import folders
from app.photos.folders import FileProblem, find_photos, is_unreadable, list_photos, read_file, true_class

NOBODY = 65534


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Give up root's right to read everything until the test ends, and return a folder of one's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.getuid() != 0:
            yield folder
            return
        os.chown(folder, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)
        try:
            yield folder
        finally:
            os.setresuid(0, 0, 0)


def write(folder: Path, *names: str) -> None:
    """Write files of one byte."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def listed(folder: Path) -> list[str]:
    """List the photos below a folder by their names within it."""
    return [str(Path(name).relative_to(folder)) for name in list_photos([str(folder)])]


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "jpe", "jfif", "mpo", "png", "webp", "gif", "bmp", "tif", "TIFF"])
def test_files_of_each_ending_are_photos(tmp_path: Path, ending: str) -> None:
    write(tmp_path, f"a.{ending}", f"b.{ending}.txt")
    assert listed(tmp_path) == [f"a.{ending}"]


@pytest.mark.parametrize("ending", ["avif", "heic", "HEIF", "HIF"])
def test_files_of_phones_and_cameras_are_photos(tmp_path: Path, ending: str) -> None:
    write(tmp_path, f"a.{ending}")
    assert listed(tmp_path) == [f"a.{ending}"]


@pytest.mark.parametrize(
    "name",
    [
        "._a.jpg",
        "sub/._a.jpg",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "sub/__MACOSX/a.jpg",
        ".thumbnails/1.jpg",
        ".AppleDouble/a.jpg",
        "notes.txt",
        "jpg",
        ".jpg",
    ],
)
def test_what_is_no_photo_is_left_out(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, "good.jpg")
    assert listed(tmp_path) == ["good.jpg"]


def test_a_folder_is_listed_only_when_it_is_reached(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "sub/b.jpg", "sub/c.jpg")
    found = find_photos([str(tmp_path)])
    assert next(found) == str(tmp_path / "a.jpg")
    (tmp_path / "sub" / "b.jpg").unlink()
    assert list(found) == [str(tmp_path / "sub" / "c.jpg")]


def test_a_link_that_leads_back_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    (tmp_path / "again").symlink_to(tmp_path)
    assert listed(tmp_path) == ["a.jpg"]


def test_a_folder_of_thumbnails_that_is_named_is_listed(tmp_path: Path) -> None:
    write(tmp_path, ".thumbnails/1.jpg")
    assert listed(tmp_path / ".thumbnails") == ["1.jpg"]


def test_photos_are_sorted_by_folders_and_names(tmp_path: Path) -> None:
    write(tmp_path, "b.jpg", "a/z.jpg", "a.jpg", "a-b/c.jpg", "c/d/e.jpg")
    assert listed(tmp_path) == ["a/z.jpg", "a-b/c.jpg", "a.jpg", "b.jpg", "c/d/e.jpg"]


def test_links_to_photos_are_photos_and_dead_ones_reported(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "c.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "d.jpg").symlink_to("d.jpg")
    (tmp_path / "e.txt").symlink_to("nowhere.txt")
    assert listed(tmp_path) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    with pytest.raises(FileProblem, match=r"^The link leads to nowhere\.jpg, which does not exist\.$"):
        read_file(str(tmp_path / "c.jpg"))
    with pytest.raises(FileProblem, match=r"^The file cannot be read: Too many levels"):
        read_file(str(tmp_path / "d.jpg"))
    assert [is_unreadable(str(tmp_path / f"{name}.jpg")) for name in "abcd"] == [False, False, True, True]


def test_pipes_sockets_and_folders_named_as_photos_are_no_photos(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").mkdir()
    write(tmp_path, "b.jpg/c.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(tmp_path)  # an address of a socket may have a hundred bytes only
        listener.bind("d.jpg")
        os.chdir(before)
        assert listed(tmp_path) == ["b.jpg/c.jpg"]


@pytest.mark.parametrize("mode", [0o000, 0o100])
def test_unreadable_folder_is_listed_in_its_place(as_nobody: Path, mode: int) -> None:
    write(as_nobody, "a.jpg", "closed/in.jpg", "z.jpg")
    closed = as_nobody / "closed"
    closed.chmod(mode)
    try:
        assert listed(as_nobody) == ["a.jpg", "closed", "z.jpg"]
        assert list_photos([str(closed)]) == [str(closed)]
        assert is_unreadable(str(closed))
        with pytest.raises(FileProblem, match="^The folder cannot be read: Permission denied"):
            read_file(str(closed))
    finally:
        closed.chmod(0o700)


def test_files_of_a_folder_that_may_only_be_listed_are_reported(as_nobody: Path) -> None:
    write(as_nobody, "sub/a.jpg", "sub/notes.txt")
    (as_nobody / "sub").chmod(0o400)
    try:
        assert listed(as_nobody) == ["sub/a.jpg"]
        assert is_unreadable(str(as_nobody / "sub" / "a.jpg"))
    finally:
        (as_nobody / "sub").chmod(0o700)


def test_unreadable_file_is_listed(as_nobody: Path) -> None:
    write(as_nobody, "a.jpg")
    (as_nobody / "a.jpg").chmod(0)
    assert listed(as_nobody) == ["a.jpg"]
    with pytest.raises(FileProblem, match="^The file cannot be read: Permission denied"):
        read_file(str(as_nobody / "a.jpg"))


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no device without an end")
def test_a_file_without_an_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folders, "MAX_FILE_BYTES", 3_000_000)
    with pytest.raises(FileProblem, match="has more than 3,000,000 bytes"):
        read_file("/dev/zero")
    (tmp_path / "a.jpg").write_bytes(bytes(3_000_000))
    assert read_file(str(tmp_path / "a.jpg")) == bytes(3_000_000)


def test_closed_standard_input_is_one_sentence() -> None:
    code = "from app.photos.folders import read_file\ntry:\n  read_file('-')\nexcept Exception as error: print(error)"
    command = f'exec {sys.executable} -c "$0" <&-'
    done = subprocess.run(["sh", "-c", command, code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("Standard input is closed.\n", "")


CLASSES = {
    "tiger": 1,
    "tiger shark": 2,
    "jack o lantern": 3,
    "n02129604": 1,
    "n01491361": 2,
    "café": 4,
    "n03594945": 5,
}


@pytest.mark.parametrize(
    ("file", "class_id"),
    [
        ("tiger_shark_01.jpg", None),
        ("tiger.jpg", None),
        ("tiger_01.jpg", None),
        ("n01491361_tiger_shark.jpg", 2),
        ("N01491361.jpg", 2),
        ("n014913610.jpg", None),
        ("my_n01491361.jpg", None),
        ("n99999999.jpg", None),
        ("tiger shark/a.jpg", 2),
        ("tiger_shark/a.jpg", 2),
        ("Tiger-Shark/a.jpg", 2),
        ("TIGER__SHARK /a.jpg", 2),
        ("tiger\u2013shark/a.jpg", 2),
        ("tigershark/a.jpg", None),
        ("jack-o'-lantern/a.jpg", 3),
        ("jack_o_lantern/a.jpg", 3),
        ("Jack\u2010o\u2019\u2010Lantern/a.jpg", 3),
        ("cafe\u0301/a.jpg", 4),
        ("CAFÉ/a.jpg", 4),
        ("n01491361/a.jpg", 2),
        ("n01491361-tiger_shark/a.jpg", 2),
        ("n01491361 (2)/a.jpg", 2),
        ("n014913610/a.jpg", None),
        ("tiger/tiger_shark/a.jpg", 2),
        ("tiger/other/a.jpg", 1),
        ("tiger/n01491361_1.jpg", 1),
        ("other/n01491361_1.jpg", 2),
    ],
)
def test_class_is_the_folders_or_the_files_wordnet_id(file: str, class_id: int | None) -> None:
    assert true_class(Path("/set", file), Path("/set"), CLASSES) == class_id
