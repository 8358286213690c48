"""Writing an index: it grows and shrinks, survives what kills a job, and has one writer."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from indexes import EMBEDDING, add, full_disk, made_vectors, make_library

from app.errors import BatchStopped, IndexProblem
from app.search.library import Library
from app.search.writer import Failure, Writer, read_failures

FAILURE = Failure("bad.jpg", None, "no-photo", "The file is empty.")


def paths_in(folder: Path) -> list[str]:
    return [row.path for row in Library.open(folder).rows]


def check_bits(folder: Path) -> Library:
    """Check that all bits of an index are those of its vectors by its signs, and that nothing else is left in it."""
    library = Library.open(folder)
    assert library.bits.tolist() == library.signs.bits(library.vectors).tolist()
    assert len([*folder.glob("data-*"), *folder.glob("signs-*")]) == 2
    return library


def test_an_index_grows_with_each_commit(tmp_path: Path) -> None:
    vectors = made_vectors(60)
    with closing(Writer(tmp_path / "lib", EMBEDDING)) as writer:
        for start in range(0, 60, 6):
            add(writer, (f"{number}.jpg" for number in range(start, start + 6)), vectors[start : start + 6])
            writer.commit()
            check_bits(tmp_path / "lib")
        assert writer.manifest.fitted == 48  # the mean was computed at 6, 12, 24 and 48 rows
        writer.commit(at_end=True)
        assert writer.manifest.fitted == 60
    library = check_bits(tmp_path / "lib")
    assert np.allclose(library.signs.mean, library.vectors.mean(axis=0, dtype=np.float32), atol=1e-3)
    assert [library.nearest(vector, 1)[0][0] for vector in vectors] == list(range(60))


def test_what_a_killed_job_left_is_cut_off(tmp_path: Path) -> None:
    make_library(tmp_path / "lib", made_vectors(5), failed=["bad.jpg"])
    data = tmp_path / "lib/data-1"
    sizes = {path: path.stat().st_size for path in data.iterdir()}
    for path in (*sizes, tmp_path / "lib/signs-1/bits.u8"):
        with path.open("ab") as file:
            file.write(b"torn")
    for left in ("data-2", "signs-9"):
        (tmp_path / "lib" / left).mkdir()
    (tmp_path / "lib/.index.json-x").write_text("{")
    assert len(Library.open(tmp_path / "lib")) == 5
    with closing(Writer(tmp_path / "lib")) as writer:
        assert {path: path.stat().st_size for path in sizes} == sizes
        assert (len(writer.paths), writer.failed) == (5, {"bad.jpg": "no-photo"})
        add(writer, ["new.jpg"], made_vectors(1))
        writer.commit()
    assert paths_in(tmp_path / "lib") == [*(f"{number}.jpg" for number in range(5)), "new.jpg"]
    assert not (tmp_path / "lib/.index.json-x").exists()
    check_bits(tmp_path / "lib")


def test_a_job_killed_before_its_first_commit_can_begin(tmp_path: Path) -> None:
    (tmp_path / "lib/data-1").mkdir(parents=True)
    (tmp_path / "lib/data-1/rows.ndjson").write_bytes(b"torn")
    make_library(tmp_path / "lib", made_vectors(3))
    assert len(check_bits(tmp_path / "lib")) == 3


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    vectors = made_vectors(300)
    names = [f"{number}.jpg" for number in range(300)]
    with closing(Writer(tmp_path / "lib", EMBEDDING)) as writer:
        add(writer, names[:100], vectors[:100])
        writer.commit()
        add(writer, names[100:], vectors[100:])
        with full_disk(20_000), pytest.raises(BatchStopped, match="lib cannot be written: File too large"):
            writer.commit()
        assert paths_in(tmp_path / "lib") == names[:100]
        writer.commit()  # there is room again
    assert paths_in(tmp_path / "lib") == names
    with closing(Writer(tmp_path / "lib")) as writer:
        with full_disk(20_000), pytest.raises(BatchStopped, match="cannot be written"):
            writer.remove(["7.jpg"])
        assert paths_in(tmp_path / "lib") == names
        assert writer.remove(["7.jpg"]) == 1
    assert len(check_bits(tmp_path / "lib")) == 299


def test_nothing_of_a_removed_photo_is_left(tmp_path: Path) -> None:
    vectors = made_vectors(9)
    names = ["a/1.jpg", "a/2.jpg", "a/b/3.jpg", "ab.jpg", "c.jpg", "gone.jpg", "e.jpg", "f.jpg", "g.jpg"]
    with closing(Writer(tmp_path / "lib", EMBEDDING)) as writer:
        add(writer, names, vectors)
        writer.fail(FAILURE)
        writer.fail(Failure("a/broken.jpg", None, "broken-image", "This JPEG file is damaged or incomplete."))
        writer.commit()
        assert writer.remove(["a/", "gone.jpg"]) == 5
        assert (writer.failed, writer.manifest.failed) == ({"bad.jpg": "no-photo"}, 1)
    library = check_bits(tmp_path / "lib")
    kept = [3, 4, 6, 7, 8]
    assert paths_in(tmp_path / "lib") == [names[place] for place in kept]
    assert [library.nearest(vectors[place], 1)[0][0] for place in kept] == list(range(5))
    assert [library.thumbnail(row) for row in range(5)] == [f"thumbnail of {names[place]}".encode() for place in kept]
    assert library.hashes.tolist() == kept
    everything = b"".join(path.read_bytes() for path in (tmp_path / "lib").rglob("*") if path.is_file())
    assert not any(name in everything for name in (b"a/1.jpg", b"a/b/3.jpg", b"gone.jpg", b"a/broken.jpg"))
    with closing(Writer(tmp_path / "lib")) as writer:
        with pytest.raises(IndexProblem, match=r"gone\.jpg is not in the index; nothing was removed"):
            writer.remove(["c.jpg", "gone.jpg"])
        assert writer.remove(paths_in(tmp_path / "lib")) == 5
        add(writer, ["c.jpg"], vectors[:1])
        writer.commit()
    assert paths_in(tmp_path / "lib") == ["c.jpg"]


def test_a_photo_that_failed_may_succeed_later(tmp_path: Path) -> None:
    make_library(tmp_path / "lib", made_vectors(3), failed=["bad.jpg", "worse.jpg"])
    with closing(Writer(tmp_path / "lib")) as writer:
        add(writer, ["bad.jpg"], made_vectors(1))
        writer.commit()
    with closing(Writer(tmp_path / "lib")) as writer:
        assert (writer.failed, writer.manifest.failed) == ({"worse.jpg": "no-photo"}, 1)
        writer.remove(["0.jpg"])
        assert [failure.path for failure in read_failures(tmp_path / "lib", writer.manifest)] == ["worse.jpg"]


def test_an_index_has_one_writer(tmp_path: Path) -> None:
    with (
        closing(Writer(tmp_path / "lib", EMBEDDING)),
        pytest.raises(IndexProblem, match="Another job is writing to .*lib; wait until it has ended"),
    ):
        Writer(tmp_path / "lib")
    Writer(tmp_path / "lib").close()


def test_other_folders_are_no_index(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"")
    with pytest.raises(IndexProblem, match=r"photos holds other files and no index\.json"):
        Writer(tmp_path / "photos", EMBEDDING)
    assert os.listdir(tmp_path / "photos") == ["a.jpg"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(IndexProblem, match=r"empty is not an index: it has no index\.json"):
        Writer(tmp_path / "empty")
    with pytest.raises(IndexProblem, match=r"missing cannot be used: No such file"):
        Writer(tmp_path / "missing")
