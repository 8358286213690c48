"""The command `topthree`: each module of this package whose name does not begin with _ is one of its commands.

The first line of a module is its entry in the list of commands, its whole docstring the command's help, and `command`
the command itself. A module is imported when its command is called, so `topthree --help` starts at once.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..errors import TopthreeError
from ..settings import Settings, SettingsError
from ..version import __version__

FOLDER = Path(__file__).parent
INTERRUPTED = 130  # what a shell expects after Ctrl-C: 128 and the number of SIGINT


class Modules(UserDict[str, click.Command]):
    """The commands by name, which is their module's; a module is imported when its command is looked up."""

    def __missing__(self, name: str) -> click.Command:
        if name not in self:
            raise KeyError(name)
        command: click.Command = importlib.import_module(f".{name}", __name__).command
        self.data[name] = command
        return command

    def __contains__(self, name: object) -> bool:
        return name in _names()

    def __iter__(self) -> Iterator[str]:
        return iter(_names())

    def __len__(self) -> int:
        return len(_names())


def _names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


class Group(click.Group):
    """Report a failure of ours in one sentence, with an exit status of its own and without a traceback."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List every command with the first line of its module, whole and without importing it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(name)) for name in self.list_commands(ctx)])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; a standard output that is full or closed is one sentence too."""
        with _checked_output():
            return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        except SettingsError as error:
            raise click.UsageError(str(error)) from error
        except TopthreeError as error:
            click.ClickException(str(error)).show()
            raise SystemExit(error.exit_status) from error
        finally:
            # Flush here: click handles a closed pipe quietly, the interpreter's shutdown does not.
            sys.stdout.flush()


@click.group(cls=Group, commands=Modules(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="topthree")
def cli() -> None:
    """Name what is in a photo: the three most likely of ImageNet's 1000 classes.

    \b
    Examples:
      topthree serve
      topthree predict cat.jpg
    """


def summary(name: str) -> str:
    """Return the first line of a command's module, in which its docstring begins."""
    with (FOLDER / f"{name}.py").open(encoding="utf-8") as module:
        return module.readline().strip().strip('"')


def read_settings() -> Settings:
    """Read the settings from the environment; raises SettingsError, which is a usage error on the command line."""
    return Settings.from_environment(os.environ)


def plural(count: int, noun: str) -> str:
    """Write a number with its noun: 1 photo, 2 photos, 3 classes."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


@contextmanager
def _checked_output() -> Iterator[None]:
    if sys.stdout is None:
        # It was closed before the start. A file that is only open for reading fails as a closed one does, and no other
        # file can take its number.
        sys.stdout = open(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that is not UTF-8 is shown with escapes; JSON escapes it in its own way.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except OSError as error:
        if not _is_output_broken():
            raise
        click.echo(f"Error: Standard output cannot be written: {os.strerror(error.errno or errno.EIO)}.", err=True)
        raise SystemExit(1) from error


def _is_output_broken() -> bool:
    """Return whether standard output cannot be written; if so, send what is left in its buffer nowhere."""
    try:
        sys.stdout.flush()
    except OSError:
        # The interpreter flushes once more when it ends, and would report that in many lines.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
