"""Photos and processes for the tests of decoders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fakes import colour_png
from service_watch import parent_of
from waiting import wait_until

from app.photos.decoders import Decoders
from app.photos.decoding import Geometry
from app.photos.protocol import Wanted

MEBI = 2**20
PATIENCE_SECONDS = 60
WANTED = Wanted(Geometry(), 10_000_000)
PHOTO = colour_png(200, 100, 50)


def settled(pool: Decoders) -> list[int]:
    """Wait until the two decoders of a pool run; return their process ids."""
    wait_until(lambda: len(pool.pids) == 2 and all(Path(f"/proc/{pid}").exists() for pid in pool.pids))
    return pool.pids


@contextmanager
def replacing(pool: Decoders) -> Iterator[None]:
    """Expect that what is done within the context ends a decoder of a pool of two, and wait for the new one."""
    before = set(settled(pool))
    yield
    wait_until(lambda: len(pool.pids) == 2 and set(pool.pids) != before)


def fork_server_of(pool: Decoders) -> int:
    """Return the process id of the fork server of a pool of two."""
    return parent_of(settled(pool)[0])
