"""Progress bars on standard error, for commands that process many photos."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn


def progress_bar(*columns: ProgressColumn, is_wanted: bool = True, is_kept: bool = False) -> Progress:
    """Return a bar with a description, the number that is done, and further columns.

    It is shown only on a terminal, and disappears at its end unless `is_kept`.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        console=Console(stderr=True),
        disable=not (is_wanted and sys.stderr.isatty()),
        transient=not is_kept,
        # Rich would send to the terminal what is printed while the bar is shown, even if standard output is a file.
        redirect_stdout=False,
        redirect_stderr=False,
    )
