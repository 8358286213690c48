"""Show which weights would serve, and why.

The network is used only with --fetch.

\b
Examples:
  topthree weights
  topthree weights --fetch
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ..errors import BundleError, WeightsError
from ..model.artifact import ensure_prepared, identify_weights, open_prepared, prepared_timm, prepared_weights
from ..model.engines import choose_engine
from ..model.model_files import SOURCE, read_model_file
from ..model.opening import open_bundle
from ..model.own_format import OwnModel
from ..model.records import DEFAULT_NAME, RECORDS, TIMM
from ..model.served import on_backbone, read_own_default
from ..model.tuned import SOURCE as SOURCE_TUNED
from ..model.tuned import ensure_tuned
from ..model.weights import (
    PACKAGED,
    Weights,
    cached_candidates,
    chosen_record,
    download_weights,
    explicit_weights,
    fallback_in_use,
    find_weights,
    may_fall_back,
    packaged_weights,
)
from ..parsers import is_model_file
from ..settings import Settings
from . import read_settings

if TYPE_CHECKING:  # it imports an HTTP client, which most starts do not need
    from ..model.download import Progress as Report

console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)


@click.command(help=__doc__)
@click.option(
    "--fetch", is_flag=True, help="Download the model's weights; those of the default model replace the built-in one."
)
def command(*, fetch: bool) -> None:
    """Print the steps of the search; the exit status is 1 if no weights serve."""
    settings = read_settings()
    own = None if settings.bundle else read_own_default(settings)
    if own is not None and own.trunk is not None:
        _print_step(SOURCE_TUNED, f"serves: made of {own.backbone}, SHA-256 {own.trunk.sha256}", str(own.trunk.path))
        return
    settings = on_backbone(settings)
    if fetch:
        _fetch(settings)
    if not report(settings):
        raise SystemExit(1)


def _fetch(settings: Settings) -> None:
    if is_model_file(settings.model):
        raise WeightsError(f"TOPTHREE_MODEL names {settings.model}, which has its own weights; there is no download.")
    if not settings.model.startswith(TIMM):
        fetch_with_progress(settings)
        return
    from ..model.backbones.timm_family import timm_record, timm_weights

    timm_weights(timm_record(settings.model))


def find_with_progress(settings: Settings, *, quiet: bool = False) -> Weights:
    """Find the weights to load, with a progress bar if they have to be downloaded."""
    find = _finder(settings)
    if quiet:
        return find(settings)
    with _download_bar(settings) as progress:
        return find(settings, progress=progress)


def _finder(settings: Settings) -> Callable[..., Weights]:
    """Return `find_weights`, or for what it does not find a function whose module takes seconds to import torch."""
    if not settings.model.startswith(TIMM) and not is_model_file(settings.model):
        return find_weights
    from ..model.backbones import find_weights_to_load

    return find_weights_to_load


def make_ready(settings: Settings) -> Weights:
    """Find the weights, and prepare their model if the engine needs that, with progress on the terminal."""
    if settings.bundle:
        return open_bundle(settings.bundle, settings).weights
    own = read_own_default(settings)
    if own is not None and own.trunk is not None:
        return _make_tuned_ready(settings, own)
    settings = on_backbone(settings)
    if choose_engine(settings.engine) == "torch":
        return find_with_progress(settings)
    with _download_bar(settings) as progress:
        weights = identify_weights(settings, progress=progress)
    if open_prepared(settings, weights):
        return weights
    with _status(f"Preparing {weights.record.name}; this is done once."):
        return ensure_prepared(settings, weights=weights).weights


def _make_tuned_ready(settings: Settings, own: OwnModel) -> Weights:
    with _status(f"Preparing version {own.version} of {own.name}; this is done once."):
        return ensure_tuned(settings, own).weights


@contextmanager
def _status(text: str) -> Iterator[None]:
    """Show what takes long; in a log, where nothing can move, as a line."""
    if not console.is_terminal:
        console.print(text)
        yield
        return
    with console.status(text):
        yield


def fetch_with_progress(settings: Settings) -> Weights:
    """Download the chosen model's weights with a progress bar."""
    with _download_bar(settings) as progress:
        return download_weights(settings, progress=progress)


def report(settings: Settings) -> bool:
    """Print the steps of the search down to the one that serves, and return whether there is one."""
    for source, place, look in _steps(settings):
        try:
            weights = look()
        except (WeightsError, BundleError) as error:
            _print_step(source, str(error), place)
        else:
            is_sure = weights.source != PACKAGED or fallback_in_use(settings) is not None
            verb = "serves" if is_sure else "serves if that fails"
            _print_step(source, f"{verb}: {weights.record.name}, SHA-256 {weights.sha256}", str(weights.path))
            return True
    return False


def _print_step(source: str, state: str, place: str) -> None:
    print(f"{source:18} {state}")
    if place:
        print(f"{'':18} {place}")


def _steps(settings: Settings) -> Iterator[tuple[str, str, Callable[[], Weights]]]:
    if settings.bundle:
        yield "TOPTHREE_BUNDLE", "", lambda: make_ready(settings)
        return
    explicit = settings.weights
    if is_model_file(settings.model):
        yield SOURCE, settings.model, lambda: read_model_file(Path(settings.model))[1]
        return
    if settings.model.startswith(TIMM):
        yield "prepared model", settings.model, lambda: prepared_timm(settings) or _raise("not prepared yet")
        if explicit:
            yield "TOPTHREE_WEIGHTS", str(explicit), partial(find_with_progress, settings, quiet=True)
        else:
            yield "hub", settings.model, partial(_cached_timm, settings)
        return
    if explicit:
        yield "TOPTHREE_WEIGHTS", str(explicit), partial(explicit_weights, settings)
        return
    yield "TOPTHREE_WEIGHTS", "", partial(_raise, "not set")
    record = chosen_record(settings)
    artifact = prepared_weights(settings, record, "prepared model")
    if artifact is not None and choose_engine(settings.engine) == "openvino":
        yield "prepared model", str(artifact.path), partial(_take, artifact, None)
    if record.package:
        yield "package", record.package, partial(find_weights, settings)
        return
    for candidate in cached_candidates(settings):
        yield candidate.source, str(candidate.path), partial(_take, candidate.weights, candidate.problem)
    yield "download", settings.weights_url or record.source, partial(_raise, _download_state(settings))
    if not may_fall_back(settings):
        by = "TOPTHREE_FALLBACK" if settings.fallback == "none" else "TOPTHREE_MODEL"
        yield "packaged fallback", "", partial(_raise, f"switched off by {by}")
    else:
        yield "packaged fallback", "", partial(packaged_weights, "")


def _cached_timm(settings: Settings) -> Weights:
    """Return the weights of a model of timm if the hub's cache has them; raises WeightsError without them."""
    from ..model.backbones.timm_family import cached_timm, timm_record

    return cached_timm(timm_record(settings.model)) or _raise("not there; downloaded at the next start")


def _download_state(settings: Settings) -> str:
    reason = fallback_in_use(settings)
    if reason is None:
        return "not tried now, but at the next start"
    return f"not tried again before --fetch: {reason}"


def _take(weights: Weights | None, problem: str | None) -> Weights:
    return weights or _raise(problem or "")


def _raise(reason: str) -> Weights:
    raise WeightsError(reason)


@contextmanager
def _download_bar(settings: Settings) -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    # Without a terminal, rich would print an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        record = RECORDS.get(settings.model or DEFAULT_NAME)
        task = bar.add_task(f"Downloading {record.file_name if record else settings.model}", visible=False)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield progress
