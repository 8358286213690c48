"""The schedule of a phase: its rates, its crops, and the epochs that still fit into the time."""

from __future__ import annotations

import pytest

from app.training.tuning_schedule import Phase, rate_at

ALL_LAYERS = Phase("measuring all", "all", epochs=9)


def test_rates_rise_and_then_fall_to_zero() -> None:
    rates = [rate_at(at / 10) for at in range(11)]
    assert rates[1] == max(rates) == 1.0
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[10] == pytest.approx(0.0)


def test_crops_are_large_in_the_last_third() -> None:
    assert [ALL_LAYERS.is_large(number) for number in (1, 6, 7, 9)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("done", "left", "epochs"),
    [
        (1, 1900, 15),
        (1, 1100, 9),
        (1, 1000, 8),
        (1, 500, 5),
        (1, 100, 2),
        (1, 99, 1),
        (6, 2000, 15),
        (7, 2000, 9),
        (7, 200, 8),
        (9, -5, 9),
    ],
)
def test_epochs_are_as_many_as_fit_into_the_time(done: int, left: float, epochs: int) -> None:
    seconds = 200 if ALL_LAYERS.is_large(done) else 100
    assert ALL_LAYERS.fitted(done, seconds, left).epochs == epochs


def test_one_planned_epoch_becomes_more_if_it_was_fast() -> None:
    assert Phase("measuring all", "all", epochs=1).fitted(1, seconds=100, left=500).epochs == 5


def test_the_last_stage_has_epochs_of_equal_cost() -> None:
    phase = Phase("measuring last", "last", epochs=8)
    assert phase.fitted(2, seconds=10, left=30).epochs == 5


def test_a_run_on_all_photos_ends_with_the_last_chosen_epoch() -> None:
    phase = Phase("finishing all", "all", epochs=9, kept=(3, 5))
    assert (phase.last_epoch, phase.title) == (5, "Second run, on all photos, all layers")
