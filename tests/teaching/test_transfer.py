"""A project as one file: opened again, and every file that is not a whole project of ours refused."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from taught import make_teaching, photo_of, teach

from app.errors import BadProjectFile, NameTaken, ProjectFull
from app.queueing.scheduling import NO_DEADLINE
from app.teaching import database
from app.teaching.photos import Upload
from app.teaching.teaching import Teaching
from app.teaching.transfer import adopt, export

MAX_BYTES = 10 * 2**20


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of projects with `colours`, whose photos are kept."""
    root = tmp_path_factory.mktemp("taught") / "projects"
    teach(make_teaching(root), "colours", {"red": 5, "blue": 5}, keep_photos=True)
    return root


@pytest.fixture
def teaching(taught: Path, tmp_path: Path) -> Teaching:
    """The teaching of one process, with a copy of `colours` for this test alone."""
    return make_teaching(shutil.copytree(taught, tmp_path / "projects"))


def exported(teaching: Teaching) -> bytes:
    """Return the file of `colours`."""
    file, size = export(teaching.projects, "colours")
    with file:
        data = file.read()
    assert len(data) == size
    return data


def edited(data: bytes, tmp_path: Path, *statements: str) -> bytes:
    """Change a project's file, as somebody might who means harm."""
    path = tmp_path / "edited.sqlite"
    path.write_bytes(data)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        for statement in statements:
            connection.execute(statement)
    return path.read_bytes()


def test_opened_project_is_the_same(teaching: Teaching) -> None:
    adopt(teaching.projects, "again", exported(teaching), max_photo_bytes=MAX_BYTES)
    ours, theirs = (teaching.solve(name, NO_DEADLINE) for name in ("colours", "again"))
    assert theirs.report.accuracy == ours.report.accuracy
    assert theirs.state.sha256 == ours.state.sha256
    assert theirs.fit is not None
    assert ours.fit is not None
    assert theirs.fit.weight == pytest.approx(ours.fit.weight)
    with database.reading(teaching.projects.path("again")) as connection:
        row = connection.execute(
            "SELECT bytes FROM originals o JOIN photos p ON p.id = o.photo WHERE file = 'red-2.png'"
        )
        assert row.fetchone()[0] == photo_of("red", 2)


@pytest.mark.parametrize("keep_photos", [0, 1])
def test_embeddings_of_another_length_are_not_compared(teaching: Teaching, tmp_path: Path, keep_photos: int) -> None:
    change = f"UPDATE project SET keep_photos = {keep_photos}"
    data = edited(exported(teaching), tmp_path, change, "UPDATE embeddings SET vector = substr(vector, 1, 128)")
    adopt(teaching.projects, "again", data, max_photo_bytes=MAX_BYTES)
    assert teaching.describe("again").stale == 10
    upload = [Upload("new.png", photo_of("red", 9))]
    assert [each.state for each in teaching.add("again", "red", upload, NO_DEADLINE)[1]] == ["added"]
    report = teaching.solve("again", NO_DEADLINE).report
    assert (report.photos, report.stale, report.is_ready) == (11, 0 if keep_photos else 10, bool(keep_photos))


def test_opened_project_keeps_no_photo_if_it_says_so(teaching: Teaching, tmp_path: Path) -> None:
    data = edited(exported(teaching), tmp_path, "UPDATE project SET keep_photos = 0")
    adopt(teaching.projects, "again", data, max_photo_bytes=MAX_BYTES)
    with database.reading(teaching.projects.path("again")) as connection:
        assert connection.execute("SELECT count(*) FROM originals").fetchone()[0] == 0
    assert teaching.solve("again", NO_DEADLINE).report.photos == 10


def test_export_leaves_nothing_behind(teaching: Teaching) -> None:
    before = sorted(teaching.projects.root.rglob("*"))
    exported(teaching)
    assert sorted(teaching.projects.root.rglob("*")) == before


def test_older_file_is_opened(teaching: Teaching, tmp_path: Path) -> None:
    older = edited(
        exported(teaching),
        tmp_path,
        "DROP INDEX photos_of_group",
        "ALTER TABLE photos DROP COLUMN first",
        "PRAGMA user_version = 1",
    )
    adopt(teaching.projects, "older", older, max_photo_bytes=MAX_BYTES)
    assert teaching.solve("older", NO_DEADLINE).report.photos == 10


def test_name_must_be_free(teaching: Teaching) -> None:
    with pytest.raises(NameTaken):
        adopt(teaching.projects, "Colours", exported(teaching), max_photo_bytes=MAX_BYTES)


