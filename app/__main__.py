"""`python -m app` is the command `topthree`."""

from .commands.cli import main

main()
