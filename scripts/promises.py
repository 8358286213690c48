"""How a trial ends: which of its promises were broken, and its exit status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def broken_of(promises: Mapping[str, bool]) -> list[str]:
    """Return the sentences whose value is true."""
    return [sentence for sentence, is_broken in promises.items() if is_broken]


def verdict(broken: Sequence[str]) -> int:
    """Print the broken promises, and return the exit status: 0 if there are none."""
    for sentence in broken:
        print(f"broken: {sentence}")
    return int(bool(broken))
