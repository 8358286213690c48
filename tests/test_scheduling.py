"""The door keeps count, slots hand over in order, the batcher never mixes items up, and nothing late is begun."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from app.errors import ClientClosedRequest, DeadlineExceeded, Overloaded
from app.scheduling import LONGEST_RETRY_SECONDS, NO_DEADLINE, Admission, Batcher, Deadline, Slots

PATIENCE_SECONDS = 20


def wait_until_waiting(slots: Slots, in_flight: int) -> None:
    """Wait, by the count itself, until so many hold or await a slot."""
    deadline = threading.Event()
    for _ in range(PATIENCE_SECONDS * 1000):
        if slots.in_flight == in_flight:
            return
        deadline.wait(0.001)
    raise AssertionError(f"{slots.in_flight} in flight, not {in_flight}")


def test_a_request_too_many_is_refused_at_once() -> None:
    admission = Admission(most_requests=2, most_bytes=100)
    leave = admission.enter(1)
    admission.enter(1)
    with pytest.raises(Overloaded, match="2 requests are waiting already"):
        admission.enter(1)
    leave()
    admission.enter(1)
    assert admission.requests == 2


def test_bytes_too_many_are_refused_at_once() -> None:
    admission = Admission(most_requests=10, most_bytes=1000)
    leave = admission.enter(900)
    with pytest.raises(Overloaded, match="900 bytes of photos are waiting already"):
        admission.enter(101)
    admission.enter(100)
    leave()
    assert (admission.requests, admission.bytes) == (1, 100)


def test_a_refusal_says_how_long_those_before_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("app.scheduling.time.monotonic", lambda: now[0])
    admission = Admission(most_requests=4, most_bytes=100)
    for _ in range(3):
        leaves = [admission.enter(1) for _ in range(4)]
        for leave in leaves:
            now[0] += 2.0
            leave()
        now[0] += 500.0  # nobody was there, so nothing was slow
    for _ in range(4):
        admission.enter(1)
    with pytest.raises(Overloaded) as refusal:
        admission.enter(1)
    assert refusal.value.retry_after_seconds == 8
    assert "Try again in 8 s." in refusal.value.detail


def test_nobody_is_sent_away_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("app.scheduling.time.monotonic", lambda: now[0])
    admission = Admission(most_requests=1, most_bytes=1)
    leave = admission.enter(1)
    now[0] += 1000
    leave()
    admission.enter(1)
    with pytest.raises(Overloaded) as refusal:
        admission.enter(1)
    assert refusal.value.retry_after_seconds == LONGEST_RETRY_SECONDS


def test_a_lone_turn_is_alone_until_another_comes() -> None:
    slots = Slots(2)
    with slots.take() as first:
        assert first.alone
        with slots.take() as second:
            assert not first.alone
            assert not second.alone
        assert first.alone
    assert slots.in_flight == 0


def test_a_turn_is_not_alone_while_other_processes_work() -> None:
    slots, elsewhere = Slots(2), [1]
    slots.elsewhere = lambda: elsewhere[0]
    with slots.take() as turn:
        assert not turn.alone
        elsewhere[0] = 0
        assert turn.alone


def test_those_who_wait_make_a_turn_not_alone() -> None:
    slots = Slots(1)
    with ThreadPoolExecutor(1) as pool:
        with slots.take() as turn:
            waiting = pool.submit(take_and_leave, slots)
            wait_until_waiting(slots, 2)
            assert not turn.alone
        assert waiting.result(PATIENCE_SECONDS) > 0


def take_and_leave(slots: Slots, deadline: Deadline = NO_DEADLINE) -> float:
    with slots.take(deadline) as turn:
        return turn.waited_seconds


def test_slots_are_granted_in_the_order_of_arrival() -> None:
    slots = Slots(1)
    served: list[int] = []

    def serve(number: int) -> None:
        with slots.take():
            served.append(number)

    with ThreadPoolExecutor(10) as pool, slots.take():
        for number in range(10):
            pool.submit(serve, number)
            wait_until_waiting(slots, number + 2)
    assert served == list(range(10))


def test_no_more_run_at_once_than_there_are_slots() -> None:
    slots = Slots(3)
    barrier = threading.Barrier(3)
    running, most, lock = [0], [0], threading.Lock()

    def work(_: int) -> None:
        with slots.take():
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            barrier.wait(PATIENCE_SECONDS)
            with lock:
                running[0] -= 1

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))
    assert most[0] == 3
    assert slots.in_flight == 0


def test_a_turn_that_comes_too_late_is_not_taken() -> None:
    slots = Slots(1)
    with slots.take(), pytest.raises(DeadlineExceeded):
        slots.take(Deadline(time.monotonic() + 0.01)).__enter__()
    assert (slots.in_flight, slots.waiting) == (0, 0)
    with slots.take() as turn:
        assert turn.alone


def test_a_wait_that_ends_a_hair_early_gets_no_slot() -> None:
    class NearlyOver(Deadline):
        remaining_seconds = 0.001

    slots = Slots(1)
    with slots.take(), pytest.raises(DeadlineExceeded):
        slots.take(NearlyOver()).__enter__()
    assert (slots.in_flight, slots.waiting) == (0, 0)


def test_a_client_that_left_while_it_waited_is_passed_over() -> None:
    slots, left = Slots(1), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with slots.take():
            waiting = pool.submit(take_and_leave, slots, Deadline(is_abandoned=left.is_set))
            wait_until_waiting(slots, 2)
            left.set()
        with pytest.raises(ClientClosedRequest):
            waiting.result(PATIENCE_SECONDS)
    with slots.take() as turn:
        assert turn.alone


def test_a_slot_is_returned_when_the_work_fails() -> None:
    slots = Slots(1)
    with pytest.raises(ZeroDivisionError), slots.take():
        raise ZeroDivisionError
    with slots.take() as turn:
        assert turn.alone


class HeldCompute:
    """Doubles numbers; holds its first batch until it is let go, and fails batches that hold a bad number."""

    def __init__(self, bad: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.started, self.go_on = threading.Event(), threading.Event()
        self._bad = bad

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.set()
        assert self.go_on.wait(PATIENCE_SECONDS)
        if self._bad in items:
            raise ValueError(f"{self._bad} is bad")
        return [2 * item for item in items]


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Closes batchers at the end of a test."""
    with ExitStack() as stack:
        yield stack


