"""`topthree bench`: a running server, this process or a server of its own is measured, and it shows its progress."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import colour_png, fake_classifier, fake_model
from terminals import FAKE, run_on_terminal
from werkzeug.serving import make_server

from app import create_app
from app.commands import cli
from app.measuring.load import http_sender
from app.model.served import Served
from app.settings import Settings


def test_bench_shows_what_it_measures(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(colour_png(0, 1, 2))
    options = ["--in-process", "--clients", "1", "--seconds", "0.2", "--warm-up", "0"]
    shown, output = run_on_terminal([*FAKE, "bench", tmp_path, *options], stdout_too=False)
    assert "Measuring 1 client for 0.2 s (1 of 1)" in shown
    assert "1 photo in rotation" in output


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
    monkeypatch.setattr("app.classifier.load_served", lambda *_: Served(fake_model()))
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
