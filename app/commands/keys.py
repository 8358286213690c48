"""Make API keys, and list, check, enable and disable those of a file.

The file holds only digests: a key is shown once, when it is made, and cannot be shown again.

\b
Examples:
  topthree keys new alice --file keys.txt
  topthree keys disable alice --file keys.txt
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import click

from ..errors import KeysError
from ..web.keys import RIGHTS, Key, KeySet, check_name, digest_of, new_token, parse_keys, read_keys, read_text
from ..writing import replacing

HEADING = "# API keys of topthree: name, enabled or disabled, SHA-256 of the key, rights.\n"


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


@click.group(help=__doc__)
def command() -> None:
    """Hold the commands below."""


@command.command("new")
@click.argument("name")
@click.option("--may", "rights", type=click.Choice(RIGHTS), multiple=True, help="Right to give to the key.")
@_keys_file(required=False)
def new(name: str, path: Path | None, rights: tuple[str, ...]) -> None:
    """Print a new key for NAME and add it to the file.

    The file is made if it does not exist. Without a file, the line to add to it is printed too.

    \b
    Examples:
      topthree keys new alice --file keys.txt
      topthree keys new bob --may teach --file keys.txt
    """
    token = new_token()
    key = Key(check_name(name), True, digest_of(token), tuple(dict.fromkeys(rights)))
    if path is None:
        click.echo("Add this line to the file of TOPTHREE_API_KEYS_FILE:", err=True)
        click.echo(key.as_line(), err=True)
    else:
        _append(path, key)
        click.echo(f"Added {name} to {path}.", err=True)
    click.echo("This is the key. It is shown only now:", err=True)
    click.echo(token)


@command.command("list")
@_keys_file()
def show(path: Path) -> None:
    """List the keys with their states, digests, names and rights.

    \b
    Example:
      topthree keys list --file keys.txt
    """
    for key in read_keys(path).keys:
        rights = f"  {','.join(key.rights)}" if key.rights else ""
        click.echo(f"{key.state:8}  {key.digest.hex()[:12]}…  {key.name}{rights}")


@command.command("check")
@_keys_file()
def check(path: Path) -> None:
    """Read a key from standard input; print its name and state.

    The exit status is 1 if the file does not have the key.

    \b
    Example:
      topthree keys check --file keys.txt < key.txt
    """
    key = read_keys(path).find(sys.stdin.readline().strip())
    if key is None:
        raise KeysError(f"{path} does not have this key.")
    click.echo(f"{key.name}: {key.state}")


@command.command("disable")
@click.argument("name")
@_keys_file()
def disable(name: str, path: Path) -> None:
    """Reject the key of NAME from now on.

    \b
    Example:
      topthree keys disable alice --file keys.txt
    """
    _set_state(name, path, enabled=False)


@command.command("enable")
@click.argument("name")
@_keys_file()
def enable(name: str, path: Path) -> None:
    """Accept the key of NAME again.

    \b
    Example:
      topthree keys enable alice --file keys.txt
    """
    _set_state(name, path, enabled=True)


def _set_state(name: str, path: Path, *, enabled: bool) -> None:
    """Enable or disable a key in the file, and leave every other line as it is."""
    text = read_text(path)
    keys = parse_keys(text, path)
    old = _named(keys, name, path)
    new_line = dataclasses.replace(old, enabled=enabled).as_line()
    lines = text.split("\n")
    number = keys.lines[keys.keys.index(old)] - 1
    _, hash_sign, comment = lines[number].partition("#")
    lines[number] = f"{new_line}  #{comment}" if hash_sign else new_line
    _write(path, "\n".join(lines))
    state = "enabled" if enabled else "disabled"
    click.echo(f"{name} is {state}. A running service reads the file again after kill -HUP.", err=True)


def _named(keys: KeySet, name: str, path: Path) -> Key:
    key = keys.named(name)
    if key is None:
        raise KeysError(f"{path} has no key named {name!r}.")
    return key


def _append(path: Path, key: Key) -> None:
    text = read_text(path) if path.exists() else HEADING
    if text and not text.endswith("\n"):
        text += "\n"
    text += key.as_line() + "\n"
    parse_keys(text, path)  # refuse a name that exists before anything is written
    _write(path, text)


def _write(path: Path, text: str) -> None:
    """Replace the file in one step; a new one is readable and writable only by its owner."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    try:
        with replacing(path, mode) as file:
            file.write(text.encode())
    except OSError as error:
        raise KeysError(f"The keys file {path} cannot be written: {error.strerror}.") from error
