"""Classify large collections of photos into files, in jobs that resume.

A source is a folder, a pattern in quotes, a ZIP or TAR archive (such as WebDataset's), a list of paths (.txt, .csv or
.parquet; - for one on standard input), or s3://BUCKET/PREFIX. The rows go to part-00000.parquet and so on in the
output folder. Run the same command again to do what is missing. Several jobs may share one output folder, on one
machine or many: each shard is done by one of them.

The exit status is 0 if all photos were classified, 1 if some failed (their rows say why), and 3 if the job was stopped
before its end.

\b
Examples:
  topthree batch photos/ --output out/
  topthree batch 'shards/*.tar' --output out/ --format ndjson
  topthree batch photos/ --output out/ --shard 3/16
  topthree batch --status out/
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..batch.answering import Options
from ..batch.rows import Columns
from ..batch.runs import MAX_SHARDS
from ..batch.start import begin, check, parse_slice
from ..batch.status import Status, read_status
from ..batch.tables import FORMATS, PARQUET
from ..classifier import Classifier
from ..errors import BatchError, BatchStopped
from ..measuring.bars import duration
from ..measuring.stream import printable
from ..model import Model
from ..photos.folders import MAX_FILE_BYTES
from ..queueing.scheduling import Counts
from ..settings import Settings
from . import plural, read_environment, settings_of_one_process
from ._progress import showing_resumable, stopped_in_order

if TYPE_CHECKING:
    from ..batch.ray_job import RayAnswers

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(help=__doc__)
@click.argument("sources", nargs=-1, metavar="[SOURCE…]")
@click.option("--output", type=FOLDER, metavar="DIR", help="Folder for the parts; it is created.")
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), default=PARQUET, show_default=True, help="Format of the parts."
)
@click.option("--top", type=click.IntRange(1, 100), default=3, show_default=True, help="Answers per photo.")
@click.option(
    "--model", default="", metavar="NAME,…", help="Models to use, on one backbone (default: TOPTHREE_MODEL)."
)
@click.option("--embeddings", is_flag=True, help="Add a column with the embedding in float16.")
@click.option("--heatmaps", type=FOLDER, metavar="DIR", help="Save heat maps there, named by the photos' SHA-256.")
@click.option("--shard", "slice_", default="1/1", metavar="K/N", help="Do the K-th of N slices; auto in a job array.")
@click.option(
    "--shards", type=click.IntRange(1, MAX_SHARDS), help="Number of parts, fixed by the first job (default: by size)."
)
@click.option("--retry-failed", is_flag=True, help="Try the photos again that failed, and replace their rows.")
@click.option("--ray", "ray_address", metavar="ADDRESS", help="Compute on this cluster of Ray: auto, or HOST:PORT.")
@click.option("--status", "status_of", type=FOLDER, metavar="DIR", help="Print how far the batch in DIR is.")
def command(
    sources: tuple[str, ...],
    *,
    output: Path | None,
    format_: str,
    top: int,
    model: str,
    embeddings: bool,
    heatmaps: Path | None,
    slice_: str,
    shards: int | None,
    retry_failed: bool,
    ray_address: str | None,
    status_of: Path | None,
) -> None:
    """Run a job, or print the status of all."""
    if status_of is not None:
        _print_status(read_status(status_of))
        return
    if not sources or output is None:
        raise click.UsageError("Name at least one source, and --output.")
    with ExitStack() as stack:
        stack.enter_context(stopped_in_order())
        number, jobs = parse_slice(slice_, read_environment())
        check(sources, output, format_, embeddings=embeddings)
        names = tuple(dict.fromkeys(filter(None, model.split(","))))
        settings = settings_of_one_process(names[0] if names else "")
        classifier = stack.enter_context(closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)))
        models = classifier.find_models(names)
        columns = Columns(top, tuple(each.name for each in models), embeddings)
        options = Options(columns, settings.max_pixels, heatmaps, retry_failed, number, jobs)
        if not ray_address:
            classifier.start_decoders()
        answers = (
            stack.enter_context(closing(_on_ray(ray_address, settings, models, options))) if ray_address else None
        )
        job, entries = begin(
            classifier, models, sources, output, options, format_=format_, shards=shards, answers=answers
        )
        with showing_resumable("Classifying", job.progress) as job.note:
            counts = job.run(entries)
    raise SystemExit(_end(counts, output))


def _on_ray(address: str, settings: Settings, models: Sequence[Model], options: Options) -> RayAnswers:
    if importlib.util.find_spec("ray") is None:
        raise BatchError("--ray needs Ray Data: pip install 'topthree[ray]'")
    from ..batch.ray_job import RayAnswers  # which takes seconds, and starts threads

    return RayAnswers(address, settings, models, options)


def _end(counts: Counts, output: Path) -> int:
    """Print how a job has ended, and return its exit status."""
    click.echo(f"{plural(counts.done, 'photo')} in {output}, {counts.failed:,} failed.", err=True)
    if counts.busy:
        click.echo(f"Other jobs still work on {plural(counts.busy, 'shard')} of these photos.", err=True)
        return BatchStopped.exit_status
    if counts.failed:
        click.echo(f"topthree batch --status {output} sums them up; --retry-failed tries them again.", err=True)
        return BatchError.exit_status
    return 0


def _print_status(status: Status) -> None:
    failed = status.failed.total()
    listed = "" if status.listed is None else f" of {status.listed:,}"
    click.echo(f"done      {status.rows:,}{listed}")
    click.echo(f"failed    {failed:,}")
    for slug, count in status.failed.most_common():
        click.echo(f"          {count:,} {slug}, for example: {printable(status.examples[slug])}")
    if status.photos_per_second is not None:
        click.echo(f"pace      {status.photos_per_second:.1f} photos/s, by the newest parts")
    if status.seconds_left:
        click.echo(f"time left {duration(status.seconds_left)}, if jobs are running")
