"""Items are worked on side by side: taken lazily, yielded as they end or in order."""

from __future__ import annotations

import itertools
import threading

import pytest

from app.queueing.scheduling import in_order, side_by_side

PATIENCE_SECONDS = 20


def test_every_item_is_worked_on_once() -> None:
    found = {place: future.result() for place, future in side_by_side(lambda n: n * n, range(50), threads=3)}
    assert found == {n: n * n for n in range(50)}


def test_the_first_to_end_comes_first() -> None:
    go_on = threading.Event()

    def work(number: int) -> int:
        assert number or go_on.wait(PATIENCE_SECONDS)
        return number

    places = []
    for place, _ in side_by_side(work, range(4), threads=2):
        places.append(place)
        if len(places) == 3:
            go_on.set()
    assert places[-1] == 0


def test_in_order_waits_for_the_slow_one() -> None:
    second_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert second_done.wait(PATIENCE_SECONDS)
        elif number == 1:
            second_done.set()
        return number

    assert list(in_order(side_by_side(work, range(6), threads=2))) == list(range(6))


def test_items_without_an_end_are_taken_as_needed() -> None:
    taken = itertools.count()
    done = side_by_side(lambda _: None, iter(lambda: next(taken), None), threads=2)
    for _ in range(5):
        next(done)
    done.close()
    assert next(taken) <= 5 + 2 * 2


def test_a_failure_belongs_to_its_item() -> None:
    futures = dict(side_by_side(lambda n: 1 // n, [1, 0, 2], threads=1))
    assert isinstance(futures[1].exception(), ZeroDivisionError)
    assert (futures[0].result(), futures[2].result()) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        list(in_order(side_by_side(lambda n: 1 // n, [1, 0, 2], threads=1)))
