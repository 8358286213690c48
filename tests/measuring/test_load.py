"""The load generator counts requests and measures from the moment at which each was due."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import colour_png, fake_classifier, fake_model
from werkzeug.serving import make_server

from app import create_app
from app.commands import cli
from app.measuring.load import (
    Load,
    MakeSender,
    RequestFailed,
    closed_loop,
    http_sender,
    open_loop,
    parse_server_timing,
)
from app.measuring.plots import plot_loads
from app.settings import Settings

PHOTOS = [b"a", b"b", b"c"]


def counting_sender(sent: list[bytes]) -> MakeSender:
    def send(photo: bytes) -> dict[str, float]:
        sent.append(photo)
        time.sleep(0.002)  # an answer takes time; without it the loop would measure itself
        return {"infer": 2.0}

    return lambda: nullcontext(send)


def test_a_closed_loop_keeps_every_client_busy() -> None:
    sent: list[bytes] = []
    load = closed_loop(counting_sender(sent), PHOTOS, clients=3, seconds=0.2)
    assert (load.loop, load.level, load.requests, load.errors) == ("closed", 3, len(sent), 0)
    assert set(sent) == set(PHOTOS)
    assert load.throughput == pytest.approx(load.requests / 0.2, rel=0.5)
    assert 2.0 <= load.p50 <= load.p90 <= load.p99 <= load.slowest
    assert load.stages == {"infer": 2.0}


def test_an_open_loop_sends_at_its_rate_whatever_the_answers() -> None:
    sent: list[bytes] = []
    load = open_loop(counting_sender(sent), PHOTOS, rate=200, seconds=0.5)
    assert load.requests == len(sent)
    assert 60 <= load.requests <= 140  # a Poisson count of mean 100, four deviations wide


def test_an_open_loop_counts_from_the_moment_a_photo_was_due() -> None:
    gate, first = threading.Lock(), threading.Event()

    def send(photo: bytes) -> dict[str, float]:
        with gate:  # one at a time: the others wait for their turn, and that is their latency
            if not first.is_set():
                first.set()
                time.sleep(0.3)
            return {}

    load = open_loop(lambda: nullcontext(send), PHOTOS, rate=100, seconds=0.3)
    assert load.slowest >= 300
    assert load.p50 >= 100


def test_failures_are_counted_and_not_timed() -> None:
    outcomes = iter(range(10**9))

    def send(photo: bytes) -> dict[str, float]:
        if next(outcomes) % 2:
            raise RequestFailed(503)
        return {}

    load = closed_loop(lambda: nullcontext(send), PHOTOS, clients=1, seconds=0.05)
    assert load.errors == load.requests // 2


def test_answers_from_memory_are_counted_and_belong_to_no_stage() -> None:
    answers = iter([{"infer": 4.0, "total": 6.0}] + [{"cache": 0.0, "total": 1.0}] * 10**6)
    load = closed_loop(lambda: nullcontext(lambda photo: next(answers)), PHOTOS, clients=1, seconds=0.02)
    assert load.hits == load.requests - 1
    assert load.stages == {"infer": 4.0, "total": 1.0}


def test_nothing_answered_is_no_crash() -> None:
    def send(photo: bytes) -> dict[str, float]:
        raise OSError("refused")

    load = closed_loop(lambda: nullcontext(send), PHOTOS, clients=1, seconds=0.01)
    assert (load.throughput, load.p50, load.errors) == (0.0, 0.0, load.requests)


@pytest.mark.parametrize(
    ("header", "stages"),
    [
        ('decode;dur=1.25, infer;dur=10, batch;desc="1"', {"decode": 1.25, "infer": 10.0}),
        ("cache;desc=hit, total;dur=0.5", {"cache": 0.0, "total": 0.5}),
        ("", {}),
    ],
)
def test_server_timing_is_read(header: str, stages: dict[str, float]) -> None:
    assert parse_server_timing(header) == stages


def load_of(loop: str, level: float) -> Load:
    return Load(loop, level, 100, 0, 0, 10 * level, 5, 6, 7, 8, {})


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_is_a_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plot.{suffix}"
    plot_loads([load_of("closed", 1), load_of("closed", 8), load_of("open", 20)], "test", path)
    assert path.stat().st_size > 5000


def test_a_running_server_is_measured_and_left_running(
    make_settings: Callable[..., Settings], runner: CliRunner, tmp_path: Path
) -> None:
    (tmp_path / "red.png").write_bytes(colour_png(9))
    server = make_server(
        "127.0.0.1", 0, create_app(make_settings(result_cache_bytes=0), fake_classifier()), threaded=True
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.port}"
        options = ["--clients", "2", "--rates", "50", "--seconds", "0.3", "--warm-up", "0", "--json"]
        report = json.loads(runner.invoke(cli, ["bench", str(tmp_path), "--url", url, *options]).output)
        with http_sender(url)() as send:
            assert send(colour_png(9)).keys() == {"decode", "queue", "infer", "total"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [(load["loop"], load["errors"]) for load in report["loads"]] == [("closed", 0), ("open", 0)]
    assert report["loads"][0]["stages"].keys() == {"decode", "queue", "infer", "total"}


def test_the_classifier_is_measured_in_this_process(
    monkeypatch: pytest.MonkeyPatch, runner: CliRunner, tmp_path: Path
) -> None:
    monkeypatch.setattr("app.classifier.load_model", lambda settings: fake_model())
    (tmp_path / "red.png").write_bytes(colour_png(9))
    options = ["--in-process", "--clients", "1", "--seconds", "0.2", "--warm-up", "0"]
    result = runner.invoke(cli, ["bench", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    assert "this process, 1 photo in rotation" in result.output
    assert "1 client " in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clients", "1,x"], "not a list of numbers"),
        (["--rates", "0"], "must be more than zero"),
        (["--url", "http://127.0.0.1:1", "--in-process"], "exclude each other"),
        (["--url", "http://127.0.0.1:1"], "does not answer"),
        (["--plot", "load.txt"], "writes .png, .svg, .pdf, not load.txt"),
        (["--plot", "no-folder/load.png"], "cannot write no-folder/load.png"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    runner: CliRunner, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "red.png").write_bytes(colour_png(9))
    result = runner.invoke(cli, ["bench", str(tmp_path), *arguments])
    assert result.exit_code != 0
    assert message in result.output


def test_without_matplotlib_nothing_is_measured_for_a_plot(
    monkeypatch: pytest.MonkeyPatch, runner: CliRunner, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("app.commands.bench._bench_in_process", lambda *_: pytest.fail("It measured."))
    (tmp_path / "red.png").write_bytes(colour_png(9))
    result = runner.invoke(cli, ["bench", str(tmp_path), "--in-process", "--plot", str(tmp_path / "load.png")])
    assert result.exit_code == 2
    assert "pip install -e '.[bench]'" in result.output


@pytest.mark.live
def test_a_rejected_photo_ends_the_measurement_at_once(
    packaged_settings: Settings, runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in packaged_settings.as_environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "words.png").write_bytes(b"words")
    result = runner.invoke(cli, ["bench", str(tmp_path)])
    assert result.exit_code == 1
    assert "answered with status 415. " in result.output


@pytest.mark.live
def test_a_server_started_for_the_measurement_is_stopped_again(
    packaged_settings: Settings, real_photos: dict[str, bytes], tmp_path: Path
) -> None:
    from app.measuring.own_server import own_server

    with own_server(packaged_settings) as server:
        assert server.wait_for_answer(real_photos["cat"]) > 0
        assert server.memory_mb() > 50
        process = server.process
    assert process.returncode is not None
    with http_sender(server.url)() as send, pytest.raises(OSError, match="refused"):
        send(b"")


@pytest.mark.live
def test_a_server_that_cannot_start_gives_its_reason(packaged_settings: Settings, tmp_path: Path) -> None:
    import dataclasses

    from app.measuring.own_server import ServerFailed, own_server

    settings = dataclasses.replace(packaged_settings, weights=tmp_path / "missing.pth")
    with pytest.raises(ServerFailed, match="missing.pth, which is not a file"), own_server(settings) as server:
        server.wait_for_answer(b"")
