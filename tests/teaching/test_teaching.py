"""Projects of one or several processes: what is added, moved and deleted, and the heads that follow from it."""

from __future__ import annotations

import dataclasses
import io
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import encode
from PIL import Image
from taught import COLOURS, colour_classifier, count_photos, make_teaching, photo_of, teach

from app.classifier import Answer
from app.errors import BadRequest, NameTaken, NotFound, NotTaught, Overloaded, ProjectFull, UnknownProject
from app.queueing.scheduling import NO_DEADLINE
from app.teaching import contents, database
from app.teaching.database import NONE
from app.teaching.photos import Upload
from app.teaching.projects import Projects
from app.teaching.teaching import Teaching

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def teaching(tmp_path: Path) -> Teaching:
    """The teaching of one process, without projects."""
    return make_teaching(tmp_path / "projects")


def test_project_is_made_listed_and_deleted(teaching: Teaching) -> None:
    assert teaching.create("dishes", keep_photos=False)
    assert not teaching.create("dishes", keep_photos=False)
    assert teaching.projects.names() == ["dishes"]
    teaching.delete("dishes")
    assert teaching.projects.names() == []
    with pytest.raises(UnknownProject):
        teaching.describe("dishes")
    with pytest.raises(UnknownProject):
        teaching.projects.delete("dishes")


def test_a_folder_that_others_hold_is_overloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    projects = Projects(tmp_path, 10**9)
    with projects.locked(), pytest.raises(Overloaded):
        Projects(tmp_path, 10**9).create("dishes", lambda path: None)
    projects.create("dishes", lambda path: database.create(path, keep_photos=False))


@pytest.mark.parametrize("name", ["", "a/b", "..", "resnet18", "-x", "x" * 65, "é"])
def test_names_are_those_of_models(teaching: Teaching, name: str) -> None:
    with pytest.raises(BadRequest):
        teaching.create(name, keep_photos=False)


def test_name_that_differs_in_case_is_taken(teaching: Teaching) -> None:
    teaching.create("dishes", keep_photos=False)
    with pytest.raises(NameTaken):
        teaching.create("Dishes", keep_photos=False)


@pytest.mark.parametrize("label", ["", "  ", "a\nb", "x" * 201, "~none", "None of these"])
def test_bad_names_of_classes_are_refused(teaching: Teaching, label: str) -> None:
    teaching.create("dishes", keep_photos=False)
    with pytest.raises(BadRequest):
        teaching.put_class("dishes", "mug", label, None)


@pytest.mark.parametrize("label", [NONE, f" {NONE}", f"{NONE} "])
def test_class_of_other_photos_stays(teaching: Teaching, label: str) -> None:
    teaching.create("dishes", keep_photos=False)
    with pytest.raises(BadRequest):
        teaching.delete_class("dishes", label)
    with pytest.raises(BadRequest):
        teaching.put_class("dishes", label, "mug", None)
    assert [row.label for row in teaching.describe("dishes").classes] == [NONE]


def test_photo_is_not_kept_once_keeping_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teaching = make_teaching(tmp_path / "projects")
    teach(teaching, "colours", {"red": 1}, keep_photos=True)
    embed = teaching._embed

    def turn_off_first(*values: Any) -> Answer:
        teaching.create("colours", keep_photos=False)
        return embed(*values)

    monkeypatch.setattr(teaching, "_embed", turn_off_first)
    teaching.add("colours", "red", [Upload("red.png", photo_of("red", 7))], NO_DEADLINE)
    assert count_photos(teaching, "colours") == 2
    with database.reading(teaching.projects.path("colours")) as connection:
        assert connection.execute("SELECT count(*) FROM originals").fetchone()[0] == 0


def test_class_is_renamed_and_its_twin_refused(teaching: Teaching) -> None:
    teaching.create("dishes", keep_photos=False)
    teaching.put_class("dishes", "mug", None, None)
    teaching.put_class("dishes", "glass", None, "玻璃杯")
    assert not teaching.put_class("dishes", "mug", "cup", "杯子")
    rows = [(row.label, row.label_zh) for row in teaching.describe("dishes").classes]
    assert rows == [("cup", "杯子"), ("glass", "玻璃杯"), (NONE, "")]
    with pytest.raises(NameTaken):
        teaching.put_class("dishes", "cup", "GLASS", None)


