"""Measure latency, throughput, memory and start-up time.

The photos of FOLDER are sent in rotation. --plot needs matplotlib.

\b
Examples:
  topthree bench photos/
  topthree bench photos/ --url http://127.0.0.1:8000 --clients 1,4,16 --plot bench.png
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console
from rich.status import Status
from rich.table import Table

from ..classifier import Classifier
from ..measuring.load import Load, MakeSender, closed_loop, http_sender, open_loop
from ..measuring.own_server import ServerFailed, own_server, process_memory_mb
from ..measuring.plots import plot_loads
from ..photos.folders import list_photos, read_file
from ..settings import Settings
from . import plural, read_settings
from .weights import console

Number = TypeVar("Number", int, float)

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Options:
    """The loads to measure after a warm-up: each number of clients, then each rate, each for the same time."""

    clients: tuple[int, ...]
    rates: tuple[float, ...]
    seconds: float
    warm_up_seconds: float


@dataclass(frozen=True)
class Report:
    """The result of `bench`; `memory_mb` is the PSS of all processes of the target after the load, in 2^20 bytes."""

    target: str
    photos: int
    started_seconds: float | None
    memory_mb: float | None
    loads: list[Load]


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--url", help="Measure a running server; without it, one is started, measured and stopped.")
@click.option("--in-process", is_flag=True, help="Measure the classifier in this process, without a server.")
@click.option("--clients", default="1,8,32", show_default=True, help="Closed loop: concurrent requests to test.")
@click.option("--rates", default="", help="Open loop: photos per second to send, for example 20,40,80.")
@click.option("--seconds", type=click.FloatRange(0.1), default=6.0, show_default=True, help="Length of each load.")
@click.option(
    "--warm-up", type=click.FloatRange(0), default=3.0, show_default=True, help="Warm-up seconds before measuring."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw latency against load to a file.")
def command(
    folder: Path,
    *,
    url: str | None,
    in_process: bool,
    clients: str,
    rates: str,
    seconds: float,
    warm_up: float,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure a running server, this process, or a server that is started for it, and print the report."""
    if url and in_process:
        raise click.UsageError("--url and --in-process exclude each other.")
    options = Options(tuple(_numbers(clients, int)), tuple(_numbers(rates, float)), seconds, warm_up)
    if plot:
        _check_plot(plot)
    settings = read_settings()
    photos = [read_file(file) for file in list_photos([str(folder)])]
    with console.status("Measuring") as status:
        if url:
            report = Report(url, len(photos), None, None, _measure(http_sender(url), photos, options, status))
        elif in_process:
            report = _bench_in_process(settings, photos, options, status)
        else:
            report = _bench_own_server(settings, photos, options, status)
    if as_json:
        click.echo(json.dumps(asdict(report), indent=1))
    else:
        _print_report(report)
    if plot:
        plot_loads(report.loads, report.target, plot)


def _numbers(text: str, kind: type[Number]) -> list[Number]:
    try:
        numbers = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not a list of numbers such as 1,8,32.") from error
    if any(number <= 0 for number in numbers):
        raise click.UsageError(f"The numbers in {text!r} must be more than zero.")
    return numbers


def _check_plot(path: Path) -> None:
    """Raise click.UsageError if a plot cannot be saved to `path`, before measuring and not after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError("--plot needs matplotlib: pip install -e '.[bench]'")
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise click.UsageError(f"--plot writes {', '.join(PLOT_SUFFIXES)}, not {path.name}.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.UsageError(f"--plot cannot write {path}.")


def _bench_in_process(settings: Settings, photos: list[bytes], options: Options, status: Status) -> Report:
    with closing(Classifier.from_settings(replace(settings, workers=1))) as classifier:
        status.update("Loading the model")
        begin = time.monotonic()
        classifier.warm_up()
        started = time.monotonic() - begin

        def send(photo: bytes) -> dict[str, float]:
            answer = classifier.classify(photo, max_pixels=settings.max_pixels)
            stages = {"decode": answer.decode_seconds, "queue": answer.queue_seconds, "infer": answer.infer_seconds}
            return {name: 1000 * seconds for name, seconds in stages.items()}

        loads = _measure(lambda: nullcontext(send), photos, options, status)
        memory = process_memory_mb(os.getpid())
    return Report("this process", len(photos), round(started, 2), memory, loads)


def _bench_own_server(settings: Settings, photos: list[bytes], options: Options, status: Status) -> Report:
    # The photos repeat, and cached answers would measure nothing.
    with own_server(replace(settings, result_cache_bytes=0)) as server:
        status.update("Starting the service")
        started = server.wait_for_answer(photos[0])
        loads = _measure(http_sender(server.url), photos, options, status)
        memory = server.memory_mb()
    return Report("topthree serve", len(photos), round(started, 2), memory, loads)


def _measure(make_sender: MakeSender, photos: list[bytes], options: Options, status: Status) -> list[Load]:
    try:
        with make_sender() as send:
            send(photos[0])
    except OSError as error:
        raise ServerFailed(f"The target does not answer: {error}.") from error
    status.update("Warming up")
    closed_loop(make_sender, photos, clients=max(options.clients, default=4), seconds=options.warm_up_seconds)
    closed = [(plural(n, "client"), partial(closed_loop, make_sender, photos, clients=n)) for n in options.clients]
    opened = [(f"{n:g} photos per second", partial(open_loop, make_sender, photos, rate=n)) for n in options.rates]
    loads = []
    for number, (name, run) in enumerate(closed + opened, 1):
        status.update(f"Measuring {name} for {options.seconds:g} s ({number} of {len(closed + opened)})")
        loads.append(run(seconds=options.seconds))
    return loads


def _print_report(report: Report) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{report.target}, {plural(report.photos, 'photo')} in rotation")
    if report.started_seconds is not None:
        console.print(
            f"first answer after {report.started_seconds} s; memory after the load {report.memory_mb} MB (PSS)"
        )
    stages = list(dict.fromkeys(name for load in report.loads for name in load.stages))
    table = Table("loop", "level", "photos/s", "p50 ms", "p90", "p99", "slowest", "errors", *stages, box=None)
    for load in report.loads:
        level = plural(int(load.level), "client") if load.loop == "closed" else f"{load.level:g} per s"
        figures = (load.throughput, load.p50, load.p90, load.p99, load.slowest)
        row = [load.loop, level, *(f"{figure:.1f}" for figure in figures), str(load.errors)]
        table.add_row(*row, *(f"{load.stages.get(name, 0):.1f}" for name in stages))
    Console(width=None if console.is_terminal else 160).print(table)
    if any(load.hits for load in report.loads):
        console.print("Some answers came from the server's result cache; TOPTHREE_RESULT_CACHE_BYTES=0 turns it off.")
    if stages:
        console.print("The last columns are the medians of Server-Timing, in milliseconds.")
