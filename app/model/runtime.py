"""The import of OpenVINO, the same for engines and for conversion."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would send usage statistics to its makers.

    OpenVINO and NNCF work without the package `openvino_telemetry`.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return importlib.import_module("openvino")
