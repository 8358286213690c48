"""`topthree bench`: latency and throughput under load, memory and start-up time."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import click
from rich.console import Console
from rich.table import Table

from ..classifier import Classifier
from ..errors import TopthreeError
from ..settings import Settings
from .load import Load, RequestFailed, Send, closed_loop, http_sender, open_loop
from .photos import list_photos

START_SECONDS = 300.0
STOP_SECONDS = 30.0
OURS = "http://127.0.0.1:{port}"


class BenchFailed(TopthreeError):
    """The target did not start or does not answer."""


@dataclass(frozen=True)
class Options:
    """What to measure: each number of clients, then each rate, for some seconds after a warm-up."""

    clients: tuple[int, ...]
    rates: tuple[float, ...]
    seconds: float
    warm_up_seconds: float


@dataclass(frozen=True)
class Report:
    """What `bench` measured. Memory is the PSS of all the target's processes after the load."""

    target: str
    photos: int
    started_seconds: float | None
    memory_mb: float | None
    loads: list[Load]


def run(
    settings: Settings,
    folder: Path,
    options: Options,
    *,
    url: str | None,
    in_process: bool,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure a running server, this process, or a server started for it and stopped again; print the report."""
    photos = [Path(file).read_bytes() for file in list_photos([str(folder)])]
    if url:
        report = Report(url, len(photos), None, None, _measure(http_sender(url), photos, options))
    elif in_process:
        report = _bench_in_process(settings, photos, options)
    else:
        report = _bench_own_server(settings, photos, options)
    if plot:
        from .plots import plot_loads

        plot_loads(report.loads, report.target, plot)
    if as_json:
        click.echo(json.dumps(asdict(report), indent=1))
    else:
        _print_report(report)


def _bench_in_process(settings: Settings, photos: list[bytes], options: Options) -> Report:
    classifier = Classifier.from_settings(settings)
    begin = time.monotonic()
    classifier.warm_up()
    started = time.monotonic() - begin

    def send(photo: bytes) -> dict[str, float]:
        answer = classifier.classify(photo, max_pixels=settings.max_pixels)
        stages = {"decode": answer.decode_seconds, "queue": answer.queue_seconds, "infer": answer.infer_seconds}
        return {name: 1000 * seconds for name, seconds in stages.items()}

    loads = _measure(lambda: send, photos, options)
    return Report("this process", len(photos), round(started, 2), _memory_mb(os.getpid()), loads)


def _bench_own_server(settings: Settings, photos: list[bytes], options: Options) -> Report:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = OURS.format(port=port)
    with _own_server(settings, port) as process:
        started = _wait_for_answer(http_sender(url), photos[0], process)
        loads = _measure(http_sender(url), photos, options)
        memory = sum(_memory_mb(pid) for pid in _process_group(process.pid))
    return Report("topthree serve", len(photos), round(started, 2), round(memory, 1), loads)


@contextmanager
def _own_server(settings: Settings, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run `topthree serve` in a process group of its own, and stop all of it in the end."""
    environment = os.environ | settings.as_environment() | {"TOPTHREE_HOST": "127.0.0.1", "TOPTHREE_PORT": str(port)}
    command = [sys.executable, "-m", "app", "serve"]
    root = Path(__file__).resolve().parent.parent.parent
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=root, env=environment, stderr=log, start_new_session=True)
        try:
            yield process
        except BenchFailed as error:
            raise BenchFailed(f"{error} Its last words: {_last_line(log)}") from error
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    return (log.read().decode(errors="replace").strip().splitlines() or ["none"])[-1]


def _wait_for_answer(make_sender: Callable[[], Send], photo: bytes, process: subprocess.Popen[bytes]) -> float:
    """Send one photo again and again until it is answered; return the seconds since the start."""
    begin = time.monotonic()
    while time.monotonic() - begin < START_SECONDS:
        try:
            make_sender()(photo)
        except (OSError, RequestFailed):
            if process.poll() is not None:
                raise BenchFailed("The server ended before it answered.") from None
            time.sleep(0.02)
        else:
            return time.monotonic() - begin
    raise BenchFailed(f"The server did not answer within {START_SECONDS:.0f} seconds.")


def _measure(make_sender: Callable[[], Send], photos: list[bytes], options: Options) -> list[Load]:
    try:
        make_sender()(photos[0])
    except (OSError, RequestFailed) as error:
        raise BenchFailed(f"The target does not answer: {error}.") from error
    closed_loop(make_sender, photos, clients=max(options.clients, default=4), seconds=options.warm_up_seconds)
    loads = [closed_loop(make_sender, photos, clients=count, seconds=options.seconds) for count in options.clients]
    loads += [open_loop(make_sender, photos, rate=rate, seconds=options.seconds) for rate in options.rates]
    return loads


def _memory_mb(pid: int) -> float:
    """Read a process's proportional set size: its own memory and its share of what it shares."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return round(int(found[1]) / 1024, 1) if found else 0.0


def _process_group(group: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == group:
                yield int(folder.name)
        except ProcessLookupError:
            continue


def _print_report(report: Report) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{report.target}, {report.photos} photos in rotation")
    if report.started_seconds is not None:
        console.print(
            f"first answer after {report.started_seconds} s; memory after the load {report.memory_mb} MB (PSS)"
        )
    stages = list(dict.fromkeys(name for load in report.loads for name in load.stages))
    table = Table("loop", "level", "photos/s", "p50 ms", "p90", "p99", "slowest", "errors", *stages, box=None)
    for load in report.loads:
        unit = "clients" if load.loop == "closed" else "per s"
        figures = (load.throughput, load.p50, load.p90, load.p99, load.slowest)
        row = [load.loop, f"{load.level:g} {unit}", *(f"{figure:.1f}" for figure in figures), str(load.errors)]
        table.add_row(*row, *(f"{load.stages.get(name, 0):.1f}" for name in stages))
    Console(width=None if console.is_terminal else 160).print(table)
    if stages:
        console.print("The last columns are the medians of Server-Timing, in milliseconds.")
