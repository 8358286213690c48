"""Groups of near-duplicates: the same as if all pairs were compared in full, and quick where there are many copies."""

from __future__ import annotations

import numpy as np
import pytest
from made_photos import copies_of, embeddings, of_length_one

from app.model import duplicates
from app.model.duplicates import (
    NEAR_DUPLICATE,
    SLACK,
    Groups,
    cosines,
    find_directions,
    group_duplicates,
    shorten,
    unite_near,
)


def groups_of(rows: np.ndarray) -> list[int]:
    return group_duplicates(rows, lambda done, total: None).tolist()


def compare_all(rows: np.ndarray) -> list[int]:
    """Group rows by comparing every pair in full."""
    near = np.einsum("ac,bvc->abv", rows[:, 0].astype(float), rows.astype(float)).max(axis=2) >= NEAR_DUPLICATE
    near |= near.T
    groups = np.arange(len(rows))
    while not np.array_equal(lower := np.where(near, groups[None], len(rows)).min(axis=1), groups):
        groups = lower
    return groups.tolist()


@pytest.fixture(params=[2048, 7])
def block_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare blocks of many rows, and of a few."""
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", request.param)


@pytest.mark.usefixtures("block_rows")
def test_copies_are_grouped_and_others_are_not() -> None:
    rows = embeddings(np.arange(20))
    found = groups_of(np.concatenate([rows, copies_of(rows)]))
    assert found == [*range(20), *range(20)]


@pytest.mark.usefixtures("block_rows")
def test_a_mirror_image_is_a_copy() -> None:
    rows = embeddings(np.arange(4))
    rows[:, 1] = embeddings(np.arange(8))[4:, 0]
    assert groups_of(np.concatenate([rows, rows[:, ::-1]])) == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.usefixtures("block_rows")
def test_a_chain_of_copies_is_one_group() -> None:
    angles = np.arange(12) * 0.3  # the cosine of neighbours is 0.955, of others at most 0.83
    rows = of_length_one(np.stack([np.stack([np.cos(angles), np.sin(angles)], axis=1)] * 2, axis=1))
    assert groups_of(rows) == [0] * 12


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize("spread", [0.1, 0.25, 0.3, 0.5])
def test_groups_are_those_of_all_pairs(spread: float) -> None:
    rows = embeddings(np.arange(90) % 9, channels=300, spread=spread)
    assert groups_of(rows) == compare_all(rows)


def test_photos_without_mirror_images_are_grouped_too() -> None:
    angles = np.radians([0, 15, 30, 90, 100, 180])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert groups_of(rows[:, None]) == [0, 0, 0, 3, 3, 5]


@pytest.mark.usefixtures("block_rows")
def test_only_the_named_rows_are_united() -> None:
    angles = np.radians([0, 15, 30, 45, 100, 110])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    groups = Groups(np.array([0, 1, 2, 3, 4, 5]))
    unite_near(groups, rows, np.array([1]), np.array([0, 1, 3, 4, 5]))
    assert groups.numbers.tolist() == [0, 0, 2, 3, 4, 5]
    unite_near(groups, rows, np.array([2, 5]), np.arange(6))
    assert groups.numbers.tolist() == [0, 0, 0, 0, 4, 4]


@pytest.mark.parametrize("few", [64, 10**9])
def test_cosines_are_those_of_the_pairs(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(duplicates, "_FEW", few)
    monkeypatch.setattr(duplicates, "_PART_PAIRS", 3)
    rows = embeddings(np.arange(40))[:, 0]
    first, second = np.arange(0, 10), np.arange(19, 9, -1)
    expected = rows.astype(float)[first] @ rows[20:].astype(float).T[:, second]
    assert cosines(rows, rows[20:], first, second) == pytest.approx(np.diag(expected), abs=1e-6)


def test_more_photos_than_directions_are_bounded_from_above() -> None:
    rows = embeddings(np.arange(300) % 9, channels=300)
    bounds = duplicates._nearest(*[shorten(rows, find_directions(rows[:, 0]))] * 2)
    assert (bounds >= duplicates._nearest(rows, rows) - SLACK).all()
    assert bounds.min() < NEAR_DUPLICATE / 2


def test_thousands_of_copies_are_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    unite = Groups.unite
    monkeypatch.setattr(Groups, "unite", lambda *args: passes.append(len(args[1])) or unite(*args))
    rows = np.repeat(embeddings(np.arange(1)), 3000, axis=0)
    assert set(groups_of(rows)) == {0}
    assert sum(passes) < 10_000_000


def test_how_far_it_is_counts_photos() -> None:
    seen: list[tuple[int, int]] = []
    group_duplicates(embeddings(np.arange(3)), lambda done, total: seen.append((done, total)))
    assert seen == [(3, 3)]
