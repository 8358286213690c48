"""The import of OpenVINO, the same for engines and for conversion, and how a process ends that computes with it."""

from __future__ import annotations

import atexit
import importlib
import sys
import threading
from typing import Any

# A compilation takes a second or two; a process that ends waits no longer than this for one.
MAX_WAIT_SECONDS = 20.0


class Computing:
    """A `with` statement around calls of OpenVINO, which do not nest: a process that ends waits for them.

    A thread that came back from such a call to an interpreter that has ended would abort the process.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._is_over = False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_over)  # without end, since the process is ending
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def end(self) -> None:
        """Let no further call begin, and wait for those that have begun."""
        with self._changed:
            self._is_over = True
            self._changed.wait_for(lambda: not self._count, MAX_WAIT_SECONDS)


computing = Computing()
atexit.register(computing.end)


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would send usage statistics to its makers.

    OpenVINO and NNCF work without the package `openvino_telemetry`.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return importlib.import_module("openvino")
