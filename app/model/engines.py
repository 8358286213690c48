"""Engines of inference: a batch of crops in, logits and the last feature map out.

Softmax, top-k and names are left to the classifier, so that the numbers of two engines can be compared.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import WeightsError
from .artifact import Prepared
from .heads import Head, read_head
from .runtime import import_openvino
from .weights import Weights

if TYPE_CHECKING:
    import openvino

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

CPU_INFO = Path("/proc/cpuinfo")
GPU_DEVICE = Path("/dev/nvidiactl")


# Of a model file that gives logits alone.
_NO_FEATURES = np.zeros((0, 1, 1), np.float32)


@dataclass(frozen=True)
class Inference:
    """The result for n crops: `logits` (n, classes) and `features` (n, C, h, w), float32.

    C is 0 for a model file that gives logits alone.
    """

    logits: Floats
    features: Floats

    @functools.cached_property
    def embeddings(self) -> Floats:
        """Return the spatial means (n, C) of the features, computed once however many models use them."""
        return np.asarray(self.features.mean(axis=(2, 3)))


class Engine(Protocol):
    """A loaded model.

    `name` and `precision` are those of answers. `head` turns features into heat maps, and is None for a model without
    them; `grid` is the features' height and width. `batches` is true if photos are faster together than one by one.
    """

    name: str
    precision: str
    batches: bool
    head: Head | None
    grid: tuple[int, int]

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch of shape (n, side, side, 3); `alone` allows it to use every processor."""


class OpenVINOEngine:
    """The fast engine on a CPU, from a prepared model.

    For a request that is alone, one graph spreads a photo over `threads_alone` threads, one for each processor there
    is. For concurrent requests there are `cpus` graphs of one thread each, one for each processor of this process's
    share. A graph of one thread computes in the thread that calls it, so that a photo stays on its core.
    """

    name = "openvino"
    batches = False

    def __init__(self, prepared: Prepared, *, precision: str, cpus: int, threads_alone: int) -> None:
        core = import_openvino().Core()
        # From memory: these bytes were verified, and the files may have been replaced since.
        model = core.read_model(prepared.content["model.xml"], prepared.content["model.bin"])
        # Batches do not pay on a CPU, and a graph that knows its size computes int8 a tenth faster.
        model.reshape([1, *model.input().partial_shape[1:]])
        hint = "bf16" if precision == "bf16" else "f32"
        singles = [_compile(core, model, hint, threads=1) for _ in range(cpus)]
        whole = _compile(core, model, hint, threads=threads_alone) if threads_alone > 1 else singles[0]
        self.precision = _precision_of(singles[0], precision)
        self.head = read_head(prepared.content["classifier.npy"])
        self.compiled = {False: singles, True: [whole]}
        self._idle = {alone: _requests(graphs) for alone, graphs in self.compiled.items()}
        self.grid = self._compute_first(prepared.weights.record.geometry.crop)

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch of shape (n, side, side, 3); `alone` allows it to use every processor."""
        idle = self._idle[alone]
        request = idle.get()  # waits while every graph computes
        try:
            logits, features = zip(*(_infer_one(request, photo) for photo in batch), strict=True)
        finally:
            idle.put(request)
        return Inference(np.stack(logits), np.stack(features))

    def _compute_first(self, side: int) -> tuple[int, int]:
        """Use every graph once, before any other thread can, and return the features' height and width.

        OpenVINO's Python binding initialises itself at its first use without releasing the GIL: two threads that
        both use it first at the same time deadlock.
        """
        black = np.zeros((1, side, side, 3), np.uint8)
        for alone, graphs in self.compiled.items():
            for _ in graphs:
                features = self.infer(black, alone=alone).features
        return features.shape[2], features.shape[3]


def _precision_of(graph: Any, asked: str) -> str:
    """Return the precision in which a graph really computes: float32 on a processor without instructions for bf16."""
    if asked == "bf16" and "bfloat16" not in str(graph.get_property("INFERENCE_PRECISION_HINT")):
        log.warning("This processor cannot compute in bf16; the model computes in fp32 instead.")
        return "fp32"
    return asked


def _requests(graphs: Sequence[Any]) -> SimpleQueue[openvino.InferRequest]:
    idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()
    for graph in graphs:
        idle.put(graph.create_infer_request())
    return idle


def _infer_one(request: openvino.InferRequest, photo: Pixels) -> tuple[Floats, Floats]:
    results = request.infer([photo[None]], share_inputs=True, share_outputs=True)
    # The results are the request's own memory, which its next inference overwrites.
    features = results["features"][0].copy() if len(results) > 1 else _NO_FEATURES
    return results["logits"][0].copy(), features


def _compile(core: Any, model: Any, hint: str, *, threads: int) -> Any:
    config = {
        # By default OpenVINO computes in bfloat16 if the processor can, which changes the answers.
        "INFERENCE_PRECISION_HINT": hint,
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Pinned threads of two processes, or of two of our graphs, land on one core while others idle.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", config)


class TorchEngine:
    """The reference engine: PyTorch in eval and inference mode; on a GPU if there is one."""

    name = "torch"
    batches = True

    def __init__(self, weights: Weights, *, classes: int, precision: str, cpus: int) -> None:
        import torch

        from .backbones import load_backbone
        from .backbones.head_reading import read_head_of

        torch.set_num_threads(cpus)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.precision = precision
        if precision == "auto":
            self.precision = "bf16" if self.device == "cuda" else "fp32"
        backbone = load_backbone(weights, classes)
        side = weights.record.geometry.crop
        with torch.inference_mode():
            _, features = backbone(torch.zeros((1, side, side, 3), dtype=torch.uint8))
        self.head = read_head_of(backbone.head, features)
        self.grid = features.shape[2], features.shape[3]
        self._torch = torch
        self._backbone = backbone.to(self.device).to(memory_format=torch.channels_last)

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch of shape (n, side, side, 3)."""
        torch = self._torch
        half = torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), half:
            # torch accepts no read-only array, such as a view of a decoder's memory; such an array is copied.
            pixels = torch.from_numpy(np.require(batch, requirements="W"))
            logits, features = self._backbone(pixels.to(self.device))
        return Inference(logits.float().cpu().numpy(), features.float().cpu().numpy())


def choose_engine(asked: str) -> str:
    """Turn 'auto' into 'torch' on a machine with an NVIDIA GPU, else into 'openvino'."""
    if asked != "auto":
        return asked
    return "torch" if GPU_DEVICE.exists() else "openvino"


def choose_precision(asked: str, cpu_info: Path = CPU_INFO) -> str:
    """Turn 'auto' into 'bf16' if the processor multiplies bfloat16 matrices in hardware, else into 'fp32'.

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
    """Raise WeightsError for labels that name another number of classes than the model has."""
    if prepared.manifest.classes != classes:
        raise WeightsError(
            f"The model has {prepared.manifest.classes} classes, but the labels name {classes}; "
            "set TOPTHREE_LABELS to a file with one name for each class."
        )
