"""What a batch lists: folders, patterns, archives and lists, each photo under a path of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from batches import batch, paths_of, rows_of
from fakes import colour_png

from app.batch.entries import shard_of, shown
from app.batch.listing import check_sources, list_entries
from app.batch.lists import split_paths
from app.batch.store import Store
from app.batch.walking import matches, split_pattern
from app.errors import BatchError
from app.photos.folders import list_photos

RED = colour_png(0, 2, 1, size=(30, 20))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `photos`, with two photos, one below it, and a text; it is in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.jpg", "sub/c.PNG", "notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(RED)
    return tmp_path / "photos"


def listed(*sources: str) -> list[str]:
    """List the paths of sources in their order."""
    return sorted(entry.name for entry in list_entries(sources, Store(), ()))


def test_a_folder_is_listed_with_those_below_it(photos: Path) -> None:
    assert listed("photos") == ["photos/a.png", "photos/b.jpg", "photos/sub/c.PNG"]


def test_a_loop_of_links_ends(photos: Path, tmp_path: Path) -> None:
    (photos / "sub" / "up").symlink_to("..")
    (photos / "self").symlink_to("self")
    (photos / "elsewhere").symlink_to(tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "d.png").write_bytes(RED)
    (tmp_path / "other" / "back").symlink_to(photos)
    assert listed("photos") == ["photos/a.png", "photos/b.jpg", "photos/elsewhere/d.png", "photos/sub/c.PNG"]


def test_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / "photos" / str(number)).mkdir(parents=True)
        (tmp_path / "photos" / str(number) / "a.png").write_bytes(RED)
    for number in range(29):
        for link in "xy":
            (tmp_path / "photos" / str(number) / link).symlink_to(f"../{number + 1}")
    entries = list(list_entries([str(tmp_path / "photos" / "0")], Store(), ()))
    assert [sum(entry.kind == kind for entry in entries) for kind in ("file", "problem")] == [2**5 - 1, 2**5]
    assert {entry.detail for entry in entries} == {"", "The folder is inside more than 4 links to folders."}


def test_folders_without_end_are_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(260):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(tmp_path)
    (entry,) = list_entries(["d"], Store(), ())
    assert (entry.kind, entry.detail) == ("problem", "The folder is inside more than 200 folders.")
    assert list_photos(["d"]) == ["/".join("d" * 202)]


def test_the_output_folder_is_not_a_source(photos: Path) -> None:
    for _ in range(2):
        batch([photos], photos / "out", heatmaps=photos / "maps")
    assert paths_of(photos / "out") == [f"{photos}/{name}" for name in ("a.png", "b.jpg", "sub/c.PNG")]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("photos/*.png", ["photos/a.png"]),
        ("photos/[ab].*", ["photos/a.png", "photos/b.jpg"]),
        ("photos/**/*.PNG", ["photos/sub/c.PNG"]),
        ("phot?s/**", ["photos/a.png", "photos/b.jpg", "photos/sub/c.PNG"]),
        ("photos/s*", ["photos/sub/c.PNG"]),
        ("*/b.jpg", ["photos/b.jpg"]),
    ],
)
def test_a_pattern_is_matched_name_by_name(photos: Path, pattern: str, found: list[str]) -> None:
    assert listed(pattern) == found


def test_a_name_with_signs_of_a_pattern_is_a_name(photos: Path) -> None:
    (photos / "[x].png").write_bytes(RED)
    assert listed("photos/[x].png") == ["photos/[x].png"]


def test_two_stars_stand_for_any_number_of_folders() -> None:
    fixed, parts = split_pattern("a/**/b/*.jpg")
    assert (fixed, parts) == ("a/", ["**", "b", "*.jpg"])
    assert [matches(path.split("/"), parts) for path in ("b/1.jpg", "x/y/b/1.jpg", "b/x/1.jpg")] == [True, True, False]


def tar_of(names: list[str], path: Path, format_: int = tarfile.PAX_FORMAT) -> None:
    with tarfile.open(path, "w", format=format_) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(RED)
            archive.addfile(info, io.BytesIO(RED))


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_is_read_at_its_places(tmp_path: Path, format_: int) -> None:
    deep = "d" * 90 + "/" + "猫" * 20
    names = [f"{number}.{kind}" for number in range(5) for kind in ("png", "cls")] + [f"{deep}.png"]
    tar_of(names, tmp_path / "t.tar", format_)
    progress = batch([tmp_path / "t.tar"], tmp_path / "out")
    wanted = sorted(f"{tmp_path}/t.tar/{name}" for name in names if name.endswith("png"))
    assert (paths_of(tmp_path / "out"), progress.failed) == (wanted, 0)


def test_a_zip_is_read_at_its_places(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.png", RED, zipfile.ZIP_DEFLATED)
        archive.writestr("d/猫.png", RED)
        archive.writestr("d/lzma.png", RED, zipfile.ZIP_LZMA)
        archive.writestr("__MACOSX/._a.png", RED)
    assert batch([tmp_path / "z.zip"], tmp_path / "out").failed == 1
    rows = {row["path"].removeprefix(f"{tmp_path}/z.zip/"): row["error"] for row in rows_of(tmp_path / "out")}
    assert rows == {"a.png": None, "d/猫.png": None, "d/lzma.png": "unreadable-archive"}


CLUTTER = ["__MACOSX/d/a.png", "d/._a.png", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/7.png"]


def test_clutter_in_an_archive_is_no_photo(tmp_path: Path) -> None:
    tar_of([*CLUTTER, "d/a.png"], tmp_path / "t.tar")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in (*CLUTTER, "@eaDir\\b.png", "d\\a.png"):
            archive.writestr(name, RED)
    assert listed(f"{tmp_path}/*") == [f"{tmp_path}/{name}/d/a.png" for name in ("t.tar", "z.zip")]


@pytest.mark.parametrize("in_front", [b"", b"#!/bin/sh\nexit\n" * 9999], ids=["", "behind a program"])
def test_a_wrong_length_of_extra_fields_costs_no_photo(tmp_path: Path, in_front: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ("a.png", "b.png"):
            archive.writestr(name, RED, zipfile.ZIP_DEFLATED)
    data = bytearray((tmp_path / "z.zip").read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 30 : entry + 32] = b"\x06\x00"  # of extra fields, which the entry does not have (APPNOTE 4.3.12)
    (tmp_path / "z.zip").write_bytes(in_front + data)
    assert batch([tmp_path / "z.zip"], tmp_path / "out").failed == 0
    assert paths_of(tmp_path / "out") == [f"{tmp_path}/z.zip/{name}" for name in ("a.png", "b.png")]


@pytest.mark.parametrize("place", [2**64 - 1, 2**63, 2**32])
def test_a_place_beyond_an_archive_costs_that_photo_alone(tmp_path: Path, place: int) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ("a.png", "b.png"):
            archive.writestr(name, RED)
        archive.filelist[1].header_offset = place
    batch([tmp_path / "z.zip"], tmp_path / "out")
    assert [row["error"] for row in rows_of(tmp_path / "out")] == [None, "unreadable-archive"]


@pytest.mark.parametrize("name", ["bad.zip", "bad.tar"])
def test_a_damaged_archive_is_a_row_with_its_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive at all" * 100)
    assert batch([tmp_path / name], tmp_path / "out").failed == 1
    (row,) = rows_of(tmp_path / "out")
    assert (row["path"], row["error"]) == (f"{tmp_path}/{name}", "unreadable-archive")
    assert row["detail"].endswith("archive is damaged or incomplete.")


def test_a_tar_that_is_cut_short_gives_its_first_photos(tmp_path: Path) -> None:
    tar_of(["a.png", "b.png", "c.png"], tmp_path / "t.tar")
    data = (tmp_path / "t.tar").read_bytes()
    (tmp_path / "t.tar").write_bytes(data[:1600])
    batch([tmp_path / "t.tar"], tmp_path / "out")
    assert [(row["path"][-5:], bool(row["error"])) for row in rows_of(tmp_path / "out")] == [
        ("t.tar", True),
        ("a.png", False),
        ("b.png", True),
    ]


def test_a_pattern_finds_the_archives_of_a_web_dataset(tmp_path: Path) -> None:
    for number in range(2):
        tar_of([f"{number}.png", f"{number}.json"], tmp_path / f"shard-{number}.tar")
    assert listed(f"{tmp_path}/shard-*.tar") == [f"{tmp_path}/shard-{n}.tar/{n}.png" for n in range(2)]


LISTS = {
    "list.txt": b"photos/a.png\r\n\nphotos/sub/c.PNG\n",
    "nul.txt": b"photos/a.png\0photos/sub/c.PNG\0",
    "last.txt": b"photos/a.png\nphotos/sub/c.PNG",
    "paths.csv": 'nr,path\n1,photos/a.png\n2,"photos/sub/c.PNG"\n'.encode("utf-8-sig"),
    "marked.txt": "photos/a.png\nphotos/sub/c.PNG\n".encode("utf-8-sig"),
    "files.csv": b"file,label\nphotos/a.png,cat\nphotos/sub/c.PNG,dog\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_names_the_photos(photos: Path, name: str) -> None:
    Path(name).write_bytes(LISTS[name])
    assert listed(name) == ["photos/a.png", "photos/sub/c.PNG"]


def write_parquet(**columns: list[object]) -> None:
    """Write a table as `list.parquet`."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), "list.parquet")


