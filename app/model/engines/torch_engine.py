"""PyTorch's engine: on a GPU with CUDA graphs, pinned memory and weights of half the size; on a CPU the reference.

A CUDA graph is a recorded sequence of kernels with fixed addresses, which one call starts; without one, starting
ResNet-18's kernels takes longer than computing a photo. There is a graph for each batch size of a ladder, and a batch
uses the first that it fits into.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ..backbones import Backbone, load_backbone
from ..backbones.head_reading import read_head_of
from ..heads import Floats
from ..weights import Weights
from .base import Inference, Pixels

log = logging.getLogger(__name__)

# The sizes for which there is a graph. On an H200 a photo of a batch of 32 takes 39 microseconds in bf16, of 128 31:
# larger batches gain little, and 128 would take 0.4 GB more of the GPU's memory.
LADDER = (1, 2, 4, 8, 16, 32, 64)
# Larger crops, of which a batch of 64 would take a GB, come in smaller batches.
_LARGE_SIDE, _LARGE_BATCH = 300, 16
# cuDNN chooses its kernels, and torch allocates its memory, in the first runs; none of that may be recorded.
_WARM_UPS = 3

_TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class TorchEngine:
    """A model in eval and inference mode, in one of four precisions; 'auto' is bf16 on a GPU and fp32 on a CPU.

    `stage` is memory for the next batch, uint8 of shape (max_batch, side, side, 3), from which a GPU reads directly.
    A caller that fills it itself and calls `run` saves a copy, and must be the only one that uses the engine.
    """

    name = "torch"
    batches = True

    def __init__(self, weights: Weights, *, classes: int, precision: str, cpus: int) -> None:
        torch.set_num_threads(cpus)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.precision = precision
        if precision == "auto":
            self.precision = "bf16" if self.device == "cuda" else "fp32"
        self.device_name = torch.cuda.get_device_name() if self.device == "cuda" else "the CPU"
        self._type = _TYPES[self.precision]
        if self.device == "cuda":  # elsewhere it changes nothing, but keeps torch from exporting a model
            _allow_tf32(self.precision == "tf32")
        backbone = load_backbone(weights, classes)
        side = weights.record.geometry.crop
        with torch.inference_mode():
            _, features = backbone(torch.zeros((1, side, side, 3), dtype=torch.uint8))
        self.head = read_head_of(backbone.head, features)
        self.channels, self.grid = features.shape[1], (features.shape[2], features.shape[3])
        self._backbone = self._place(backbone)
        self._lock = threading.Lock()
        self.max_batch = LADDER[-1] if side <= _LARGE_SIDE else _LARGE_BATCH
        shape = (self.max_batch, side, side, 3)
        self._staged = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device == "cuda")
        self.stage: Pixels = self._staged.numpy()
        self._graphs = self._record_graphs(shape) if self.device == "cuda" else None

    def _place(self, backbone: Backbone) -> Backbone:
        """Move a model to the device in its precision; what normalises pixels stays in float32."""
        backbone = backbone.to(self.device)
        backbone.features.to(self._type, memory_format=torch.channels_last)  # type: ignore[call-overload]
        backbone.head.to(self._type)
        return backbone

    def _record_graphs(self, shape: tuple[int, int, int, int]) -> _Graphs | None:
        try:
            return _Graphs(self, shape)
        except RuntimeError as error:  # a network that reads its own results while it computes cannot be recorded
            log.warning("Computing without CUDA graphs: %s", str(error).partition("\n")[0])
            return None

    def forward(self, pixels: torch.Tensor) -> Tensors:
        """Map uint8 (n, side, side, 3) on the device to logits and pooled features, float32, and features."""
        features = self._backbone.features(self._backbone.normalise(pixels).to(self._type))
        logits = self._backbone.head(features)
        return logits.float(), features.float().mean(dim=(2, 3)), features

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch of shape (n, side, side, 3); any thread may call it."""
        with self._lock:
            parts = list(self._infer_parts(batch))
        logits, features, pooled = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Inference(logits, features, pooled)

    def _infer_parts(self, batch: Pixels) -> Iterator[tuple[Floats, Floats, Floats]]:
        for start in range(0, len(batch), self.max_batch):
            part = batch[start : start + self.max_batch]
            self.stage[: len(part)] = part
            found = self.run(len(part), features=True)
            yield found.logits.copy(), found.features.copy(), found.embeddings.copy()

    def put(self, start: int, crops: torch.Tensor) -> None:
        """Put crops that are on the device already, uint8 (n, side, side, 3), into the next batch."""
        (self._staged if self._graphs is None else self._graphs.input)[start : start + len(crops)].copy_(crops)

    @torch.inference_mode()
    def run(self, count: int, *, staged: int | None = None, features: bool = False) -> Inference:
        """Compute `count` crops; the result's arrays hold until the next run.

        The first `staged` of them, by default all, are in `stage`; the others were `put`.
        Features are fifty times as large as the other results, and copied from a GPU only if they are asked for.
        """
        if self._graphs is not None:
            logits, pooled, cells = self._graphs.run(
                self._staged[: count if staged is None else staged], count, features
            )
        else:
            logits, pooled, cells = self.forward(self._staged[:count].to(self.device, non_blocking=True))
        if not features:
            cells = cells.new_empty((count, self.channels, 0, 0))
        return Inference(logits.cpu().numpy(), cells.float().cpu().numpy(), pooled.cpu().numpy())

    def is_usable(self) -> bool:
        """Return whether the device still computes; after some errors of CUDA it does not until the process ends."""
        try:
            return bool(torch.ones(1, device=self.device).sum().item() == 1)
        except RuntimeError as error:
            log.critical("The device does not compute any more: %s", str(error).partition("\n")[0])
            return False


