"""The file of a project: its steps from older formats, and failures of the disk as problems."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from small_disk import on_disk, place_of_disk
from taught import count_photos, make_teaching, photo_of, teach

from app.errors import ProjectsUnavailable
from app.queueing.scheduling import NO_DEADLINE
from app.teaching import database, transfer
from app.teaching.photos import Upload
from app.teaching.projects import EMPTY_BYTES, Projects

SUPPORT = Path(__file__).resolve().parents[1] / "support"
FULL_DISK = """
import pathlib, sys
from taught import count_photos, make_teaching, teach
disk = pathlib.Path(sys.argv[1])
teaching = make_teaching(disk / "projects")
teach(teaching, "colours", {"red": 4})
filler = disk / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(512)):
            pass
    except OSError:
        pass
for work in (lambda: teaching.describe("colours"), lambda: teach(teaching, "colours", {"red": 9})):
    try:
        print(work())
    except Exception as error:
        print(error)
held = filler.read_bytes()
filler.unlink()
print(count_photos(teaching, "colours"))
filler.write_bytes(held)
teaching.delete("colours")
print(teaching.projects.names())
"""


def as_format_1(path: Path) -> None:
    """Turn a project's file back into one of format 1."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP INDEX photos_of_group")
        connection.execute("ALTER TABLE photos DROP COLUMN first")
        connection.execute("PRAGMA user_version = 1")


def test_older_format_is_brought_up_to_date(tmp_path: Path) -> None:
    teaching = make_teaching(tmp_path / "projects")
    teach(teaching, "colours", {"red": 5, "blue": 5})
    before = teaching.solve("colours", NO_DEADLINE)
    path = teaching.projects.path("colours")
    as_format_1(path)
    fresh = make_teaching(tmp_path / "projects")
    after = fresh.solve("colours", NO_DEADLINE)
    with closing(sqlite3.connect(path)) as connection:
        assert database.format_of(connection) == database.FORMAT
    assert after.state.groups.tolist() == before.state.groups.tolist()
    assert after.fit is not None
    assert before.fit is not None
    assert after.fit.weight == pytest.approx(before.fit.weight)


def test_every_step_leads_to_the_newest_tables() -> None:
    tables = []
    for first in range(database.FORMAT + 1):
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            database.build(connection, first)
            database.build(connection)
            tables.append(connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall())
    assert all(found == tables[0] for found in tables)


def test_newer_format_is_left_alone(tmp_path: Path) -> None:
    teaching = make_teaching(tmp_path / "projects")
    teach(teaching, "colours", {"red": 2})
    path = teaching.projects.path("colours")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {database.FORMAT + 1}")
    with pytest.raises(ProjectsUnavailable, match="newer version"):
        teaching.describe("colours")


def test_damaged_file_is_a_problem_without_its_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    teaching = make_teaching(tmp_path / "projects")
    teach(teaching, "colours", {"red": 2})
    path = teaching.projects.path("colours")
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(ProjectsUnavailable) as raised:
        teaching.describe("colours")
    assert str(tmp_path) not in str(raised.value)
    assert str(path) in caplog.text


def test_a_project_on_a_full_disk_says_so_and_can_be_deleted(tmp_path: Path) -> None:
    disk = place_of_disk(tmp_path)
    done = on_disk(disk, "1m", sys.executable, "-c", FULL_DISK, str(disk), PYTHONPATH=str(SUPPORT))
    assert done.stdout.splitlines() == [
        "The disk of the projects is full; nothing was changed.",
        "The disk of the projects is full; nothing was changed.",
        "4",
        "[]",
    ], done.stderr


def test_failure_in_the_middle_of_a_write_keeps_nothing(tmp_path: Path) -> None:
    teaching = make_teaching(tmp_path / "projects")
    teach(teaching, "colours", {"red": 2})
    path = teaching.projects.path("colours")

    def fail() -> None:
        with database.writing(path) as connection:
            connection.execute("DELETE FROM photos")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        fail()
    assert count_photos(teaching, "colours") == 2


def test_what_a_killed_process_has_left_is_swept(tmp_path: Path) -> None:
    root = tmp_path / "projects"
    teaching = make_teaching(root)
    teaching.create("first", keep_photos=False)
    for left in (".unfinished-abc", ".removed-abc", ".leaving-abc"):
        (root / left).mkdir()
        (root / left / "photo").write_bytes(b"secret")
    teaching.create("second", keep_photos=False)
    assert sorted(path.name for path in root.iterdir()) == [".lock", "first", "second"]


def test_room_is_measured_while_no_project_can_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teaching = make_teaching(tmp_path / "projects")
    teach(teaching, "colours", {"red": 1})
    data, _ = transfer.export(teaching.projects, "colours")
    measured = []

    def require_room(projects: Projects, size: int) -> None:
        with pytest.raises(Timeout):
            FileLock(projects.root / ".lock").acquire(timeout=0)
        measured.append(size)

    monkeypatch.setattr(Projects, "require_room", require_room)
    with data:
        transfer.adopt(teaching.projects, "copy", data.read(), max_photo_bytes=10**6)
    teaching.create("empty", keep_photos=False)
    teaching.add("colours", "red", [Upload("", photo_of("red", 9))], NO_DEADLINE)
    assert len(measured) == 3
    assert measured[1] == EMPTY_BYTES
    assert all(size > 0 for size in measured)
