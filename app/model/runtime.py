"""OpenVINO, imported by what computes and by what converts."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would send usage statistics to its makers.

    OpenVINO and NNCF do without the package `openvino_telemetry` where it cannot be imported.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return importlib.import_module("openvino")