class _Graphs:
    """The CUDA graphs of an engine. All read the beginning of one tensor, and share their memory."""

    def __init__(self, engine: TorchEngine, shape: tuple[int, int, int, int]) -> None:
        self.input = torch.zeros(shape, dtype=torch.uint8, device=engine.device)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensors]] = {}
        # On one stream, since torch keeps memory for each; the largest first, whose memory the others use.
        stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        torch.backends.cudnn.benchmark = True
        for size in reversed([each for each in LADDER if each <= shape[0]]):
            self._graphs[size] = self._record(engine, size, stream, pool)
        self._sizes = sorted(self._graphs)
        logits, pooled, features = self._graphs[shape[0]][1]
        self._host: Tensors = (_pinned(logits), _pinned(pooled), _pinned(features))
        torch.backends.cudnn.benchmark = False  # for pictures of any size, which would be measured each
        torch.cuda.empty_cache()

    @torch.inference_mode()
    def _record(self, engine: TorchEngine, size: int, stream: Any, pool: Any) -> tuple[torch.cuda.CUDAGraph, Tensors]:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                engine.forward(self.input[:size])
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            outputs = engine.forward(self.input[:size])
        return graph, outputs

    def run(self, staged: torch.Tensor, count: int, features: bool) -> Tensors:
        """Compute `count` crops, of which the first come from pinned memory, and return results in pinned memory."""
        size = next(each for each in self._sizes if each >= count)
        graph, outputs = self._graphs[size]
        self.input[: len(staged)].copy_(staged, non_blocking=True)
        graph.replay()
        logits, pooled, cells = (
            host[:count].copy_(found[:count], non_blocking=True) if is_wanted else host[:count]
            for host, found, is_wanted in zip(self._host, outputs, (True, True, features), strict=True)
        )
        torch.cuda.current_stream().synchronize()
        return logits, pooled, cells


def exact_logits(weights: Weights, classes: int, device: str) -> Callable[[Pixels], Floats]:
    """Return a function that maps crops (n, side, side, 3) to logits in float32, one after the other."""
    backbone = load_backbone(weights, classes).to(device)

    @torch.inference_mode()
    def compute(crops: Pixels) -> Floats:
        return np.concatenate([backbone(torch.from_numpy(crop[None]).to(device))[0].cpu().numpy() for crop in crops])

    return compute


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)


def _allow_tf32(allowed: bool) -> None:
    """Choose how float32 is multiplied on a GPU: with TF32's 10 bits of mantissa, or with all 23."""
    precision = "tf32" if allowed else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
