"""Slots hand over in order, the batcher never mixes items up, and nothing late is begun."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from watching import WatchedDeadline

from app.errors import ClientClosedRequest, DeadlineExceeded, Overloaded
from app.queueing.scheduling import NO_DEADLINE, Batcher, Deadline, MemoryBudget, Slots

PATIENCE_SECONDS = 20


def wait_until_waiting(slots: Slots, in_flight: int) -> None:
    """Wait, by the count itself, until so many hold or await a slot."""
    deadline = threading.Event()
    for _ in range(PATIENCE_SECONDS * 1000):
        if slots.in_flight == in_flight:
            return
        deadline.wait(0.001)
    raise AssertionError(f"{slots.in_flight} in flight, not {in_flight}")


def test_a_turn_is_exclusive_until_another_request_comes() -> None:
    slots = Slots(2)
    with slots.take() as first:
        assert first.is_exclusive
        with slots.take() as second:
            assert not first.is_exclusive
            assert not second.is_exclusive
        assert first.is_exclusive
    assert slots.in_flight == 0


def test_a_turn_is_not_exclusive_while_other_processes_work() -> None:
    slots, elsewhere = Slots(2), [1]
    slots.elsewhere = lambda: elsewhere[0]
    with slots.take() as turn:
        assert not turn.is_exclusive
        elsewhere[0] = 0
        assert turn.is_exclusive


def test_waiting_requests_make_a_turn_not_exclusive() -> None:
    slots = Slots(1)
    with ThreadPoolExecutor(1) as pool:
        with slots.take() as turn:
            waiting = pool.submit(take_and_leave, slots)
            wait_until_waiting(slots, 2)
            assert not turn.is_exclusive
        assert waiting.result(PATIENCE_SECONDS) > 0


def take_and_leave(slots: Slots, deadline: Deadline = NO_DEADLINE) -> float:
    with slots.take(deadline) as turn:
        return turn.waited_seconds


def order_of_serving(mebibytes: list[float]) -> list[float]:
    """Let requests with files of these sizes wait for one slot, and return the sizes in the order of serving."""
    slots = Slots(1)
    served: list[float] = []

    def serve(size: float) -> None:
        with slots.take(size=int(size * 2**20)):
            served.append(size)

    with ThreadPoolExecutor(len(mebibytes)) as pool, slots.take():
        for number, size in enumerate(mebibytes):
            pool.submit(serve, size)
            wait_until_waiting(slots, number + 2)
    return served


@pytest.mark.parametrize(
    ("arriving", "served"),
    [
        ([0.1, 0.5, 0, 0.9, 0.3], [0.1, 0.5, 0, 0.9, 0.3]),
        ([3, 0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 3, 0.4, 0.5]),
        ([0.1, 2, 3, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 2, 0.4, 0.5, 3]),
        ([2, 9, 5, 0.1], [0.1, 2, 9, 5]),
        ([10, 10, 10], [10, 10, 10]),
        ([1.5, 0.1, 4, 0.2, 0.3], [0.1, 1.5, 0.2, 0.3, 4]),
    ],
    ids=["small", "a large first", "large ones in a row", "few small", "large only", "mixed"],
)
def test_a_file_of_n_mebibytes_lets_n_small_ones_pass(arriving: list[float], served: list[float]) -> None:
    assert order_of_serving(arriving) == served


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
    assert slots.in_flight == 0
    with slots.take() as turn:
        assert turn.is_exclusive


def test_a_wait_that_ends_a_hair_early_gets_no_slot() -> None:
    class NearlyOver(Deadline):
        remaining_seconds = 0.001

    slots = Slots(1)
    with slots.take(), pytest.raises(DeadlineExceeded):
        slots.take(NearlyOver()).__enter__()
    assert slots.in_flight == 0


def test_a_client_that_disconnected_while_waiting_is_skipped() -> None:
    slots, left = Slots(1), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with slots.take():
            waiting = pool.submit(take_and_leave, slots, Deadline(is_abandoned=left.is_set))
            wait_until_waiting(slots, 2)
            left.set()
        with pytest.raises(ClientClosedRequest):
            waiting.result(PATIENCE_SECONDS)
    with slots.take() as turn:
        assert turn.is_exclusive


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock's time, to be set."""
    now = [100.0]
    monkeypatch.setattr("app.queueing.scheduling.time.monotonic", lambda: now[0])
    return now


def pass_on(slots: Slots, now: list[float], seconds: float) -> None:
    """Have three photos hold the only slot for some seconds each, the second and third after waiting."""

    def work() -> None:
        with slots.take():
            now[0] += seconds

    with ThreadPoolExecutor(2) as pool, slots.take():
        for in_flight in (2, 3):
            pool.submit(work)
            wait_until_waiting(slots, in_flight)


