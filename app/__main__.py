"""`python -m app` is the command `topthree`."""

from .cli import main

main()
