"""`topthree keys`: make API keys, and list and change those of a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from ..errors import KeysError
from ..web.keys import Key, KeySet, check_name, digest_of, new_token, parse_keys, read_keys

HEADING = "# API keys of topthree: name, enabled or disabled, SHA-256 of the key.\n"


def new(name: str, path: Path | None) -> None:
    """Print a new key once, and add its line to the file, which is made where it is missing; or print the line."""
    token = new_token()
    key = Key(check_name(name), True, digest_of(token))
    if path is None:
        click.echo("Add this line to the file of TOPTHREE_API_KEYS_FILE:", err=True)
        click.echo(key.as_line(), err=True)
    else:
        _append(path, key)
        click.echo(f"Added {name} to {path}.", err=True)
    click.echo("This is the key. It is shown only now:", err=True)
    click.echo(token)


def show(path: Path) -> None:
    """Print each key's name and state, and the first digits of its digest."""
    for key in read_keys(path).keys:
        click.echo(f"{key.state:8}  {key.digest.hex()[:12]}…  {key.name}")


def set_state(name: str, path: Path, *, enabled: bool) -> None:
    """Enable or disable a key in the file, and leave every other line as it is."""
    keys = read_keys(path)
    old = _named(keys, name, path)
    new_line = Key(old.name, enabled, old.digest).as_line()
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    number = keys.lines[keys.keys.index(old)] - 1
    _, hash_sign, comment = lines[number].partition("#")
    lines[number] = f"{new_line}  #{comment}" if hash_sign else new_line
    _write(path, "\n".join(lines))
    click.echo(
        f"{name} is {'enabled' if enabled else 'disabled'}, for servers that start from now on or are told to reload.",
        err=True,
    )


def check(token: str, path: Path) -> None:
    """Say whose key this is and whether it is enabled; raises KeysError for one that the file does not have."""
    key = read_keys(path).find(token)
    if key is None:
        raise KeysError(f"{path} does not have this key.")
    click.echo(f"{key.name}: {key.state}")


def _named(keys: KeySet, name: str, path: Path) -> Key:
    key = keys.named(name)
    if key is None:
        raise KeysError(f"{path} has no key named {name!r}.")
    return key


def _append(path: Path, key: Key) -> None:
    text = path.read_text(encoding="utf-8-sig") if path.exists() else HEADING
    if text and not text.endswith("\n"):
        text += "\n"
    text += key.as_line() + "\n"
    parse_keys(text, path)  # a name that is there already is refused before anything is written
    _write(path, text)


def _write(path: Path, text: str) -> None:
    """Replace the file in one step, readable and writable by its owner alone where it is new."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    try:
        descriptor, unfinished = tempfile.mkstemp(dir=path.absolute().parent, prefix=".keys-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(unfinished, mode)
        os.replace(unfinished, path)
    except OSError as error:
        raise KeysError(f"The keys file {path} cannot be written: {error.strerror}.") from error