def test_the_time_of_one_more_photo_is_estimated_from_the_queue(now: list[float]) -> None:
    slots = Slots(1)
    pass_on(slots, now, 3.0)
    now[0] += 500.0  # without requests, so nothing was slow
    assert slots.expected_seconds == 0
    with ThreadPoolExecutor(4) as pool:
        with slots.take():
            waiting = [pool.submit(take_and_leave, slots) for _ in range(4)]
            wait_until_waiting(slots, 5)
            assert slots.expected_seconds == pytest.approx(3.0 * (1 + 4 + 1))
        for each in waiting:
            each.result(PATIENCE_SECONDS)


def test_work_that_would_end_too_late_is_not_begun(now: list[float]) -> None:
    slots = Slots(1)
    pass_on(slots, now, 3.0)
    with ThreadPoolExecutor(2) as pool:
        with slots.take():
            late = pool.submit(take_and_leave, slots, Deadline(now[0] + 4.9))
            wait_until_waiting(slots, 2)
            now[0] += 2.0
        with pytest.raises(DeadlineExceeded):
            late.result(PATIENCE_SECONDS)
        with slots.take():
            in_time = pool.submit(take_and_leave, slots, Deadline(now[0] + 5.1))
            wait_until_waiting(slots, 2)
            now[0] += 2.0
        assert in_time.result(PATIENCE_SECONDS) == pytest.approx(2.0)


def test_a_free_slot_is_used_whatever_the_estimate(now: list[float]) -> None:
    slots = Slots(1)
    pass_on(slots, now, 3.0)
    with slots.take(Deadline(now[0] + 1.0)) as turn:
        assert turn.is_exclusive


def test_a_slot_is_returned_when_the_work_fails() -> None:
    slots = Slots(1)
    with pytest.raises(ZeroDivisionError), slots.take():
        raise ZeroDivisionError
    with slots.take() as turn:
        assert turn.is_exclusive


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
    batcher = Batcher(compute, **{"max_batch": 4} | limits)
    closing.callback(batcher.close)
    closing.callback(compute.go_on.set)
    return batcher


def test_waiting_items_are_the_next_batch(closing: ExitStack) -> None:
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
    batcher: Batcher[int, int] = Batcher(lambda items: [1, 2, 3], max_batch=1)
    with pytest.raises(RuntimeError, match="3 results came back for 1 items"):
        batcher.submit(1).result(PATIENCE_SECONDS)
    batcher.close()


@pytest.mark.parametrize(
    ("deadline", "failure"),
    [(Deadline(expires=0), DeadlineExceeded), (Deadline(is_abandoned=lambda: True), ClientClosedRequest)],
)
def test_an_abandoned_item_is_not_computed(closing: ExitStack, deadline: Deadline, failure: type[Exception]) -> None:
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
    batcher: Batcher[int, int] = Batcher(compute, max_batch=4)
    future = batcher.submit(5)
    batcher.close()
    assert future.result(0) == 10
    assert threading.enumerate() == before
    with pytest.raises(Overloaded):
        batcher.submit(6)


def test_a_client_that_leaves_while_its_photo_waits_for_memory_is_noticed() -> None:
    memory, has_left = MemoryBudget(100), threading.Event()

    def wait_for_memory() -> None:
        with memory.reserve(1, Deadline(is_abandoned=has_left.is_set)):
            pass

    with ThreadPoolExecutor(1) as pool, memory.reserve(100):
        waiting = pool.submit(wait_for_memory)
        has_left.set()
        with pytest.raises(ClientClosedRequest):
            waiting.result(PATIENCE_SECONDS)
    with memory.reserve(100):  # the place in the queue is free
        pass


def test_a_slot_given_up_early_is_free_and_returned_only_once() -> None:
    slots = Slots(1)
    with slots.take() as turn:
        turn.give_up()
        with slots.take() as other:
            assert not turn.is_held
            assert other.is_held
    assert slots.in_flight == 0
    with slots.take() as again:
        assert again.is_exclusive


def test_memory_is_handed_out_in_the_order_of_arrival() -> None:
    budget, order, first = MemoryBudget(100), [], ExitStack()
    first.enter_context(budget.reserve(60))

    def reserve(size: int, deadline: Deadline) -> None:
        with budget.reserve(size, deadline):
            order.append(size)

    with ThreadPoolExecutor(2) as pool:
        watch = WatchedDeadline()
        large = pool.submit(reserve, 70, watch)
        watch.wait_for_waits(2)  # the time is checked once, and once waited for
        small = pool.submit(reserve, 10, watch)
        watch.wait_for_waits(2)
        first.close()
        large.result(PATIENCE_SECONDS)
        small.result(PATIENCE_SECONDS)
    assert order == [70, 10]


def test_a_wait_for_memory_ends_in_time_and_delays_no_other() -> None:
    budget = MemoryBudget(100)
    with budget.reserve(60):
        with pytest.raises(DeadlineExceeded), budget.reserve(60, Deadline(time.monotonic() + 0.02)):
            pass
        with budget.reserve(40, Deadline(time.monotonic() + PATIENCE_SECONDS)):
            pass
