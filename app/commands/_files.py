"""Files that commands write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, mode: int) -> Iterator[IO[bytes]]:
    """Yield a new file that replaces the one at `path` at the end of the block, with these permissions.

    If the block or the writing fails, nothing is left of it, and the old file stays. Raises OSError.
    """
    with tempfile.NamedTemporaryFile(dir=path.absolute().parent, prefix=f".{path.name}-", delete=False) as out:
        try:
            yield out.file
            out.flush()
            os.fchmod(out.fileno(), mode)
            os.replace(out.name, path)
        finally:
            Path(out.name).unlink(missing_ok=True)  # it still exists only if writing failed
