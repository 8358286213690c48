"""The log: one line per message, as JSON or text, that no client can forge, without addresses of clients."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from app.settings import Settings
from app.telemetry import logs

Log = Callable[..., list[str]]


@pytest.fixture
def log_with(make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Log something under some settings, as gunicorn would, and return the lines."""
    loggers = [logging.getLogger(name) for name in ("", "app", "gunicorn.error", logs.REQUESTS_LOGGER)]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    def log_with(say: Callable[[], object], **values: object) -> list[str]:
        out = io.StringIO()
        monkeypatch.setattr(sys, "stderr", out)
        logging.config.dictConfig(logs.configuration(make_settings(**values)))
        logs.capture_stray_messages()
        say()
        return out.getvalue().splitlines()

    yield log_with
    logging.captureWarnings(False)
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_json_line_has_the_usual_members(log_with: Log) -> None:
    line = log_with(lambda: logging.getLogger("app.model.weights").warning("猫 %d", 3), log_format="json")
    record = json.loads(line[0])
    assert (record["level"], record["logger"], record["message"]) == ("WARNING", "app.model.weights", "猫 3")
    assert record["time"].endswith("+00:00")


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("text", ["a\nINFO forged", "a\r\nforged", "a\x1b[2Kforged", "a\u2028forged", "a\x85forged"])
def test_message_cannot_forge_a_line(log_with: Log, form: str, text: str) -> None:
    lines = log_with(lambda: logging.getLogger("app").error("%s", text), log_format=form)
    assert len(lines) == 1
    assert lines[0].isprintable()


def test_traceback_is_indented(log_with: Log) -> None:
    def fail() -> None:
        try:
            raise RuntimeError("one\n[2026-01-01] forged")
        except RuntimeError:
            logging.getLogger("app").exception("Failed.")

    lines = log_with(fail)
    assert "Failed." in lines[0]
    assert len(lines) > 3
    assert [line for line in lines[1:] if not line.startswith("    ")] == []
    assert "RuntimeError" in json.loads(log_with(fail, log_format="json")[0])["exception"]


def warn() -> None:
    """Warn in several lines, as libraries do."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("first\nsecond \x1b[2K", RuntimeWarning, stacklevel=1)


def end_a_thread() -> None:
    """Let a thread end by an exception."""

    def fail() -> None:
        raise RuntimeError("one\ntwo")

    thread = threading.Thread(target=fail, name="seldom")
    thread.start()
    thread.join()


class Failing:
    """An object that fails while it is destroyed."""

    def __del__(self) -> None:
        raise RuntimeError("one\ntwo")


def destroy() -> None:
    """Destroy an object that fails."""
    failing = Failing()
    del failing


def tell_of_libraries() -> None:
    """Log as libraries do that know nothing of ours."""
    logging.getLogger("PIL.TiffImagePlugin").warning("More samples\nthan %d", 4)


STRAY = {
    "warning": (warn, "RuntimeWarning: first\nsecond"),
    "thread": (end_a_thread, "The thread 'seldom' ended with an exception."),
    "destroyed": (destroy, "__del__"),
    "library": (tell_of_libraries, "More samples\nthan 4"),
}


@pytest.mark.parametrize("name", STRAY)
def test_stray_message_is_one_json_line(log_with: Log, name: str) -> None:
    say, text = STRAY[name]
    (line,) = log_with(say, log_format="json")
    record = json.loads(line)
    assert text in record["message"]
    assert record["level"] in ("WARNING", "ERROR")


@pytest.mark.parametrize("name", STRAY)
def test_stray_message_is_one_line_before_its_traceback(log_with: Log, name: str) -> None:
    say, text = STRAY[name]
    first, *others = log_with(say)
    assert text.replace("\n", r"\n") in first
    assert first.startswith("[")
    assert all(line.startswith("    ") and line.isprintable() for line in others)


@pytest.mark.parametrize("text", ["a\rforged", "a\x1b[2K", "a\x0bforged", "a\u2028forged", "a\x85forged"])
def test_traceback_has_no_control_characters(log_with: Log, text: str) -> None:
    def fail() -> None:
        try:
            raise RuntimeError(text)
        except RuntimeError:
            logging.getLogger("app").exception("Failed.", stack_info=True)

    lines = log_with(fail)
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])


@pytest.mark.parametrize("form", ["json", "text"])
def test_line_carries_the_id_of_its_request(log_with: Log, form: str) -> None:
    token = logs.request_id.set("abc-1")
    try:
        lines = log_with(lambda: logging.getLogger("app").error("Oh."), log_format=form)
    finally:
        logs.request_id.reset(token)
    assert json.loads(lines[0])["request_id"] == "abc-1" if form == "json" else lines[0].endswith("Oh. [abc-1]")


@pytest.mark.parametrize(("addresses", "shown"), [("off", False), ("on", True)])
def test_addresses_are_left_out_unless_asked_for(log_with: Log, addresses: str, shown: bool) -> None:
    text = "Invalid request from ip=203.0.113.9: bad"
    lines = log_with(lambda: logging.getLogger("gunicorn.error").warning(text), log_addresses=addresses)
    assert ("203.0.113.9" in lines[0]) == shown
    assert lines[0].endswith(": bad")


@pytest.mark.parametrize(("requests", "count"), [("on", 1), ("off", 0)])
def test_requests_are_logged_where_asked_for(log_with: Log, requests: str, count: int) -> None:
    lines = log_with(lambda: logging.getLogger(logs.REQUESTS_LOGGER).info("GET /"), access_log=requests)
    assert len(lines) == count


def test_messages_that_clients_can_cause_are_limited() -> None:
    limit = logs.RateFilter(max_records=2, seconds=10)
    times = [0, 1, 2, 9, 10.5, 11.5, 12]
    records = [logging.makeLogRecord({"created": time}) for time in times]
    assert [record.created for record in records if limit.filter(record)] == [0, 1, 10.5, 11.5]


@pytest.mark.parametrize("asked", ["a", "0123-abc_DEF.1:2+3/4=@", "x" * 128])
def test_sane_id_is_kept(asked: str) -> None:
    assert logs.choose_request_id(asked) == asked


@pytest.mark.parametrize("asked", [None, "", "x" * 129, "a b", "a\nb", "猫", "<script>", '"', "a\n"])
def test_other_ids_are_replaced_by_a_random_one(asked: str | None) -> None:
    first, second = logs.choose_request_id(asked), logs.choose_request_id(asked)
    assert first != second
    assert len(first) == 32
