"""`topthree weights`: which file would serve and why, and `--fetch`, which gets it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import file_server as answer
import pytest
from click.testing import CliRunner, Result
from file_server import CONTENT, SHA256, FileServer, serving
from rich.console import Console

from app.commands import cli
from app.commands import weights as offline_weights
from app.commands.weights import fetch_with_progress, make_ready
from app.model.records import RECORDS
from app.model.weights import FALLBACK_MARKER
from app.settings import Settings

RESNET18 = RECORDS["resnet18"]
EFFICIENTNET_LITE0 = RECORDS["efficientnet_lite0"]

SMALL = dataclasses.replace(RESNET18, sha256=SHA256, size_bytes=len(CONTENT))


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A mirror that has the small file, which counts as the published one."""
    monkeypatch.setitem(RECORDS, "resnet18", SMALL)
    monkeypatch.setenv("NO_PROXY", "*")
    with serving() as running:
        monkeypatch.setenv("TOPTHREE_WEIGHTS_URL", running.url)
        yield running


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "topthree [cache]"
    (folder / "weights").mkdir(parents=True)
    monkeypatch.setenv("TOPTHREE_CACHE", str(folder))
    return folder


def run(*arguments: str, exit_code: int = 0, **environment: str) -> Result:
    variables = {f"TOPTHREE_{name.upper()}": value for name, value in environment.items()}
    result = CliRunner().invoke(cli, ["weights", *arguments], env=variables, catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result


def rows(result: Result) -> dict[str, str]:
    """Map each step that was printed to its state and place."""
    found: dict[str, str] = {}
    for line in result.stdout.splitlines():
        step, rest = line[:18].strip(), line[19:]
        key = step or list(found)[-1]
        found[key] = f"{found[key]} | {rest}" if not step else rest
    return found


def test_nothing_cached_means_a_download_or_else_the_fallback(server: FileServer, cache: Path) -> None:
    steps = rows(run())
    assert list(steps) == ["TOPTHREE_WEIGHTS", "cache", "torch hub cache", "download", "packaged fallback"]
    assert steps["TOPTHREE_WEIGHTS"] == "not set"
    assert steps["cache"] == f"not there | {cache / 'weights' / RESNET18.file_name}"
    assert steps["download"] == f"not tried now, but at the next start | {server.url}"
    assert steps["packaged fallback"].startswith("serves if that fails: efficientnet_lite0, SHA-256 5793")
    assert server.starts == []


def test_cached_file_serves_and_later_steps_are_not_looked_at(cache: Path) -> None:
    file = cache / "weights" / RESNET18.file_name
    file.write_bytes(CONTENT)
    steps = rows(run())
    assert list(steps) == ["TOPTHREE_WEIGHTS", "cache"]
    assert steps["cache"] == f"serves: resnet18, SHA-256 {SHA256} | {file}"


def test_damaged_cached_file_is_said_to_be_damaged(cache: Path) -> None:
    (cache / "weights" / RESNET18.file_name).write_bytes(b"damaged")
    assert rows(run())["cache"].startswith("damaged: its SHA-256 is ")


def test_explicit_file_serves_with_its_own_digest(tmp_path: Path) -> None:
    (tmp_path / "own.pth").write_bytes(CONTENT)
    steps = rows(run(weights=str(tmp_path / "own.pth")))
    assert steps == {"TOPTHREE_WEIGHTS": f"serves: resnet18, SHA-256 {SHA256} | {tmp_path / 'own.pth'}"}


def test_explicit_file_that_fails_ends_the_list(tmp_path: Path) -> None:
    steps = rows(run(exit_code=1, weights=str(tmp_path / "no.pth")))
    assert list(steps) == ["TOPTHREE_WEIGHTS"]
    assert "which is not a file" in steps["TOPTHREE_WEIGHTS"]


def test_fallback_in_use_serves_with_its_reason(server: FileServer, cache: Path) -> None:
    (cache / FALLBACK_MARKER).write_text("The host cannot be reached.")
    steps = rows(run())
    assert steps["download"].startswith("not tried again before --fetch: The host cannot be reached.")
    assert steps["packaged fallback"].startswith("serves: efficientnet_lite0")
    assert server.starts == []


def test_nothing_that_would_serve_is_exit_code_1(server: FileServer, cache: Path) -> None:
    (cache / FALLBACK_MARKER).write_text("No longer wanted.")
    steps = rows(run(exit_code=1, fallback="none"))
    assert steps["packaged fallback"] == "switched off by TOPTHREE_FALLBACK"
    assert steps["download"].startswith("not tried now, but at the next start")
    assert server.starts == []


def test_fetch_downloads_and_ends_the_fallback(server: FileServer, cache: Path) -> None:
    (cache / FALLBACK_MARKER).write_text("The host cannot be reached.")
    assert rows(run("--fetch"))["cache"].startswith("serves: resnet18")
    assert (cache / "weights" / RESNET18.file_name).read_bytes() == CONTENT
    assert not (cache / FALLBACK_MARKER).exists()
    assert server.starts == [0]


def test_fetch_of_what_is_there_downloads_nothing(server: FileServer, cache: Path) -> None:
    (cache / "weights" / RESNET18.file_name).write_bytes(CONTENT)
    run("--fetch")
    assert server.starts == []


def test_fetch_that_fails_is_one_sentence(server: FileServer, cache: Path) -> None:
    server.answers = [answer.status(404)]
    result = run("--fetch", exit_code=1)
    assert result.stdout == ""
    assert result.stderr == f"Error: {server.url} answered 404 Not Found.\n"


def test_no_progress_bar_where_there_is_no_terminal(cache: Path) -> None:
    assert run("--fetch").stderr == ""


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Give the job a real terminal, and return a function that closes it and returns its text."""
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb") as reader, ThreadPoolExecutor() as pool:
        monkeypatch.setattr(offline_weights, "console", Console(file=terminal))
        shown = pool.submit(read_to_hangup, reader)

        def close() -> str:
            terminal.close()
            return shown.result().decode()

        yield close


def read_to_hangup(reader: BinaryIO) -> bytes:
    chunks = []
    with suppress(OSError):  # which is how Linux says that the other side is closed
        while chunk := os.read(reader.fileno(), 4096):
            chunks.append(chunk)
    return b"".join(chunks)


def test_progress_bar_on_a_terminal(
    make_settings: Callable[..., Settings], cache: Path, screen: Callable[[], str]
) -> None:
    fetch_with_progress(make_settings())
    shown = screen()
    assert f"Downloading {RESNET18.file_name}" in shown
    assert "262.1/262.1" in shown


def test_torch_starts_from_the_weights_themselves(make_settings: Callable[..., Settings], cache: Path) -> None:
    assert make_ready(make_settings(engine="torch")).path == cache / "weights" / RESNET18.file_name
    assert not (cache / "prepared").exists()


def test_openvino_starts_from_a_model_prepared_once(
    first_start: str, packaged_settings: Settings, server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (artifact,) = (packaged_settings.cache / "prepared").glob("efficientnet_lite0-5793*")
    made = (artifact / "manifest.json").stat().st_mtime_ns
    found = make_ready(packaged_settings)
    assert (artifact / "manifest.json").stat().st_mtime_ns == made
    assert (found.sha256, found.reason) == (EFFICIENTNET_LITE0.sha256, "A test asked for it.")
    assert (server.starts, capsys.readouterr().err) == ([], "")
    assert first_start == "Preparing efficientnet_lite0; this is done once.\n"
