"""The parts of an output folder: one file for each shard that has rows, written as a whole."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BatchStopped
from ..writing import replacing
from .rows import ERROR, PATH, Columns, Row
from .runs import Run
from .tables import read_table, write_table

_NUMBER = re.compile(r"part-(\d{5,})\.")


@dataclass(frozen=True)
class Parts:
    """The parts of a run in its folder; the lock of a shard must be held to write its part."""

    folder: Path
    run: Run

    def path(self, shard: int) -> Path:
        """Return the path of a shard's part."""
        return self.folder / f"part-{shard:05}.{self.run.format}"

    def all(self) -> list[Path]:
        """Return the parts that exist, in the order of their shards."""
        found = [path for path in self.folder.glob(f"part-*.{self.run.format}") if _NUMBER.match(path.name)]
        return sorted(found)

    def outcomes(self, shard: int) -> dict[str, str]:
        """Return the paths in a shard's part, each with the slug of its problem, empty if it was classified."""
        return {row[PATH]: row[ERROR] or "" for row in self._read(self.path(shard), PATH, ERROR)}

    def leftovers(self) -> dict[int, list[Path]]:
        """Return the unfinished files of parts, by shard; with the shard's lock held, they are of killed processes."""
        found = defaultdict(list)
        for path in self.folder.glob(".part-*"):
            if number := _NUMBER.match(path.name[1:]):
                found[int(number[1])].append(path)
        return found

    def remove(self, leftovers: Iterable[Path]) -> None:
        """Remove unfinished files; raises BatchStopped if that fails."""
        for path in leftovers:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise BatchStopped(f"{path} cannot be removed: {error.strerror}.") from error

    def write(self, shard: int, columns: Columns, rows: Sequence[Row], replaced: Collection[str]) -> None:
        """Write a shard's part: the rows that it has, except those of the paths `replaced`, and these.

        The part is on the disk when this returns. Raises BatchStopped if it cannot be written; the old one stays then.
        """
        path = self.path(shard)
        kept = (row for row in self._read(path) if row[PATH] not in replaced)
        try:
            with replacing(path, 0o644, is_synced=True) as out:
                write_table(out, self.run.format, columns.kinds, itertools.chain(kept, rows), self.run.digest)
        except OSError as error:
            raise BatchStopped(f"{path} cannot be written: {error.strerror or error}.") from error

    def _read(self, path: Path, *columns: str) -> Iterator[Row]:
        if path.exists():
            yield from read_table(path, self.run.format, columns, self.run.digest)
