"""Find, fetch and report the weights on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from ..download import Progress as Report
from ..errors import WeightsError
from ..settings import Settings
from ..weights import (
    FALLBACK_MARKER,
    RESNET18,
    RESNET18_URL,
    Candidate,
    Weights,
    cached_candidates,
    download_weights,
    explicit_weights,
    find_weights,
    packaged_weights,
)

console = Console(stderr=True, soft_wrap=True)


def find_with_progress(settings: Settings) -> Weights:
    """Find the weights to serve, with a progress bar where they have to be downloaded."""
    with _download_bar() as progress:
        return find_weights(settings, progress=progress)


def fetch_with_progress(settings: Settings) -> Weights:
    """Download the ResNet-18 weights with a progress bar."""
    with _download_bar() as progress:
        return download_weights(settings, progress=progress)


def announce(weights: Weights) -> None:
    """Say on standard error which model serves, and loudly if it is only the fallback."""
    console.print(f"Model: {weights.record.name}, {weights.source} ({weights.path})", highlight=False)
    if weights.is_fallback:
        console.print(
            f"Note: {weights.reason} {weights.record.name} serves instead of {RESNET18.name}. "
            "'topthree weights --fetch' tries again; TOPTHREE_WEIGHTS names a file of your own.",
            style="yellow",
            highlight=False,
        )


def report(settings: Settings) -> bool:
    """Print each step of the chain with its state, and return whether any would serve."""
    table = Table("step", "file", "state", box=None, pad_edge=False)
    chosen: Weights | None = None
    for source, place, look in _steps(settings):
        if chosen:
            table.add_row(source, place, "not needed")
            continue
        try:
            chosen = look()
            table.add_row(source, place, f"serves: {chosen.record.name}, SHA-256 {chosen.sha256}")
        except WeightsError as error:
            table.add_row(source, place, str(error))
            if settings.weights:
                break
    Console(width=None if console.is_terminal else 400).print(table, highlight=False)
    return chosen is not None


def _steps(settings: Settings) -> Iterator[tuple[str, str, Callable[[], Weights]]]:
    explicit = settings.weights
    if explicit is None:
        yield "TOPTHREE_WEIGHTS", "", partial(_raise, "not set")
    else:
        yield "TOPTHREE_WEIGHTS", str(explicit), partial(explicit_weights, explicit, settings.weights_sha256)
    for candidate in cached_candidates(settings):
        yield candidate.source, str(candidate.path), partial(_take, candidate)
    yield "download", settings.weights_url or RESNET18_URL, partial(_raise, _download_state(settings))
    if settings.fallback == "none":
        yield "packaged fallback", "", partial(_raise, "switched off by TOPTHREE_FALLBACK")
    else:
        yield "packaged fallback", "", partial(packaged_weights, "")


def _download_state(settings: Settings) -> str:
    marker = settings.cache / FALLBACK_MARKER
    if marker.is_file():
        return f"not tried again before --fetch: {marker.read_text(encoding='utf-8')}"
    return "would be tried at the next start"


def _take(candidate: Candidate) -> Weights:
    return candidate.weights or _raise(candidate.problem or "")


def _raise(reason: str) -> Weights:
    raise WeightsError(reason)


@contextmanager
def _download_bar() -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"Downloading {RESNET18.file_name}", total=RESNET18.size_bytes, visible=False)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield progress
