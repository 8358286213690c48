"""The command `topthree`: each module of this package whose name does not begin with _ is one of its commands.

The first line of a module is its entry in the list of commands, its whole docstring the command's help, and `command`
the command itself. A module is imported when its command is called, so `topthree --help` starts at once.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections import UserDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from ..errors import SettingsError, TopthreeError
from ..version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from ..settings import Settings

FOLDER = os.path.dirname(__file__)
INTERRUPTED = 130  # as shells expect after Ctrl-C: 128 plus the number of SIGINT


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
    files = (os.path.splitext(name) for name in os.listdir(FOLDER))
    return sorted(name for name, suffix in files if suffix == ".py" and not name.startswith("_"))


class Group(click.Group):
    """Report a failure of ours in one sentence, with an exit status of its own and without a traceback."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List every command with the first line of its module, whole and without importing it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(name)) for name in self.list_commands(ctx)])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line."""
        _prepare_output()
        try:
            return super().main(*args, **kwargs)
        except TopthreeError as error:
            click.ClickException(str(error)).show()
            raise SystemExit(error.exit_status) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
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
    with open(os.path.join(FOLDER, f"{name}.py"), encoding="utf-8") as module:
        return module.readline().strip().strip('"')


def read_settings(model: str = "", **values: str) -> Settings:
    """Read the settings from the environment; a model that is given replaces TOPTHREE_MODEL. Raises SettingsError.

    Other `values`, by the names of their settings, replace those of the environment.
    """
    from ..settings import Settings  # imported here, since it would take a third of the time of --help

    chosen = {"TOPTHREE_MODEL": model} if model else {}
    chosen |= {f"TOPTHREE_{name.upper()}": value for name, value in values.items()}
    return Settings.from_environment({**read_environment(), **chosen})


def settings_of_one_process(model: str = "") -> Settings:
    """Read the settings for a command that computes in its own process, which has all processors and no other one.

    Raises what `read_settings` raises.
    """
    return read_settings(model, workers="1")


def models_folder(settings: Settings) -> Path:
    """Return the folder of models of one's own; raises SettingsError if there is none."""
    if settings.models is None:
        raise SettingsError("The home folder cannot be found; set TOPTHREE_MODELS to the folder of your models.")
    return settings.models


model_option = click.option(
    "--model", default="", metavar="NAME", help="Model to use, published or your own (default: TOPTHREE_MODEL)."
)


def read_environment() -> Mapping[str, str]:
    """Return the environment variables of this process."""
    return os.environ


def plural(count: int, noun: str) -> str:
    """Write a number with its noun: 1 photo, 2 photos, 3 classes, 4 matches."""
    ending = "" if count == 1 else "es" if noun.endswith(("s", "ch")) else "s"
    return f"{count:,} {noun}{ending}"


class OutputFailed(TopthreeError):
    """Standard output cannot be written."""


class _Output(io.FileIO):
    """Standard output, with failures that differ from those of other files; a closed pipe is left to click."""

    has_failed = False

    def write(self, data: Any, /) -> int:
        if self.has_failed:  # the interpreter flushes once more when it ends
            return len(data)
        try:
            return super().write(data) or 0
        except OSError as error:
            self.has_failed = True
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputFailed(f"Standard output cannot be written: {error.strerror}.") from error


def _prepare_output() -> None:
    if sys.stdout is None:  # closed
        # A file that is open only for reading takes its descriptor, and fails in the same way.
        _replace_output(os.open(os.devnull, os.O_RDONLY), "utf-8")
    elif sys.__stdout__ is not None and sys.stdout is sys.__stdout__:  # tests have one of their own
        _replace_output(sys.stdout.fileno(), sys.stdout.encoding)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that is not UTF-8 is shown with escapes; JSON escapes it in its own way.
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None:  # closed; a file of ours must not get its descriptor, to which libraries write
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.set_inheritable(descriptor, True)
        sys.stderr = os.fdopen(descriptor, "w", encoding="utf-8")


def _replace_output(descriptor: int, encoding: str) -> None:
    buffer = io.BufferedWriter(_Output(descriptor, "w", closefd=False))
    sys.stdout = io.TextIOWrapper(buffer, encoding=encoding, line_buffering=os.isatty(descriptor))
