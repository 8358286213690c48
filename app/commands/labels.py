"""Find classes by number, WordNet id, or name in English or Chinese.

A part of a name is enough. If no name contains it, classes that share a word with it are listed.

\b
Examples:
  topthree labels crane
  topthree labels 虎
  topthree labels "tabby cat" --json
"""

from __future__ import annotations

import json

import click

from ..model.labels import Label, load_labels, search_labels
from ..model.opening import open_bundle
from ..model.served import read_own_default
from ..settings import Settings
from . import model_option, plural, read_settings

MAX_SHOWN = 20


@click.command(help=__doc__)
@click.argument("query", metavar="SEARCH")
@click.option("--all", "show_all", is_flag=True, help=f"Show all matches, not only the first {MAX_SHOWN}.")
@model_option
@click.option("--json", "as_json", is_flag=True, help="Print all matches as JSON.")
def command(query: str, *, model: str, show_all: bool, as_json: bool) -> None:
    """Print the classes that match, or fail if there is no such class."""
    found = search_labels(_labels(read_settings(model)), query)
    if as_json:
        click.echo(json.dumps([vars(label) for label in found], ensure_ascii=False))
    else:
        _print(found, len(found) if show_all else MAX_SHOWN)
    if not found:
        raise click.ClickException(f"No class matches {query!r}.")


def _labels(settings: Settings) -> tuple[Label, ...]:
    """Return the classes of the model that would serve."""
    if settings.bundle is None:
        own = read_own_default(settings)
        return own.labels if own else load_labels(settings.labels)
    prepared = open_bundle(settings.bundle, settings)
    is_own = prepared.own is not None and settings.model in ("", prepared.own.name)
    return prepared.own.labels if prepared.own and is_own else load_labels(prepared.labels)


def _print(found: list[Label], count: int) -> None:
    for label in found[:count]:
        gloss = f"({label.label_gloss})" if label.label_gloss else ""
        cells = [f"{label.class_id:4}", label.wnid or "", label.label, label.label_zh or "", gloss]
        click.echo("  ".join(cells).rstrip())
    if len(found) > count:
        click.echo(f"{plural(len(found) - count, 'more match')}: --all shows them.", err=True)
