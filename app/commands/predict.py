"""Classify photos: files, all photos below folders, or standard input (-).

A file that cannot be read is reported in its place, the others are classified, and the exit status is 1.

\b
Examples:
  topthree predict cat.jpg holiday/
  topthree predict holiday/ --csv > holiday.csv
  topthree predict - < cat.jpg
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..classifier import Answer, Classifier
from ..errors import TopthreeError
from ..measuring.spreadsheets import write_rows
from ..measuring.stream import Row, classify_files, printable
from ..photos.folders import MAX_FILE_BYTES, find_photos
from . import model_option, settings_of_one_process

# The width of the table without a terminal, so that no line is folded in a file or a pipe.
WIDE = 10_000


@click.command(help=__doc__)
@click.argument("sources", nargs=-1, required=True, metavar="FILE… | FOLDER | -")
@click.option("--top", type=click.IntRange(1, 1000), default=3, show_default=True, help="Answers per photo.")
@model_option
@click.option("--json", "json", is_flag=True, help="Print one JSON document.")
@click.option("--ndjson", "ndjson", is_flag=True, help="Print one JSON object per line, as soon as it is ready.")
@click.option("--csv", "csv", is_flag=True, help="Print CSV, one line per answer.")
@click.option("--table", "table", is_flag=True, help="Print a table (the default).")
def command(sources: tuple[str, ...], top: int, model: str, **formats: bool) -> None:
    """Classify and print; the exit status is 1 if any file could not be read."""
    chosen = [name for name, is_chosen in formats.items() if is_chosen]
    if len(chosen) > 1:
        raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other.")
    output_format = chosen[0] if chosen else "table"
    settings = settings_of_one_process(model)
    failed: list[str] = []
    with closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)) as classifier:
        rows = classify_files(
            classifier,
            # The number of photos is known in advance only if no folder has to be searched.
            find_photos(sources) if any(map(os.path.isdir, sources)) else sources,
            top=top,
            max_pixels=settings.max_pixels,
            # Lines that stream to the terminal show the progress themselves, and would tear a bar.
            show_progress=output_format in ("json", "table") or not sys.stdout.isatty(),
        )
        WRITERS[output_format](_noting_failures(rows, failed), classifier)
    if failed:
        raise SystemExit(1)


def _noting_failures(rows: Iterable[Row], failed: list[str]) -> Iterator[Row]:
    for name, outcome in rows:
        if isinstance(outcome, TopthreeError):
            failed.append(name)
        yield name, outcome


def _as_dict(row: Row) -> dict[str, object]:
    file, outcome = row
    if isinstance(outcome, TopthreeError):
        return {"file": file, "error": str(outcome)}
    predictions = [vars(prediction) for prediction in outcome.predictions]
    document = {"file": file, "predictions": predictions, "image": outcome.image, "certainty": outcome.certainty}
    return document | ({"group": vars(outcome.group)} if outcome.group else {})


def _write_json(rows: Iterable[Row], classifier: Classifier) -> None:
    document: dict[str, object] = {"results": [_as_dict(row) for row in rows]}
    if classifier.loaded_model is not None:  # it is None if no file could be read
        document["model"] = classifier.loaded_model.identity
    print(json.dumps(document, ensure_ascii=False, indent=1))


def _write_ndjson(rows: Iterable[Row], classifier: Classifier) -> None:
    for row in rows:
        print(json.dumps(_as_dict(row), ensure_ascii=False), flush=True)


def _write_csv(rows: Iterable[Row], classifier: Classifier) -> None:
    names = ("rank", "class_id", "wnid", "label", "label_zh", "confidence", "probability")
    write_rows(sys.stdout, [("file", *names, "certainty", "error")])
    for file, outcome in rows:
        if isinstance(outcome, TopthreeError):
            write_rows(sys.stdout, [(file, *[""] * len(names), "", str(outcome))])
        else:
            facts = ([getattr(prediction, name) for name in names] for prediction in outcome.predictions)
            write_rows(sys.stdout, [(file, *each, outcome.certainty, "") for each in facts])


def _write_table(rows: Iterable[Row], classifier: Classifier) -> None:
    table = Table("file", "confidence", "English", "中文", "certainty", box=None, pad_edge=False)
    for file, outcome in rows:
        name = Text(printable(file))  # Text, since Rich reads [brackets] and :colons: in a str as markup
        if isinstance(outcome, TopthreeError):
            table.add_row(name, "", Text(str(outcome), style="red"), "", "")
            continue
        for prediction in outcome.predictions:
            first = prediction.rank == 1
            table.add_row(
                name if first else "",
                f"{100 * prediction.confidence:5.1f} %",
                Text(prediction.label),
                Text(prediction.label_zh or ""),
                _certainty(outcome) if first else "",
            )
    console = Console()
    Console(width=None if console.is_terminal else WIDE).print(table, highlight=False)


def _certainty(answer: Answer) -> str:
    """Return the certainty in a table's cell, with the group's name; empty if it was not measured."""
    return f"group: {answer.group.label}" if answer.group else answer.certainty or ""


WRITERS: dict[str, Callable[[Iterable[Row], Classifier], None]] = {
    "json": _write_json,
    "ndjson": _write_ndjson,
    "csv": _write_csv,
    "table": _write_table,
}
