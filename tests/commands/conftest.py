"""Commands that run in the tests' own process share its decoders."""

from __future__ import annotations

import pytest
from fakes import share_decoders


@pytest.fixture(autouse=True)
def shared_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no decoders for a single call; `test_cli` and `tests/live` run commands with decoders of their own."""
    share_decoders(monkeypatch)