def test_photos_are_added_once_and_moved(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 2, "blue": 1})
    upload = Upload("red-0.png", photo_of("red", 0))
    revision, (again,) = teaching.add("colours", "red", [upload], NO_DEADLINE)
    assert (again.state, again.moved_from) == ("present", None)
    assert teaching.revision("colours") == revision
    later, (moved,) = teaching.add("colours", "blue", [upload], NO_DEADLINE)
    assert (moved.state, moved.moved_from, later) == ("moved", "red", revision + 1)
    assert [row.photos for row in teaching.describe("colours").classes] == [1, 2, 0]


def test_a_bad_file_has_its_problem_and_others_are_kept(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 1})
    uploads = [Upload("bad", photo_of("red", 6)[:200]), Upload("good", photo_of("red", 7))]
    _, (first, second) = teaching.add("colours", "red", uploads, NO_DEADLINE)
    assert first.problem is not None
    assert first.problem.status in (415, 422)
    assert (second.problem, second.state) == (None, "added")
    assert count_photos(teaching, "colours") == 2


def test_head_needs_two_classes_with_photos(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 2, "blue": 0})
    assert not teaching.solve("colours", NO_DEADLINE).report.is_ready
    with pytest.raises(NotTaught):
        teaching.model("colours", NO_DEADLINE)


def test_report_has_accuracies_and_the_photos_it_doubts(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 8, "green": 8, "blue": 8})
    wrong = Upload("wrong.png", photo_of("red", 77))
    _, (taken,) = teaching.add("colours", "blue", [wrong], NO_DEADLINE)
    report = teaching.solve("colours", NO_DEADLINE).report
    assert report.is_ready
    assert report.accuracy is not None
    assert report.accuracy.percent > 80
    blue = next(each for each in report.classes if each.label == "blue")
    assert blue.doubted[0].sha256 == taken.sha256
    assert blue.doubted[0].answer == "red"
    assert blue.doubted[0].probability < 0.5


def test_head_is_solved_once_a_revision(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 4, "blue": 4})
    first = teaching.solve("colours", NO_DEADLINE)
    assert teaching.solve("colours", NO_DEADLINE) is first
    teaching.move("colours", [first.state.sha256[0].hex()], "blue")
    assert teaching.solve("colours", NO_DEADLINE).report.revision == first.report.revision + 1


def test_two_processes_solve_the_same_head(teaching: Teaching, tmp_path: Path) -> None:
    other = make_teaching(tmp_path / "projects")
    teach(teaching, "colours", {"red": 5, "green": 5})
    other.solve("colours", NO_DEADLINE)
    teach(other, "colours", {"blue": 5})
    teaching.remove("colours", [teaching.solve("colours", NO_DEADLINE).state.sha256[1].hex()])
    first, second = (each.solve("colours", NO_DEADLINE) for each in (teaching, other))
    assert first.report.revision == second.report.revision
    assert first.fit is not None
    assert second.fit is not None
    assert second.fit.weight == pytest.approx(first.fit.weight, abs=1e-9)


def test_near_duplicates_count_once(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 6, "blue": 6})
    before = teaching.solve("colours", NO_DEADLINE).report
    near = colour_png_like("red", 0)
    _, (taken,) = teaching.add("colours", "red", [Upload("near.png", near)], NO_DEADLINE)
    assert taken.near is not None
    after = teaching.solve("colours", NO_DEADLINE).report
    assert (after.photos, after.groups) == (before.photos + 1, before.groups)


def colour_png_like(colour: str, seed: int) -> bytes:
    """Make a photo whose centre has the same colour as `photo_of`, in another size."""
    return encode(Image.open(io.BytesIO(photo_of(colour, seed))).resize((280, 300)))


def test_list_names_near_duplicates_that_are_there(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 1})
    _, (taken,) = teaching.add("colours", "red", [Upload("near.png", colour_png_like("red", 0))], NO_DEADLINE)
    assert taken.near is not None
    fresh = make_teaching(teaching.projects.root)
    assert [each.near for each in fresh.list_photos("colours", "red", 0, 10)[2]] == [taken.near, None]
    teaching.remove("colours", [taken.near])
    assert [each.near for each in fresh.list_photos("colours", "red", 0, 10)[2]] == [None]


