"""OpenVINO, the fast engine on a CPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from ..artifact import Prepared
from ..heads import Floats, read_head
from ..runtime import computing, import_openvino
from .base import Inference, Pixels

if TYPE_CHECKING:
    import openvino

log = logging.getLogger(__name__)

# Of a model file that gives logits alone.
_NO_FEATURES = np.zeros((0, 1, 1), np.float32)


class OpenVINOEngine:
    """The fast engine on a CPU, from a prepared model.

    For a request that is alone, one graph spreads a photo over `threads_alone` threads, one for each processor there
    is. For concurrent requests there are `cpus` graphs of one thread each, one for each processor of this process's
    share. A graph of one thread computes in the thread that calls it, so that a photo stays on its core.
    """

    name = "openvino"
    batches = False

    def __init__(self, prepared: Prepared, *, precision: str, cpus: int, threads_alone: int) -> None:
        with computing:
            core = import_openvino().Core()
            # From memory: these bytes were verified, and the files may have been replaced since.
            model = core.read_model(prepared.content["model.xml"], prepared.content["model.bin"])
            # Batches do not pay on a CPU, and a graph that knows its size computes int8 a tenth faster.
            model.reshape([1, *model.input().partial_shape[1:]])
            hint = "bf16" if precision == "bf16" else "f32"
            singles = [_compile(core, model, hint, threads=1) for _ in range(cpus)]
            whole = _compile(core, model, hint, threads=threads_alone) if threads_alone > 1 else singles[0]
            self.precision = _precision_of(singles[0], precision)
            self.compiled = {False: singles, True: [whole]}
            self._idle = {alone: _requests(graphs) for alone, graphs in self.compiled.items()}
        self.head = read_head(prepared.content["classifier.npy"])
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
    with computing:
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
