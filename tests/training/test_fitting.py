"""Folds that keep groups whole, left-out predictions that know nothing of what was left out, and their accuracy."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from calls import count_calls
from made_photos import copies_of, embeddings

from app.model.certainty import nearness
from app.model.duplicates import group_duplicates
from app.model.solver import TOLERANCE, Examples, fit_softmax, spectrum, weigh_classes, with_constant
from app.training import fitting
from app.training.fitting import FOLDS, MIN_PHOTOS, Task, calibrate, choose_strength, divide, fit, predict

STRENGTH = 1e-4


def quiet(done: int, total: int) -> None:
    """Show no progress."""


def make_task(photos: int = 120, classes: int = 4, spread: float = 3.5) -> Task:
    truth = np.arange(photos) % classes
    rows = embeddings(truth, spread=spread)
    return Task(rows, truth, np.arange(photos), classes)


def twice(task: Task) -> Task:
    """Return a task with a near-duplicate of each photo, in its group."""
    rows = np.concatenate([task.rows, copies_of(task.rows)])
    return Task(rows, np.tile(task.classes, 2), np.tile(task.groups, 2), task.class_count)


def accuracy_of(task: Task) -> float:
    ridge, _, like = choose_strength(task)
    found = fit(task, STRENGTH, like, 0, quiet)
    return float(np.mean(found.left_out.argmax(axis=1) == task.classes))


def test_groups_are_never_divided() -> None:
    task = dataclasses.replace(make_task(), groups=np.arange(120) // 3)
    folds = divide(task, 0)
    assert all(len(set(folds[task.groups == group])) == 1 for group in range(40))


def test_folds_have_about_equal_shares_of_each_class() -> None:
    folds = divide(make_task(photos=400), 0)
    for number in range(4):
        shares = Counter(folds[np.arange(400) % 4 == number].tolist())
        assert set(shares) == set(range(FOLDS))
        assert set(shares.values()) == {10}


def test_the_seed_decides_the_folds() -> None:
    task = make_task()
    assert np.array_equal(divide(task, 1), divide(task, 1))
    assert not np.array_equal(divide(task, 1), divide(task, 2))


@pytest.mark.parametrize("groups", [1, 2, 9])
def test_few_groups_are_as_many_folds(groups: int) -> None:
    task = dataclasses.replace(make_task(), groups=np.arange(120) % groups)
    assert set(divide(task, 0)) == set(range(groups))


def test_left_out_logits_are_those_of_a_fit_without_the_fold() -> None:
    task = make_task(photos=60)
    like = spectrum(task.examples())
    found, folds = fit(task, STRENGTH, like, 5, quiet), divide(task, 5)
    for fold in range(FOLDS):
        kept = np.flatnonzero(folds != fold)
        classes = np.repeat(task.classes[kept], 2)
        part = Examples(task.rows[kept].reshape(-1, 64), classes, weigh_classes(classes, 4), 4)
        expected = with_constant(task.rows[folds == fold, 0]) @ fit_softmax(part, STRENGTH, like).T
        assert found.left_out[folds == fold] == pytest.approx(expected, abs=3 * TOLERANCE / STRENGTH)


def test_copies_under_other_names_do_not_change_the_accuracy() -> None:
    task = make_task()
    assert 0.4 < accuracy_of(task) < 0.9
    assert accuracy_of(twice(task)) == pytest.approx(accuracy_of(task), abs=0.04)


def test_copies_that_are_not_grouped_would_answer_for_each_other() -> None:
    task = twice(make_task())
    assert accuracy_of(dataclasses.replace(task, groups=np.arange(240))) > accuracy_of(task) + 0.1


def test_copies_are_found_by_their_embeddings() -> None:
    task = twice(make_task())
    assert np.array_equal(group_duplicates(task.rows, quiet), task.groups)


def test_without_mirror_images_there_is_one_row_for_each_photo() -> None:
    task = make_task()
    alone = dataclasses.replace(task, rows=task.rows[:, :1])
    assert len(alone.examples().rows) == len(task.examples().rows) // 2 == 120
    assert accuracy_of(alone) > 0.4


def test_one_group_of_all_photos_leaves_nothing_to_learn_from() -> None:
    task = dataclasses.replace(make_task(photos=8), groups=np.zeros(8, np.intp))
    found = fit(task, STRENGTH, spectrum(task.examples()), 0, quiet)
    assert not found.left_out.any()


def test_the_threshold_accepts_known_photos_and_no_strangers() -> None:
    task = make_task(photos=400, spread=1.0)
    found = fit(task, STRENGTH, spectrum(task.examples()), 0, quiet)
    calibration, centres = calibrate(found, task)
    assert calibration.photos == 400
    assert calibration.unlike_below is not None
    known, strangers = task.rows[:, 0], np.random.default_rng(5).normal(size=(200, task.rows.shape[2]))
    assert np.mean(nearness(known, centres) < calibration.unlike_below) <= 0.05
    assert np.mean(nearness(strangers, centres) < calibration.unlike_below) > 0.9


def test_predictions_are_those_of_the_head() -> None:
    task = make_task(spread=0.5)
    found = fit(task, STRENGTH, spectrum(task.examples()), 0, quiet)
    assert np.mean(predict(found.weight, task.rows[:, 0]) == task.classes) == 1


@pytest.mark.parametrize(("photos", "has_limit"), [(MIN_PHOTOS - 1, False), (MIN_PHOTOS, True)])
def test_nearness_is_computed_only_for_enough_photos(
    monkeypatch: pytest.MonkeyPatch, photos: int, has_limit: bool
) -> None:
    computed = count_calls(monkeypatch, fitting, "left_out_nearness")
    task = make_task(photos=photos)
    calibration, _ = calibrate(fit(task, STRENGTH, spectrum(task.examples()), 0, quiet), task)
    assert (bool(computed), calibration.unlike_below is not None) == (has_limit, has_limit)
