"""Batches in this process, with the fake engine and the decoders that all tests share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fakes import fake_classifier

from app.batch.answering import Options
from app.batch.job import Job
from app.batch.rows import Columns, Row
from app.batch.runs import read_run
from app.batch.start import begin, check
from app.batch.tables import NDJSON, read_table
from app.classifier import Classifier
from app.queueing.scheduling import Counts

MAX_PIXELS = 10**6


def make_job(
    sources: Sequence[object],
    output: Path,
    classifier: Classifier | None = None,
    *,
    format_: str = NDJSON,
    top: int = 2,
    embeddings: bool = False,
    shards: int | None = None,
    **options: object,
) -> tuple[Job, object]:
    """Begin a job as the command does; returns it with the photos to run it on."""
    sources = [str(source) for source in sources]
    check(sources, output, format_, embeddings=embeddings)
    classifier = classifier or fake_classifier()
    models = classifier.find_models(())
    columns = Columns(top, tuple(model.name for model in models), embeddings)
    chosen = Options(columns, MAX_PIXELS, **options)
    return begin(classifier, models, sources, output, chosen, format_=format_, shards=shards)


def batch(sources: Sequence[object], output: Path, *arguments: object, **options: object) -> Counts:
    """Run a job to its end."""
    job, entries = make_job(sources, output, *arguments, **options)
    return job.run(entries)


def rows_of(output: Path) -> list[Row]:
    """Return all rows of an output folder, in the order of their paths."""
    run = read_run(output)
    rows = [row for path in output.glob("part-*") for row in read_table(path, run.format)]
    return sorted(rows, key=lambda row: row["path"])


def paths_of(output: Path) -> list[str]:
    """Return the paths of all rows, in their order."""
    return [row["path"] for row in rows_of(output)]
