"""The sentences for a cache that cannot be written; a full disk has its own."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

# Of an OSError: a full disk, or a spent quota.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def is_full(folder: Path, error: Exception, needed_bytes: int) -> bool:
    """Return whether a failure to write below a folder, which must exist, comes from a full disk or a spent quota.

    OpenVINO gives no reason and removes what it has written, so the free space is compared with what is needed.
    """
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    try:
        return shutil.disk_usage(folder).free < needed_bytes
    except OSError:
        return False


def no_room(folder: Path) -> str:
    """Return the sentence for a folder of the cache whose disk is full."""
    return f"There is no room in {folder}: its disk is full. Set TOPTHREE_CACHE to a folder on a disk with more room."


def not_writable(folder: Path, error: OSError) -> str:
    """Return the sentence for a folder of the cache that cannot be written."""
    if error.errno in NO_ROOM:
        return no_room(folder)
    return (
        f"The folder {folder} cannot be written: {error.strerror or error}. "
        "Set TOPTHREE_CACHE to a folder that can be written."
    )
