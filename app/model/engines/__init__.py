"""Engines of inference: a batch of crops in, logits and the last feature map out.

Softmax, ranking and names are left to `verdicts`, so that the numbers of two engines can be compared. PyTorch's
engine is not imported here, since it imports torch: `torch_engine` has it.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import SettingsError, WeightsError
from ...processes.plan import choose_engine
from ..artifact import Prepared
from .base import Engine, Inference, Pixels
from .device import DeviceClient, DeviceEngine
from .openvino import OpenVINOEngine

__all__ = [
    "DeviceClient",
    "DeviceEngine",
    "Engine",
    "Inference",
    "OpenVINOEngine",
    "Pixels",
    "check_classes",
    "choose_engine",
    "choose_precision",
    "may_overflow",
]

CPU_INFO = Path("/proc/cpuinfo")
TORCH_PRECISIONS = ("tf32", "fp16")


def choose_precision(asked: str, cpu_info: Path = CPU_INFO) -> str:
    """Turn 'auto' into 'bf16' if the processor multiplies bfloat16 matrices in hardware, else into 'fp32'.

    That is Intel's AMX. AVX512_BF16 alone does not count: measured, it is slower than float32 (docs/performance.md).
    Raises SettingsError for a precision that OpenVINO does not have on a CPU.
    """
    if asked in TORCH_PRECISIONS:
        raise SettingsError(f"TOPTHREE_PRECISION={asked} needs a GPU, or TOPTHREE_ENGINE=torch.")
    if asked != "auto":
        return asked
    return "bf16" if " amx_bf16" in _flags(cpu_info) else "fp32"


def may_overflow(cpu_info: Path = CPU_INFO) -> bool:
    """Return whether int8 graphs may compute wrong sums here, since the processor adds products in 16 bits.

    That is an x86 processor without VNNI. Weights of 7 bits avoid it (OpenVINO's documentation, "Saturation Issue").
    """
    flags = _flags(cpu_info)
    return " avx2" in flags and "vnni" not in flags


def _flags(cpu_info: Path) -> str:
    try:
        return cpu_info.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def check_classes(prepared: Prepared, classes: int) -> None:
    """Raise WeightsError for labels that name another number of classes than the model has."""
    if prepared.manifest.classes != classes:
        raise WeightsError(
            f"The model has {prepared.manifest.classes} classes, but the labels name {classes}; "
            "set TOPTHREE_LABELS to a file with one name for each class."
        )