def test_a_list_in_parquet_names_the_photos(photos: Path) -> None:
    write_parquet(n=[1, 2], path=["photos/a.png", "photos/b.jpg"])
    assert listed("list.parquet") == ["photos/a.png", "photos/b.jpg"]


def test_a_list_in_parquet_without_text_is_an_error(photos: Path) -> None:
    write_parquet(path=[1, 2])
    with pytest.raises(BatchError, match=r"list\.parquet cannot be read: its column 'path' holds no text\.$"):
        listed("list.parquet")


def test_a_list_is_split_at_any_block_end() -> None:
    paths = [b"x" * (number % 700 + 1) for number in range(1000)]
    assert list(split_paths(io.BytesIO(b"\n".join(paths)))) == paths


def test_a_list_may_come_from_standard_input(photos: Path) -> None:
    code = "from app.batch.lists import read_list; print([entry.path for entry in read_list('-')])"
    done = subprocess.run([sys.executable, "-c", code], input=b"a\nb\xff\n", capture_output=True, check=True)
    assert done.stdout == b"[b'a', b'b\\xff']\n"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"x,y\n1,2\n", "The list a.csv has no column 'path' or 'file'."),
        ("a.parquet", b"PAR1", "The list a.parquet cannot be read: "),
        ("no-lines.txt", b"x" * 200_000, "The list no-lines.txt cannot be read: it has a line that is no path."),
        ("odd.txt", b"a.png\ns3://key:secret@bucket/x.png\n", "An address of a store is s3://BUCKET/PREFIX, without"),
        ("gone.txt", None, "The list gone.txt cannot be read: No such file or directory."),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(BatchError) as error:
        listed(name)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    "source", ["https://host/x.jpg", "simplecache::s3://b/x", "s3://b/x.tar", "gs://b/", "x.tar.gz", "x.tgz"]
)
def test_sources_of_other_kinds_are_refused(source: str) -> None:
    with pytest.raises(BatchError):
        check_sources([source])


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"There is no photo in .*\."):
        listed(str(tmp_path))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"a b.png", "a b.png"),
        ("猫.png".encode(), "猫.png"),
        (b"\xff\xfe.png", r"\xff\xfe.png"),
        (rb"\xff.png", r"\\xff.png"),
        (b"new\nline\r.png", "new\nline\\r.png"),
    ],
)
def test_a_path_is_shown_in_utf_8(path: bytes, text: str) -> None:
    assert shown(path) == text


def test_a_shard_depends_on_the_path_alone() -> None:
    assert [shard_of(b"photos/%d.jpg" % number, 7) for number in range(6)] == [4, 0, 6, 6, 6, 4]
    counts = [0] * 10
    for number in range(10_000):
        counts[shard_of(os.fsencode(f"{number}.jpg"), 10)] += 1
    assert min(counts) > 880
