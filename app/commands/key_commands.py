"""The commands `topthree keys …`. Each imports its job when it is called, as those of `cli` do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click


def _keys_file(*, required: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--file",
        "path",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="TOPTHREE_API_KEYS_FILE",
        show_envvar=True,
        required=required,
        help="The file of keys.",
    )


@click.group()
def keys() -> None:
    """Make API keys, and list, enable and disable those of a file.

    The file holds digests only: a key is shown once, when it is made, and cannot be shown again.
    """


@keys.command("new")
@click.argument("name")
@_keys_file(required=False)
def new_key(name: str, path: Path | None) -> None:
    """Print a new key for NAME and add it to the file; without a file, print its line too."""
    from .keys import new

    new(name, path)


@keys.command("list")
@_keys_file()
def list_keys(path: Path) -> None:
    """List names and states."""
    from .keys import show

    show(path)


@keys.command("check")
@_keys_file()
def check_key(path: Path) -> None:
    """Read a key from standard input and say whose it is."""
    from .keys import check

    check(sys.stdin.readline().strip(), path)


@keys.command("disable")
@click.argument("name")
@_keys_file()
def disable_key(name: str, path: Path) -> None:
    """Turn the key of NAME away from now on."""
    from .keys import set_state

    set_state(name, path, enabled=False)


@keys.command("enable")
@click.argument("name")
@_keys_file()
def enable_key(name: str, path: Path) -> None:
    """Let the key of NAME in again."""
    from .keys import set_state

    set_state(name, path, enabled=True)
