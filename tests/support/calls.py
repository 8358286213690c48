"""Calls of functions that a test counts."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


def count_calls(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[str]:
    """Return a list to which each call of a module's function, which still does its work, adds the name."""
    function = getattr(module, name)
    calls: list[str] = []

    def counted(*arguments: Any) -> Any:
        calls.append(name)
        return function(*arguments)

    monkeypatch.setattr(module, name, counted)
    return calls
