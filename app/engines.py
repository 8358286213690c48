"""What computes: a batch of crops in, logits and the last feature map out.

Softmax, top-k and names are the classifier's, so that two engines can be compared on what they compute.
"""

from __future__ import annotations

import importlib
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import WeightsError
from .prepared import Prepared
from .weights import Weights

if TYPE_CHECKING:
    import openvino

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

CPU_INFO = Path("/proc/cpuinfo")
GPU_DEVICE = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class Inference:
    """What a model computed for n crops: `logits` (n, classes) and `features` (n, C, 7, 7), float32."""

    logits: Floats
    features: Floats


class Engine(Protocol):
    """A loaded model.

    `name` and `precision` tell how it computes; `class_weights` (classes, C) is the classifier's matrix.
    `batches` tells whether many photos at once are faster than one by one.
    """

    name: str
    precision: str
    batches: bool
    class_weights: Floats

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch of shape (n, 224, 224, 3); `alone` allows it to use every processor."""


class OpenVINOEngine:
    """The fast engine on a CPU, from a prepared model.

    Two graphs are compiled from one set of weights: one that spreads a photo over all processors, for a
    request that is alone, and one with a stream of one thread for each processor, for load.
    """

    name = "openvino"
    batches = False

    def __init__(self, prepared: Prepared, *, precision: str, cpus: int) -> None:
        core = import_openvino().Core()
        model = core.read_model(prepared.folder / "model.xml")
        hint = "bf16" if precision == "bf16" else "f32"
        streams = _compile(core, model, hint, streams=cpus, threads=cpus)
        whole = streams if cpus == 1 else _compile(core, model, hint, streams=1, threads=cpus)
        self.precision = precision
        self.class_weights: Floats = np.load(prepared.folder / "classifier.npy", mmap_mode="r")
        self.compiled = {False: streams, True: whole}
        self._requests = threading.local()

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch of shape (n, 224, 224, 3); `alone` allows it to use every processor."""
        request = self._request(alone)
        outputs = request.infer([batch], share_inputs=True, share_outputs=True)
        # The outputs are the request's own memory, which its next inference overwrites.
        return Inference(outputs["logits"].copy(), outputs["features"].copy())

    def _request(self, alone: bool) -> openvino.InferRequest:
        name = "whole" if alone else "stream"
        request = getattr(self._requests, name, None)
        if request is None:
            request = self.compiled[alone].create_infer_request()
            setattr(self._requests, name, request)
        return request


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would send usage statistics to its makers.

    OpenVINO and NNCF do without the package `openvino_telemetry` where it cannot be imported.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    return importlib.import_module("openvino")


def _compile(core: Any, model: Any, hint: str, *, streams: int, threads: int) -> Any:
    config = {
        # Left alone, OpenVINO computes in bfloat16 where the processor can, and other answers come out.
        "INFERENCE_PRECISION_HINT": hint,
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        # Pinned threads of two processes, or of our two graphs, land on the same core while others idle.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", config)


class TorchEngine:
    """The reference engine: PyTorch in eval and inference mode; on a GPU where there is one."""

    name = "torch"
    batches = True

    def __init__(self, weights: Weights, *, classes: int, precision: str, cpus: int) -> None:
        import torch

        from .backbones import load_backbone

        torch.set_num_threads(cpus)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.precision = precision
        if precision == "auto":
            self.precision = "bf16" if self.device == "cuda" else "fp32"
        backbone = load_backbone(weights, classes)
        self.class_weights: Floats = backbone.head.weight.detach().numpy().copy()
        self._torch = torch
        self._backbone = backbone.to(self.device).to(memory_format=torch.channels_last)

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch of shape (n, 224, 224, 3)."""
        torch = self._torch
        half = torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), half:
            logits, features = self._backbone(torch.from_numpy(batch).to(self.device))
        return Inference(logits.float().cpu().numpy(), features.float().cpu().numpy())


def choose_engine(asked: str) -> str:
    """Turn 'auto' into 'torch' on a machine with an NVIDIA GPU, else into 'openvino'."""
    if asked != "auto":
        return asked
    return "torch" if GPU_DEVICE.exists() else "openvino"


def choose_precision(asked: str, cpu_info: Path = CPU_INFO) -> str:
    """Turn 'auto' into 'bf16' where the processor multiplies bfloat16 matrices in hardware, else into 'fp32'.

    That is Intel's AMX. AVX512_BF16 alone does not count: measured, it is slower than float32 (docs/performance.md).
    """
    if asked != "auto":
        return asked
    try:
        flags = cpu_info.read_text(encoding="ascii", errors="replace")
    except OSError:
        return "fp32"
    return "bf16" if " amx_bf16" in flags else "fp32"


def check_classes(prepared: Prepared, classes: int) -> None:
    """Refuse labels that name another number of classes than the model has."""
    if prepared.manifest.classes != classes:
        raise WeightsError(
            f"The model has {prepared.manifest.classes} classes, but the labels name {classes}; "
            "set TOPTHREE_LABELS to a file with one name for each class."
        )