def test_groups_are_divided_when_their_link_is_deleted(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 1, "blue": 3})
    path = teaching.projects.path("colours")
    state = teaching.solve("colours", NO_DEADLINE).state
    angles = np.radians([0, 15, 30])
    with database.writing(path) as connection:
        for number, angle in zip(state.ids[:3].tolist(), angles, strict=True):
            vector = np.zeros(state.rows.shape[1], np.float32)
            vector[:2] = np.cos(angle), np.sin(angle)
            contents.put_embedding(connection, number, vector, bytes.fromhex(teaching._backbone().weights.sha256))
        connection.execute("UPDATE photos SET first = NULL")
        database.note_change(connection)
    fresh = make_teaching(teaching.projects.root)
    groups = fresh.solve("colours", NO_DEADLINE).state.groups
    assert len(set(groups[:3].tolist())) == 1
    fresh.remove("colours", [state.sha256[1].hex()])
    divided = fresh.solve("colours", NO_DEADLINE).state.groups
    assert divided[0] != divided[1]


def test_photos_of_none_are_a_class_of_the_head(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 5, "blue": 5})
    uploads = [Upload("", photo_of("grey", seed)) for seed in range(5)]
    teaching.add("colours", NONE, uploads, NO_DEADLINE)
    model = teaching.model("colours", NO_DEADLINE)
    assert [label.label for label in model.labels] == ["red", "blue", "none of these"] or [
        label.label for label in model.labels
    ] == ["none of these", "red", "blue"]


def test_limits_of_photos_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teaching = make_teaching(tmp_path / "projects")
    monkeypatch.setattr(contents, "MAX_PHOTOS", 3)
    teach(teaching, "colours", {"red": 3})
    with pytest.raises(ProjectFull):
        teaching.add("colours", "red", [Upload("", photo_of("red", 9))], NO_DEADLINE)
    assert count_photos(teaching, "colours") == 3
    small = make_teaching(tmp_path / "projects", max_bytes=teaching.projects.bytes() + 100)
    with pytest.raises(ProjectFull):
        small.add("colours", "red", [Upload("", photo_of("red", 10))], NO_DEADLINE)


def test_limit_of_classes(teaching: Teaching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAX_CLASSES", 2)
    teaching.create("many", keep_photos=False)
    teaching.put_class("many", "a", None, None)
    teaching.put_class("many", "b", None, None)
    with pytest.raises(ProjectFull):
        teaching.put_class("many", "c", None, None)


def test_what_is_deleted_is_no_longer_on_the_disk(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 3, "blue": 3}, keep_photos=True)
    secret = photo_of("red", 1)
    folder = teaching.projects.path("colours").parent
    assert any(secret[60:] in path.read_bytes() for path in folder.iterdir())
    digest = next(each for each in teaching.list_photos("colours", "red", 0, 10)[2] if each.file == "red-1.png").sha256
    thumbnail = teaching.thumbnail("colours", digest)
    assert teaching.remove("colours", [digest])[1] == 1
    for path in folder.iterdir():
        assert secret[60:] not in path.read_bytes()
        assert bytes.fromhex(digest) not in path.read_bytes()
        assert thumbnail[200:] not in path.read_bytes()
    with pytest.raises(NotFound):
        teaching.thumbnail("colours", digest)


def test_log_says_what_a_reader_keeps_in_the_journal(
    teaching: Teaching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    teach(teaching, "colours", {"red": 2})
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    with database.reading(teaching.projects.path("colours")) as connection:
        contents.read_facts(connection)
        teaching.delete_class("colours", "red")
    assert "stays in its journal" in caplog.text


def test_class_is_deleted_with_its_photos(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 3, "blue": 2})
    teaching.delete_class("colours", "red")
    assert [row.label for row in teaching.describe("colours").classes] == ["blue", NONE]
    assert count_photos(teaching, "colours") == 2
    with pytest.raises(BadRequest):
        teaching.delete_class("colours", NONE)


def test_photos_are_kept_only_if_asked(teaching: Teaching) -> None:
    teach(teaching, "colours", {"red": 2}, keep_photos=True)
    path = teaching.projects.path("colours")
    with database.reading(path) as connection:
        kept = dict(connection.execute("SELECT file, bytes FROM originals o JOIN photos p ON p.id = o.photo"))
    assert kept == {f"red-{seed}.png": photo_of("red", seed) for seed in range(2)}
    teaching.create("colours", keep_photos=False)
    with database.reading(path) as connection:
        assert connection.execute("SELECT count(*) FROM originals").fetchone() == (0,)