@pytest.mark.parametrize(
    "data", [b"", b"text", b"SQLite format 3\0", b"SQLite format 3\0" + bytes(5000), b"PK\x03\x04" + bytes(500)]
)
def test_other_files_are_refused(teaching: Teaching, data: bytes) -> None:
    with pytest.raises(BadProjectFile):
        adopt(teaching.projects, "other", data, max_photo_bytes=MAX_BYTES)
    assert teaching.projects.names() == ["colours"]


HOSTILE = {
    "newer format": [f"PRAGMA user_version = {database.FORMAT + 1}"],
    "another application": ["PRAGMA application_id = 1"],
    "format 0": ["PRAGMA user_version = 0"],
    "negative format": ["PRAGMA user_version = -1"],
    "a trigger": ["CREATE TRIGGER t AFTER INSERT ON photos BEGIN DELETE FROM photos; END"],
    "a view": ["CREATE VIEW v AS SELECT 1"],
    "a view in place of a table": [
        "DROP TABLE originals",
        "CREATE VIEW originals AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r) "
        "SELECT n AS photo, 1 AS bytes FROM r",
    ],
    "another table": ["CREATE TABLE more (x)"],
    "a table of other columns": ["ALTER TABLE photos ADD COLUMN more TEXT"],
    "no project": ["DELETE FROM project"],
    "a short digest": ["UPDATE photos SET sha256 = x'00' WHERE id = 1"],
    "no JPEG": ["UPDATE photos SET thumbnail = x'3c7376673e' WHERE id = 1"],
    "a large thumbnail": ["UPDATE photos SET thumbnail = CAST(x'ffd8ff' || zeroblob(70000) AS BLOB) WHERE id = 1"],
    "an odd vector": ["UPDATE embeddings SET vector = x'000000' WHERE photo = 1"],
    "a vector that is not finite": ["UPDATE embeddings SET vector = x'0000807f' WHERE photo = 1"],
    "vectors of two lengths": ["UPDATE embeddings SET vector = x'0000803f' WHERE photo = 1"],
    "an empty vector": ["UPDATE embeddings SET vector = x'' WHERE photo = 1"],
    "an original of another digest": ["UPDATE originals SET bytes = x'00' WHERE photo = 1"],
    "a class without a name": ["UPDATE classes SET label = '' WHERE label = 'red'"],
    "a class with a control character": ["UPDATE classes SET label = char(7) WHERE label = 'red'"],
    "a photo without a class": ["PRAGMA foreign_keys = OFF", "UPDATE photos SET class = 99 WHERE id = 1"],
    "a text that is not UTF-8": ["UPDATE classes SET label = CAST(x'ff' AS TEXT) WHERE label = 'red'"],
}


@pytest.mark.parametrize("statements", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused(teaching: Teaching, tmp_path: Path, statements: list[str]) -> None:
    data = edited(exported(teaching), tmp_path, *statements)
    with pytest.raises(BadProjectFile):
        adopt(teaching.projects, "other", data, max_photo_bytes=MAX_BYTES)
    assert teaching.projects.names() == ["colours"]
    assert not list(teaching.projects.root.glob(".unfinished-*"))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_truncated_file_is_refused(teaching: Teaching, share: float) -> None:
    data = exported(teaching)
    with pytest.raises(BadProjectFile):
        adopt(teaching.projects, "other", data[: int(share * len(data))], max_photo_bytes=MAX_BYTES)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_file_is_refused_or_whole(teaching: Teaching, seed: int) -> None:
    data = bytearray(exported(teaching))
    for step in range(20):
        data[(seed * 7919 + step * 104_729 + 100) % len(data)] ^= 1 << (seed % 8)
    try:
        adopt(teaching.projects, "other", bytes(data), max_photo_bytes=MAX_BYTES)
    except BadProjectFile:
        assert teaching.projects.names() == ["colours"]
    else:
        teaching.solve("other", NO_DEADLINE)


def test_too_many_photos_are_refused(teaching: Teaching, monkeypatch: pytest.MonkeyPatch) -> None:
    data = exported(teaching)
    monkeypatch.setattr("app.teaching.transfer.MAX_PHOTOS", 9)
    with pytest.raises(ProjectFull):
        adopt(teaching.projects, "other", data, max_photo_bytes=MAX_BYTES)
    assert teaching.projects.names() == ["colours"]


@pytest.mark.parametrize("missing", [1, 100, 4096])
def test_a_file_that_was_cut_short_is_refused(teaching: Teaching, missing: int) -> None:
    with pytest.raises(BadProjectFile, match="damaged"):
        adopt(teaching.projects, "again", exported(teaching)[:-missing], max_photo_bytes=MAX_BYTES)
    assert teaching.projects.names() == ["colours"]
