"""Reading an index: rows, neighbours, and files that are damaged or of another model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from indexes import EMBEDDING, add, made_vectors, make_library, row_of

from app.errors import IndexProblem
from app.search.duplicates import find_duplicates
from app.search.library import Library
from app.search.signs import Signs, bits_bytes, differences
from app.search.writer import Writer


def test_what_was_written_is_read(tmp_path: Path) -> None:
    vectors = made_vectors(7)
    library = make_library(tmp_path / "lib", vectors)
    assert [row.path for row in library.rows] == [f"{number}.jpg" for number in range(7)]
    assert (library.rows[-1], list(library.rows)[5:]) == (row_of("6.jpg"), [row_of("5.jpg"), row_of("6.jpg")])
    assert np.allclose(library.vectors, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-3)
    assert library.hashes.tolist() == list(range(7))
    assert library.thumbnail(3) == b"thumbnail of 3.jpg"
    assert library.bits.tolist() == library.signs.bits(library.vectors).tolist()
    assert (library.embedding, len(library), library.is_current()) == (EMBEDDING, 7, True)


def test_an_index_without_rows_has_no_neighbours(tmp_path: Path) -> None:
    library = make_library(tmp_path / "lib", made_vectors(0), failed=["a.jpg"])
    for exact in (False, True):
        assert (len(library), library.nearest(made_vectors(1)[0], 3, exact=exact)) == (0, [])


def test_neighbours_are_those_of_the_cosine(tmp_path: Path) -> None:
    vectors = made_vectors(3000)
    library = make_library(tmp_path / "lib", vectors)
    found = 0
    for place in range(0, 3000, 60):
        exact = library.nearest(7 * vectors[place], 10, exact=True)
        cosines = vectors @ vectors[place] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[place])
        assert [row for row, _ in exact[:3]] == np.argsort(-cosines)[:3].tolist()
        assert exact[0] == (place, pytest.approx(1, abs=1e-3))
        assert [cosine for _, cosine in exact] == pytest.approx(np.sort(-cosines)[:10] * -1, abs=1e-3)
        found += len({row for row, _ in exact[:3]} & {row for row, _ in library.nearest(vectors[place], 3)})
    assert found >= 0.98 * 150  # with 64 channels, and so 64 bits, farther neighbours are found less surely


@pytest.mark.parametrize("channels", [8, 500, 512, 1280])
def test_differing_bits_are_counted(channels: int) -> None:
    vectors = made_vectors(5000, channels)
    signs = Signs.fit(vectors.astype(np.float16))
    bits = signs.bits(vectors)
    assert bits.shape == (5000, bits_bytes(channels))
    plain = np.unpackbits(bits ^ bits[7], axis=1).sum(axis=1)
    assert differences(bits, bits[7]).tolist() == plain.tolist()
    share = np.unpackbits(bits, axis=1)[:, :channels].mean(axis=0)
    assert np.abs(share - 0.5).max() < 0.2  # each bit halves the photos


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def swap(folder: Path, old: bytes, new: bytes) -> None:
    text = (folder / "index.json").read_bytes()
    assert old in text
    (folder / "index.json").write_bytes(text.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, "is not an index: it has no index.json."),
        (
            lambda lib: (lib / "index.json").write_bytes(b'{"format": 1, "rows"'),
            "is damaged: index.json cannot be read.",
        ),
        (lambda lib: swap(lib, b'"rows": 5', b'"rows": -5'), "is damaged: index.json cannot be read."),
        (lambda lib: swap(lib, b'"rows": 5', b'"rows": %d' % (2**62)), "is damaged: index.json cannot be read."),
        (lambda lib: swap(lib, b'"channels": 64', b'"channels": 0'), "is damaged: index.json cannot be read."),
        (lambda lib: swap(lib, b"failed.ndjson", b"../../x.ndjson"), "is damaged: index.json cannot be read."),
        (lambda lib: swap(lib, b'"format": 1', b'"format": 2'), "is an index of a newer version of topthree"),
        (lambda lib: shorten(lib / "data-1/vectors.f16"), "is damaged: vectors.f16 is shorter than index.json says."),
        (lambda lib: shorten(lib / "signs-1/bits.u8"), "is damaged: bits.u8 is shorter than index.json says."),
        (lambda lib: shutil.rmtree(lib / "signs-1"), "is damaged: bits.u8 cannot be read."),
        (
            lambda lib: (lib / "data-1/places.u64").write_bytes(bytes(80)),
            "is damaged: places.u64 and index.json differ.",
        ),
    ],
)
def test_a_damaged_index_is_one_sentence(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    make_library(tmp_path / "lib", made_vectors(5))
    damage(tmp_path / "lib")
    with pytest.raises(IndexProblem, match=said):
        Library.open(tmp_path / "lib")


def test_damaged_vectors_are_one_sentence(tmp_path: Path) -> None:
    make_library(tmp_path / "lib", made_vectors(5))
    with (tmp_path / "lib/data-1/vectors.f16").open("r+b") as file:
        file.write(b"\xff" * 6)
    damaged = Library.open(tmp_path / "lib")
    for search in (
        lambda: damaged.nearest(made_vectors(1)[0], 3),
        lambda: damaged.nearest(made_vectors(1)[0], 3, exact=True),
        lambda: find_duplicates(damaged),
    ):
        with pytest.raises(IndexProblem, match=r"is damaged: vectors\.f16 holds numbers that are not finite\.$"):
            search()


@pytest.mark.parametrize("damage", [(b"{", b"x"), (b'"sha256":"0', b'"sha256":"x'), (b'"width":', b'"width":-')])
def test_a_damaged_row_is_one_sentence(tmp_path: Path, damage: tuple[bytes, bytes]) -> None:
    library = make_library(tmp_path / "lib", made_vectors(5))
    (tmp_path / "lib/data-1/rows.ndjson").write_bytes(library.text.tobytes().replace(*damage))
    with pytest.raises(IndexProblem, match=r"row 2 of rows\.ndjson cannot be read"):
        _ = Library.open(tmp_path / "lib").rows[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model": "resnet50", "channels": 2048},
            "model is resnet18 there and resnet50 now; length of the vectors is 64",
        ),
        ({"weights_sha256": "aa"}, "SHA-256 of the weights is f3 there and aa now"),
        ({"precision": "int8"}, "precision is floating point there and int8 now"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    library = make_library(tmp_path / "lib", made_vectors(5))
    other = msgspec.structs.replace(EMBEDDING, **changes)
    for refuse in (lambda: library.check(other), lambda: Writer(tmp_path / "lib", other)):
        with pytest.raises(IndexProblem, match=said):
            refuse()


def test_an_open_index_stays_as_it_was(tmp_path: Path) -> None:
    vectors = made_vectors(30)
    library = make_library(tmp_path / "lib", vectors[:10])
    with closing(Writer(tmp_path / "lib")) as writer:
        writer.remove(["0.jpg"])
        add(writer, (f"new {number}.jpg" for number in range(20)), vectors[10:])
        writer.commit()
    assert (len(library), library.is_current()) == (10, False)
    assert library.nearest(vectors[0], 1)[0][0] == 0
    assert library.thumbnail(9) == b"thumbnail of 9.jpg"
    assert len(Library.open(tmp_path / "lib")) == 29
