"""List your own models, choose which version of one serves, and remove them.

They are in the folder of TOPTHREE_MODELS. A running service takes a change within about a second.

\b
Examples:
  topthree models
  topthree models use pets 2
  topthree models remove pets 1
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import OwnModelError
from ..measuring.stream import printable
from ..model.own_models import Listed, list_models, remove, use_version
from . import models_folder, plural, read_settings

VERSION = click.IntRange(1, 10**9 - 1)
# The width of the table without a terminal, so that no line is folded in a file or a pipe.
_WIDE = 10_000


@click.group(help=__doc__, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """List the models, unless one of the commands below is called."""
    if context.invoked_subcommand is not None:
        return
    root = models_folder(read_settings())
    found = list_models(root)
    if as_json:
        click.echo(json.dumps([_as_json(each) for each in found], ensure_ascii=False, indent=1))
    elif not _print(found):
        click.echo(f"There are no models in {root}.", err=True)


@command.command("use")
@click.argument("name")
@click.argument("version", type=VERSION)
def use(name: str, version: int) -> None:
    """Serve a version of NAME until another is chosen or trained.

    \b
    Example:
      topthree models use pets 2
    """
    found = use_version(models_folder(read_settings()), name, version)
    click.echo(f"{name} serves in version {version}: {plural(len(found.labels), 'class')}, made {found.created}.")


@command.command("remove")
@click.argument("name")
@click.argument("version", type=VERSION, required=False)
def drop(name: str, version: int | None) -> None:
    """Remove the model NAME, or only one version of it.

    \b
    Example:
      topthree models remove pets
    """
    remove(models_folder(read_settings()), name, version)
    click.echo(f"Removed {name}." if version is None else f"Removed version {version} of {name}.")


def _as_json(listed: Listed) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": listed.name, "version": listed.version, "versions": list(listed.versions)}
    if isinstance(listed.found, OwnModelError):
        return facts | {"problem": str(listed.found)}
    own = listed.found
    return facts | {
        "classes": len(own.labels),
        "backbone": own.backbone,
        "weights_sha256": own.weights_sha256,
        "tuned": own.trunk is not None,
        "photos": own.photos,
        "accuracy": own.accuracy and vars(own.accuracy),
        "created": own.created,
    }


def _print(found: Iterable[Listed]) -> bool:
    """Print a table of the models, and return whether there are any."""
    columns = ("name", "version", "classes", "backbone", "accuracy", "created", "other versions")
    table = Table(*columns, box=None, pad_edge=False)
    for each in found:
        others = ", ".join(str(version) for version in each.versions if version != each.version)
        if isinstance(each.found, OwnModelError):
            problem = Text(str(each.found), style="red")
            table.add_row(each.name, str(each.version or ""), "", "", problem, "", others)
        else:
            own = each.found
            accuracy, classes = f"{own.accuracy.top1:.1f} %" if own.accuracy else "", str(len(own.labels))
            tuned = ", fine-tuned" if own.trunk else ""
            backbone, created = Text(printable(own.backbone) + tuned), Text(printable(own.created))
            table.add_row(each.name, str(own.version), classes, backbone, accuracy, created, others)
    if not table.rows:
        return False
    console = Console()
    Console(width=None if console.is_terminal else _WIDE).print(table, highlight=False)
    return True
