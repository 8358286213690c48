"""Find duplicates in an index: the same file, the same picture, and photos that are alike.

Copies of the same picture may be resized, compressed again, grey, cut a little, or have a small text. Photos that are
alike look much like the first one of their group. No photo is ever changed or deleted.

Without --output the groups are printed. The report (.html) is one file that a browser opens from disk, with
thumbnails unless --no-thumbnails is given; a table (.csv) and a document (.json) list all groups.

\b
Examples:
  topthree duplicates lib/
  topthree duplicates lib/ --output report.html
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import IndexProblem
from ..measuring.spreadsheets import write_rows
from ..measuring.stream import printable
from ..queueing.scheduling import Counts
from ..reports import LANGUAGES
from ..search.duplicates import Group, Kind, find_duplicates
from ..search.duplicates_report import size, write_report
from ..search.library import Library
from ..writing import replacing
from . import plural
from ._progress import showing

_COLUMNS = ("kind", "group", "path", "width", "height", "bytes", "sha256")


@click.command(help=__doc__)
@click.argument("index", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Report to write, which ends in .html, .csv or .json.",
)
@click.option("--no-thumbnails", is_flag=True, help="Leave thumbnails out of the HTML report.")
@click.option(
    "--language", type=click.Choice(LANGUAGES), default="en", show_default=True, help="Language of the HTML report."
)
def command(index: Path, *, output: Path | None, no_thumbnails: bool, language: str) -> None:
    """Find the groups, and print or write them."""
    if output is not None and output.suffix not in (".html", *_WRITERS):
        raise click.UsageError(f"{output} must end in .html, .csv or .json.")
    library = Library.open(index)
    groups = _find(library)
    if output is None:
        _print(library, groups)
    elif output.suffix == ".html":
        title = index.resolve().name
        text = write_report(library, groups, title=title, language=language, has_thumbnails=not no_thumbnails)
        _write(output, text)
    else:
        _write(output, _WRITERS[output.suffix](library, groups))
    click.echo(f"{plural(len(library), 'photo')} compared, none changed: {_counts(groups)}.", err=True)
    if output is not None:
        click.echo(f"Wrote {output}.", err=True)


def _find(library: Library) -> list[Group]:
    progress = Counts(photos=len(library))
    with showing("Comparing") as note:

        def report(done: int, total: int) -> None:
            progress.done = progress.computed = len(library) * done // max(1, total)
            note(progress)

        return find_duplicates(library, report)


def _counts(groups: Sequence[Group]) -> str:
    counts = {kind: sum(group.kind is kind for group in groups) for kind in Kind}
    file, picture, alike = counts.values()
    return f"{plural(file, 'group')} of the same file, {picture:,} of the same picture, {alike:,} of photos alike"


def _print(library: Library, groups: Sequence[Group]) -> None:
    for group in groups:
        click.echo(f"{group.kind}:")
        for row in group.rows:
            facts = library.rows[row]
            click.echo(f"  {printable(facts.path)}  ({facts.width} × {facts.height}, {size(facts.bytes)})")


def _rows(library: Library, groups: Sequence[Group]) -> Iterator[tuple[Any, ...]]:
    for number, group in enumerate(groups, start=1):
        for row in group.rows:
            facts = library.rows[row]
            yield (str(group.kind), number, *(getattr(facts, name) for name in _COLUMNS[2:]))


def _as_csv(library: Library, groups: Sequence[Group]) -> str:
    text = io.StringIO(newline="")
    write_rows(text, [_COLUMNS])
    write_rows(text, _rows(library, groups))
    return text.getvalue()


def _as_json(library: Library, groups: Sequence[Group]) -> str:
    found: list[dict[str, Any]] = []
    for kind, number, *facts in _rows(library, groups):
        if number > len(found):
            found.append({"kind": kind, "photos": []})
        found[-1]["photos"].append(dict(zip(_COLUMNS[2:], facts, strict=True)))
    return json.dumps({"photos": len(library), "groups": found}, ensure_ascii=False, indent=1) + "\n"


_WRITERS: dict[str, Callable[[Library, Sequence[Group]], str]] = {".csv": _as_csv, ".json": _as_json}


def _write(path: Path, text: str) -> None:
    try:
        with replacing(path, 0o644) as out:
            out.write(text.encode())
    except OSError as error:
        raise IndexProblem(f"{path} cannot be written: {error.strerror}.") from error
