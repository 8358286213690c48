"""`python -m app` is the command `topthree`."""

from .commands import cli

cli()
