"""Decisions of tuning without a network: what there is time for, what is too few, and which gain excludes a loss."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from app.training import report
from app.training.tuning_plan import Plan, Sizes, Speeds, plan_epochs, why_only_head
from app.training.tuning_result import paired_gain

FAST = Speeds(caching=0.004, last=0.003, last_predicting=0.001, all=0.014, all_predicting=0.005)
SLOW = Speeds(caching=0.3, last=0.3, last_predicting=0.1, all=1.5, all_predicting=0.5)
SIZES = Sizes(learning=2454, left_out=614, maps=13_636, trials=0)
TRIALS = dataclasses.replace(SIZES, trials=6 * 2147)


@pytest.mark.parametrize(
    ("method", "minutes", "speeds", "plan"),
    [
        ("auto", 20, FAST, Plan(8, 8, True)),
        ("all", 20, FAST, Plan(8, 8, True)),
        ("all", 12, FAST, Plan(8, 9, False)),
        ("last", 20, FAST, Plan(8, 0, True)),
        ("auto", 2, FAST, Plan(6, 0, False)),
        ("all", 2, FAST, Plan(0, 2, False)),
        ("auto", 20, SLOW, Plan(0, 0, False)),
        ("last", 20, SLOW, Plan(0, 0, False)),
        ("all", 20, SLOW, Plan(0, 0, False)),
        ("all", 0.9, FAST, Plan(0, 0, False)),
        ("all", 6, FAST, Plan(4, 4, False)),
    ],
)
def test_the_time_allowed_decides_the_epochs(method: str, minutes: float, speeds: Speeds, plan: Plan) -> None:
    assert plan_epochs(method, 60 * minutes, speeds, SIZES) == plan


@pytest.mark.parametrize(
    ("method", "minutes", "plan"),
    [
        ("auto", 20, Plan(8, 8, True, True)),
        ("last", 20, Plan(8, 0, True, True)),
        ("last", 6, Plan(8, 0, True, False)),
        ("all", 2, Plan(0, 2, False, False)),
        ("auto", 0.1, Plan(0, 0, False, False)),
    ],
)
def test_trials_take_at_most_a_tenth_of_the_time(method: str, minutes: float, plan: Plan) -> None:
    assert plan_epochs(method, 60 * minutes, FAST, TRIALS) == plan


def test_epochs_that_were_asked_for_need_no_time() -> None:
    assert plan_epochs("all", 0, SLOW, SIZES, 3) == Plan(3, 3, True)
    assert plan_epochs("last", 0, SLOW, TRIALS, 12) == Plan(12, 0, True, True)


@pytest.mark.parametrize(
    ("method", "photos", "left_out", "reason"),
    [
        ("all", 1, 0, "single"),
        ("last", 9, 19, "unmeasurable"),
        ("auto", 9, 20, "few"),
        ("all", 9, 20, None),
        ("auto", 10, 20, None),
    ],
)
def test_few_photos_get_only_a_head(method: str, photos: int, left_out: int, reason: str | None) -> None:
    found = why_only_head(method, {"cat": photos, "dog": photos}, left_out)
    assert (found.key if found else None) == reason


def test_a_gain_excludes_a_loss_if_it_is_large() -> None:
    before = np.arange(300) % 10 < 8
    groups = np.arange(300)
    better, slightly, equal = before | (groups % 10 == 8), before | (groups == 8), before
    assert [paired_gain(each, before, groups).excludes_loss for each in (better, slightly, equal)] == [
        True,
        False,
        False,
    ]
    assert paired_gain(better, before, groups).points == 10
    assert paired_gain(before, better, groups).high < 0


def test_near_duplicates_count_as_one_photo() -> None:
    before, groups = np.zeros(30, bool), np.repeat(np.arange(15), 2)
    after = groups < 5
    each = paired_gain(after[::2], before[::2], groups[::2])
    assert paired_gain(after, before, groups) == each


def test_every_decision_has_a_sentence_in_both_languages() -> None:
    words = json.loads(report._WORDS.read_text(encoding="utf-8"))
    for key in (
        "single",
        "unmeasurable",
        "few",
        "left_out",
        "plan",
        "plan.asked",
        "plan.none",
        "maps",
        "stopped",
        "memory",
        "bf16",
        "fp32",
    ):
        assert all(f"choice.{key}" in each for each in words.values())