def batcher_of(compute: HeldCompute, closing: ExitStack, **limits: int) -> Batcher[int, int]:
    batcher = Batcher(compute, **{"largest_batch": 4} | limits)
    closing.callback(batcher.close)
    closing.callback(compute.go_on.set)
    return batcher


def test_what_waits_is_the_next_batch(closing: ExitStack) -> None:
    compute = HeldCompute()
    batcher = batcher_of(compute, closing)
    futures = [batcher.submit(0)]
    assert compute.started.wait(PATIENCE_SECONDS)
    futures += [batcher.submit(number) for number in range(1, 8)]
    compute.go_on.set()
    assert [future.result(PATIENCE_SECONDS) for future in futures] == [2 * number for number in range(8)]
    assert compute.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_a_bad_item_fails_alone(closing: ExitStack) -> None:
    compute = HeldCompute(bad=2)
    batcher = batcher_of(compute, closing)
    first = batcher.submit(0)
    assert compute.started.wait(PATIENCE_SECONDS)
    futures = {number: batcher.submit(number) for number in (1, 2, 3)}
    compute.go_on.set()
    assert first.result(PATIENCE_SECONDS) == 0
    assert [futures[1].result(PATIENCE_SECONDS), futures[3].result(PATIENCE_SECONDS)] == [2, 6]
    with pytest.raises(ValueError, match="2 is bad"):
        futures[2].result(PATIENCE_SECONDS)


def test_a_wrong_number_of_results_is_an_error_of_its_items() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: [1, 2, 3], largest_batch=1)
    with pytest.raises(RuntimeError, match="3 results came back for 1 items"):
        batcher.submit(1).result(PATIENCE_SECONDS)
    batcher.close()


@pytest.mark.parametrize(
    ("deadline", "failure"),
    [(Deadline(expires=0), DeadlineExceeded), (Deadline(is_abandoned=lambda: True), ClientClosedRequest)],
)
def test_an_item_that_nobody_waits_for_is_not_computed(
    closing: ExitStack, deadline: Deadline, failure: type[Exception]
) -> None:
    compute = HeldCompute()
    batcher = batcher_of(compute, closing)
    batcher.submit(0)
    assert compute.started.wait(PATIENCE_SECONDS)
    late, due = batcher.submit(1, deadline), batcher.submit(2)
    compute.go_on.set()
    assert due.result(PATIENCE_SECONDS) == 4
    with pytest.raises(failure):
        late.result(PATIENCE_SECONDS)
    assert compute.batches == [[0], [2]]


def test_closing_computes_what_waits_and_ends_the_thread() -> None:
    compute, before = HeldCompute(), threading.enumerate()
    compute.go_on.set()
    batcher: Batcher[int, int] = Batcher(compute, largest_batch=4)
    future = batcher.submit(5)
    batcher.close()
    assert future.result(0) == 10
    assert threading.enumerate() == before
    with pytest.raises(Overloaded):
        batcher.submit(6)
