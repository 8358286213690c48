"""Show how this machine's processors and memory would be used.

\b
Example:
  TOPTHREE_WORKERS=2 topthree plan
"""

from __future__ import annotations

from contextlib import closing

import click

from ..photos.decoders import Decoders
from ..processes.plan import describe_plan, make_plan
from ..processes.sandbox import describe
from . import read_settings


@click.command(help=__doc__)
def command() -> None:
    """Print the plan, and the limits that the sandbox of a decoder enforces on this machine."""
    planned = make_plan(read_settings())
    click.echo(describe_plan(planned))
    with closing(Decoders(1, max_bytes=1, memory_bytes=planned.photo_memory_bytes)) as decoders:
        click.echo(f"enforced in each decoder: {describe(decoders.start())}")
