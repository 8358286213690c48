"""Graphs of fine-tuned models are opened on use, within a limit of memory, and keep no request waiting for long."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import FakeEngine, known_crop

from app.errors import ModelUnavailable, Overloaded, WeightsError
from app.model import graphs as graphs_module
from app.model.engines import Engine
from app.model.graphs import EngineOnUse, Graphs, Opener

SIZE = 100


class Shelf:
    """Graphs of which each opening is counted, and can be held up or made to fail."""

    def __init__(self, max_bytes: int = 2 * SIZE) -> None:
        self.graphs = Graphs(max_bytes)
        self.opened: Counter[str] = Counter()
        self.may_open = threading.Event()
        self.may_open.set()
        self.error: Exception | None = None

    def engine(self, name: str) -> EngineOnUse:
        def open() -> Engine:
            self.opened[name] += 1
            assert self.may_open.wait(10)
            if self.error is not None:
                raise self.error
            return FakeEngine()

        return EngineOnUse(self.graphs, Opener(f"key of {name}", name, SIZE, open), "fp32")


def test_many_requests_share_one_opening() -> None:
    shelf = Shelf()
    engine = shelf.engine("pets")
    shelf.may_open.clear()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(engine.infer, known_crop()[None]) for _ in range(8)]
        shelf.may_open.set()
        assert all(answer.result().logits.shape == (1, 1000) for answer in answers)
    assert shelf.opened == {"pets": 1}
    assert engine.grid == (7, 7)


def test_the_one_that_was_not_used_for_longest_is_closed() -> None:
    shelf = Shelf()
    a, b, c = (shelf.engine(name) for name in "abc")
    for engine in (a, b, a, c):
        engine.open()
    assert shelf.graphs.open_names == ["a", "c"]
    b.open()
    assert shelf.graphs.open_names == ["c", "b"]
    assert shelf.opened == {"a": 1, "b": 2, "c": 1}


@pytest.mark.parametrize("max_bytes", [0, SIZE, 2 * SIZE])
def test_all_answer_however_little_memory_there_is(max_bytes: int) -> None:
    shelf = Shelf(max_bytes)
    engines = [shelf.engine(name) for name in "abcd"]
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(engine.infer, known_crop()[None]) for _ in range(10) for engine in engines]
        assert all(answer.result().logits.shape == (1, 1000) for answer in answers)
    assert len(shelf.graphs.open_names) == max(1, max_bytes // SIZE)


def test_a_slow_opening_is_answered_with_try_again() -> None:
    shelf = Shelf()
    engine = shelf.engine("pets")
    shelf.may_open.clear()
    with pytest.raises(Overloaded, match="The model pets is being loaded") as caught:
        engine.open(0.01)
    assert caught.value.retry_after_seconds == graphs_module.RETRY_SECONDS
    shelf.may_open.set()
    assert engine.open(10).grid == (7, 7)
    assert shelf.opened == {"pets": 1}


def test_a_failure_is_logged_once_and_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf()
    engine = shelf.engine("pets")
    shelf.error = WeightsError("/models/pets/1/weights.safetensors is damaged.")
    for _ in range(3):
        with pytest.raises(ModelUnavailable, match="cannot be opened: /models/pets/1/weights") as caught:
            engine.open()
        assert "/models" not in caught.value.detail
    assert shelf.opened == {"pets": 1}
    monkeypatch.setattr(graphs_module, "FAILED_SECONDS", 0.0)
    other = shelf.engine("tools")
    for _ in range(2):
        with pytest.raises(ModelUnavailable):
            other.open()
    shelf.error = None
    assert other.open().grid == (7, 7)
    assert [record.getMessage().split()[2] for record in caplog.records if record.levelno == logging.ERROR] == [
        "pets",
        "tools",
    ]


def test_an_unexpected_failure_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    raised: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: raised.append(failure.exc_type))
    shelf.error = ZeroDivisionError()
    with pytest.raises(ModelUnavailable, match="The model pets cannot be opened"):
        shelf.engine("pets").open()
    shelf.error = None
    assert shelf.engine("tools").open().grid == (7, 7)
    assert raised == [ZeroDivisionError]


def test_models_that_are_gone_are_closed() -> None:
    shelf = Shelf()
    for name in "ab":
        shelf.engine(name).open()
    shelf.graphs.keep_only({"key of b"})
    assert shelf.graphs.open_names == ["b"]
