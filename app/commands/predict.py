"""`topthree predict`: many photos, as a table, JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..classifier import Classifier
from ..errors import TopthreeError
from ..measuring.stream import Row, classify_files, printable
from ..photos.folders import MAX_FILE_BYTES, list_photos
from ..settings import Settings

# Columns where there is no terminal: wide enough that no line is folded in a file or a pipe.
WIDE = 10_000


def run(settings: Settings, sources: Sequence[str], *, top: int, form: str) -> bool:
    """Classify and print; return whether every photo could be read."""
    files = list_photos(sources)
    with closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)) as classifier:
        return _predict(classifier, files, top=top, form=form, max_pixels=settings.max_pixels)


def _predict(classifier: Classifier, files: Sequence[str], *, top: int, form: str, max_pixels: int) -> bool:
    classifier.load_model()  # first, so that a failure is one error, and not one for each photo
    failures = 0
    # Lines that stream to the terminal show the progress themselves; a bar among them would only tear them.
    show_progress = form in ("json", "table") or not sys.stdout.isatty()

    def counted() -> Iterable[Row]:
        nonlocal failures
        rows = classify_files(classifier, files, top=top, max_pixels=max_pixels, show_progress=show_progress)
        for row in rows:
            failures += isinstance(row[1], TopthreeError)
            yield row

    writers: dict[str, Callable[[Iterable[Row], Classifier], None]] = {
        "json": _write_json,
        "ndjson": _write_ndjson,
        "csv": _write_csv,
        "table": _write_table,
    }
    writers[form](counted(), classifier)
    return failures == 0


def _as_dict(row: Row) -> dict[str, object]:
    file, outcome = row
    if isinstance(outcome, TopthreeError):
        return {"file": file, "error": str(outcome)}
    predictions = [vars(prediction) for prediction in outcome.predictions]
    return {"file": file, "predictions": predictions, "image": outcome.image}


def _write_json(rows: Iterable[Row], classifier: Classifier) -> None:
    document = {"results": [_as_dict(row) for row in rows], "model": classifier.load_model().identity}
    print(json.dumps(document, ensure_ascii=False, indent=1))


def _write_ndjson(rows: Iterable[Row], classifier: Classifier) -> None:
    for row in rows:
        print(json.dumps(_as_dict(row), ensure_ascii=False), flush=True)


def _write_csv(rows: Iterable[Row], classifier: Classifier) -> None:
    names = ("rank", "class_id", "wnid", "label", "label_zh", "confidence")
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(("file", *names, "error"))
    for file, outcome in rows:
        if isinstance(outcome, TopthreeError):
            table.writerow((file, *[""] * len(names), str(outcome)))
        else:
            table.writerows(
                (file, *(getattr(prediction, name) for name in names), "") for prediction in outcome.predictions
            )


def _write_table(rows: Iterable[Row], classifier: Classifier) -> None:
    table = Table("file", "confidence", "English", "中文", box=None, pad_edge=False)
    for file, outcome in rows:
        name = Text(printable(file))  # Text, since Rich reads [brackets] and :colons: in a str as markup
        if isinstance(outcome, TopthreeError):
            table.add_row(name, "", Text(str(outcome), style="red"), "")
            continue
        for prediction in outcome.predictions:
            shown = name if prediction.rank == 1 else ""
            percent = f"{100 * prediction.confidence:5.1f} %"
            table.add_row(shown, percent, Text(prediction.label), Text(prediction.label_zh or ""))
    console = Console()
    Console(width=None if console.is_terminal else WIDE).print(table, highlight=False)
