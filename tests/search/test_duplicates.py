"""Groups of duplicates: the same as if all pairs were compared in full, and a report that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from indexes import EMBEDDING

from app.search import duplicates, duplicates_report
from app.search.duplicates import ALIKE, MIN_COSINES, Group, Kind, alike, find_duplicates, same_pictures
from app.search.duplicates_report import write_report
from app.search.library import Library, Row
from app.search.writer import Writer


@pytest.fixture(params=[1024, 7])
def block_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare blocks of many rows, and of a few."""
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", request.param)
    monkeypatch.setattr(duplicates, "_FIRSTS", 5 * request.param // 7)


def turned(vectors: np.ndarray, cosine: float) -> np.ndarray:
    """Turn vectors (n, channels) of length 1 so that each has this cosine with what it was."""
    other = np.roll(vectors, 1, axis=1)
    other -= (other * vectors).sum(axis=1, keepdims=True) * vectors
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    return cosine * vectors + np.sqrt(1 - cosine**2) * other


def directions(count: int) -> np.ndarray:
    """Make vectors of length 1 that are far from each other."""
    vectors = np.random.default_rng(5).standard_normal((count, 64)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make(folder: Path, photos: Sequence[tuple[str, str, int, int]], vectors: np.ndarray) -> Library:
    """Make an index of photos, each a path, a digit of its digest, its width and its bytes; their hashes are 0."""
    with closing(Writer(folder, EMBEDDING)) as writer:
        for (path, digit, width, size), vector in zip(photos, vectors, strict=True):
            writer.add(Row(path, digit * 64, width, 10, "JPEG", size), vector, 0, b"\xff\xd8" + path.encode())
        writer.commit()
    return Library.open(folder)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """An index of two equal files, two more copies of the picture, one that is alike, and another photo."""
    base = directions(2)
    vectors = [base[0], base[0], *turned(base[:1], 0.95), base[0], *turned(base[:1], 0.94), base[1]]
    photos = [
        *(("a.jpg", "a", 20, 5), ("again.jpg", "a", 20, 5), ("large.jpg", "b", 40, 3), ("good.jpg", "c", 20, 9)),
        *(("alike.jpg", "d", 20, 1), ("other.jpg", "e", 20, 1)),
    ]
    folder = tmp_path / "lib"
    make(folder, photos, np.array(vectors))
    hashes = next(folder.glob("data-*/hashes.u64"))
    # The hash of alike.jpg differs in too many bits, that of other.jpg in none.
    np.array([0, 0, 1, 3, 2**40 - 1, 0], np.uint64).tofile(hashes)
    return Library.open(folder)


def test_the_best_of_a_group_comes_first_and_goes_on(library: Library) -> None:
    seen: list[tuple[int, int]] = []
    assert find_duplicates(library, lambda done, total: seen.append((done, total))) == [
        Group(Kind.FILE, [0, 1]),
        Group(Kind.PICTURE, [2, 3, 0]),
        Group(Kind.ALIKE, [2, 4]),
    ]
    assert seen[-1][0] == seen[-1][1]


def test_an_index_without_photos_has_no_duplicates(tmp_path: Path) -> None:
    assert find_duplicates(make(tmp_path / "lib", [], np.zeros((0, 64)))) == []


@pytest.mark.parametrize(
    ("bits", "cosine", "is_same"),
    [
        *(
            (0, 0.61, True),
            (2, 0.58, False),
            (4, 0.84, False),
            (6, 0.91, True),
            (6, 0.89, False),
            (8, 0.94, True),
            (8, 0.92, False),
        ),
        *((10, 0.97, True), (10, 0.95, False), (22, 0.97, True), (23, 0.999, False)),
    ],
)
def test_more_different_bits_need_nearer_embeddings(bits: int, cosine: float, is_same: bool) -> None:
    vectors = directions(1)
    both = np.concatenate([vectors, turned(vectors, cosine)]).astype(np.float16)
    hashes = np.array([0, 2**bits - 1], np.uint64)
    groups = same_pictures(hashes, both, np.arange(2), lambda done: None)
    assert (groups[0] == groups[1]) == is_same


@pytest.mark.usefixtures("block_rows")
def test_pictures_are_those_of_all_pairs() -> None:
    chance, middles = np.random.default_rng(1), directions(9)
    vectors = middles[np.arange(90) % 9] + 0.03 * chance.standard_normal((90, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    hashes = np.uint64(1) << chance.integers(0, 40, (90, 6), np.uint64)
    hashes = np.bitwise_or.reduce(hashes, axis=1)
    rows = np.sort(chance.permutation(90)[:80])
    distances = np.bitwise_count(hashes[rows, None] ^ hashes[None, rows])
    cosines = vectors[rows].astype(np.float32) @ vectors[rows].astype(np.float32).T
    is_same = cosines >= np.append(MIN_COSINES, [2] * 42)[distances]
    wanted = np.arange(80)
    while not np.array_equal(lower := np.where(is_same, wanted, 80).min(axis=1), wanted):
        wanted = lower
    found = same_pictures(hashes[rows], vectors, rows, lambda done: None)
    assert found.tolist() == wanted.tolist()
    assert 9 < len(set(wanted.tolist())) < 80


@pytest.mark.usefixtures("block_rows")
def test_each_photo_is_alike_the_first_of_its_group() -> None:
    angles = np.arange(200) * 0.1  # a chain in which each is alike the next three
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    vectors = np.pad(chain, ((0, 0), (0, 62)))
    groups = alike(vectors, np.arange(200), lambda done: None)
    cosines = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    assert (cosines[np.arange(200), groups] >= ALIKE).all()
    firsts = np.unique(groups)
    assert (np.triu(cosines[np.ix_(firsts, firsts)], 1) < ALIKE).all()
    assert (groups[firsts] == firsts).all()


def test_the_report_shows_names_as_text_and_thumbnails(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>.jpg"
    library = make(tmp_path / "lib", [(name, "a", 9, 2_000_000), ("b.jpg", "a", 9, 5)], directions(2))
    report = write_report(library, find_duplicates(library), title="<b>", language="en")
    assert "<img src=x" not in report
    assert "<b>" not in report
    assert "&lt;img src=x onerror=alert(1)&gt;.jpg" in report
    assert report.count('<img src="data:image/jpeg;base64,') == 2
    assert "2 MB" in report
    plain = write_report(library, find_duplicates(library), title="lib", language="zh", has_thumbnails=False)
    assert "data:image" not in plain
    assert "相同的文件" in plain


def test_a_long_report_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates_report, "MAX_GROUPS", 1)
    monkeypatch.setattr(duplicates_report, "MAX_PHOTOS_OF_GROUP", 2)
    photos = [(f"{digit}{number}.jpg", digit, 9, 5 + number) for digit in "ab" for number in range(3)]
    library = make(tmp_path / "lib", photos, directions(6))
    report = write_report(library, find_duplicates(library), title="lib", language="en")
    assert "1 more photos" in report
    assert "1 more groups are not shown." in report