@pytest.mark.parametrize("keep_photos", [True, False])
def test_another_backbone_computes_kept_photos_again(tmp_path: Path, keep_photos: bool) -> None:
    teaching = make_teaching(tmp_path / "projects")
    teach(teaching, "colours", {"red": 4, "blue": 4}, keep_photos=keep_photos)
    other = make_teaching(tmp_path / "projects", colour_classifier(weights_sha256="b" * 64))
    assert other.describe("colours").stale == 8
    report = other.solve("colours", NO_DEADLINE).report
    assert (report.is_ready, report.stale, report.photos) == (keep_photos, 0 if keep_photos else 8, 8)
    teach(other, "colours", {"green": 3})
    assert other.solve("colours", NO_DEADLINE).report.stale == report.stale


def test_kept_photo_that_cannot_be_read_is_tried_once(tmp_path: Path) -> None:
    teaching = make_teaching(tmp_path / "projects")
    teach(teaching, "colours", {"red": 4, "blue": 4}, keep_photos=True)
    with database.writing(teaching.projects.path("colours")) as connection:
        connection.execute("UPDATE originals SET bytes = x'00' WHERE photo = 1")
    other = make_teaching(tmp_path / "projects", colour_classifier(weights_sha256="b" * 64))
    solved = other.solve("colours", NO_DEADLINE)
    assert solved.report.stale == 1
    assert other.solve("colours", NO_DEADLINE) is solved


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    first, second = make_teaching(tmp_path / "projects"), make_teaching(tmp_path / "projects")
    teach(first, "colours", dict.fromkeys(COLOURS, 0))

    def work(teaching: Teaching, colour: str) -> None:
        for seed in range(12):
            teaching.add("colours", colour, [Upload("", photo_of(colour, seed))], NO_DEADLINE)

    threads = [
        threading.Thread(target=work, args=(teaching, colour))
        for teaching, colour in zip((first, second, first, second), COLOURS, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.photos for row in first.describe("colours").classes][:4] == [12] * 4
    assert first.solve("colours", NO_DEADLINE).report == dataclasses.replace(
        second.solve("colours", NO_DEADLINE).report, seconds=first.solve("colours", NO_DEADLINE).report.seconds
    )


KILLED = """
import sys
sys.path[:0] = ["tests/support", "."]
from taught import make_teaching, photo_of
from pathlib import Path
from app.queueing.scheduling import NO_DEADLINE
from app.teaching.photos import Upload
teaching = make_teaching(Path(sys.argv[1]))
for seed in range(10**6):
    taken = teaching.add("colours", "red", [Upload("", photo_of("red", seed))], NO_DEADLINE)[1]
    print(taken[0].sha256, flush=True)
"""


def test_kill_loses_no_accepted_photo(tmp_path: Path) -> None:
    teaching = make_teaching(tmp_path / "projects")
    teach(teaching, "colours", {"red": 0, "blue": 3})
    command = [sys.executable, "-c", KILLED, str(tmp_path / "projects")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        accepted = [process.stdout.readline().strip() for _ in range(10)]
        process.send_signal(signal.SIGKILL)
        accepted += [line.strip() for line in process.stdout if len(line) == 65]
    solved = teaching.solve("colours", NO_DEADLINE)
    assert set(accepted) <= {digest.hex() for digest in solved.state.sha256}
    with database.reading(teaching.projects.path("colours")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_full_disk_keeps_nothing_of_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teaching = make_teaching(tmp_path / "projects")
    teach(teaching, "colours", {"red": 3})
    monkeypatch.setattr(database, "PRAGMAS", (*database.PRAGMAS, "max_page_count = 1"))
    uploads = [Upload("", photo_of("red", seed)) for seed in range(20, 40)]
    with pytest.raises(ProjectFull, match="disk"):
        teaching.add("colours", "red", uploads, NO_DEADLINE)
    monkeypatch.undo()
    assert count_photos(teaching, "colours") == 3
    assert teaching.add("colours", "red", uploads[:1], NO_DEADLINE)[1][0].state == "added"


def test_project_deleted_elsewhere_is_not_made_again(teaching: Teaching, tmp_path: Path) -> None:
    teach(teaching, "colours", {"red": 3, "blue": 3})
    other = make_teaching(tmp_path / "projects")
    other.delete("colours")
    with pytest.raises(UnknownProject):
        teaching.add("colours", "red", [Upload("", photo_of("red", 9))], NO_DEADLINE)
    with pytest.raises(UnknownProject):
        teaching.solve("colours", NO_DEADLINE)
    assert teaching.projects.names() == []
