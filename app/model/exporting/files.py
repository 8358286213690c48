"""The files of exported models: how that of each format is written, and how it is computed again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import WeightsError
from ..backbones.converting import write_graph
from ..engines import Pixels
from ..facts import KEY
from ..heads import Floats
from ..runtime import import_openvino

INPUT, OUTPUTS = "pixels", ("logits", "embedding")
_JIT: Any = torch.jit  # which has no annotations

# One photo's crop (1, side, side, 3) to its logits (1, classes) and embedding (1, C).
Run = Callable[[Pixels], tuple[Floats, Floats]]


class WithEmbedding(nn.Module):
    """Map pixels to logits and embedding, which is the spatial mean of the features, with a backbone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map uint8 RGB (n, side, side, 3) to logits (n, classes) and embedding (n, C)."""
        logits, features = self.backbone(pixels)
        return logits, features.mean(dim=(2, 3))


class WithOwnHead(nn.Module):
    """Map pixels to the logits of a model of one's own and the embedding, with its backbone.

    `weight` (classes, C) and `bias` (classes) are those of its head, which takes embeddings of length 1 (L2).
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, backbone: nn.Module, weight: Floats, bias: Floats) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("weight", torch.from_numpy(weight.copy()))
        self.register_buffer("bias", torch.from_numpy(bias.copy()))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map uint8 RGB (n, side, side, 3) to logits (n, classes) and embedding (n, C)."""
        _, features = self.backbone(pixels)
        embedding = features.mean(dim=(2, 3))
        return nn.functional.linear(nn.functional.normalize(embedding), self.weight, self.bias), embedding


def _program(network: nn.Module, example: torch.Tensor) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def _write_onnx(network: nn.Module, example: torch.Tensor, facts: str, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401 torch's exporter needs it
    except ImportError as error:
        raise WeightsError("--to onnx needs onnx, onnxscript and onnxruntime: pip install -e '.[export]'") from error
    program = torch.onnx.export(
        _program(network, example), input_names=[INPUT], output_names=list(OUTPUTS), dynamo=True, verbose=False
    )
    assert program is not None
    program.model.metadata_props[KEY] = facts
    program.save(str(path))


def _load_onnx(path: Path) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise WeightsError("--to onnx needs onnx, onnxscript and onnxruntime: pip install -e '.[export]'") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(crop: Pixels) -> tuple[Floats, Floats]:
        logits, embedding = session.run(list(OUTPUTS), {INPUT: crop})
        return logits, embedding

    return run


def _write_openvino(network: nn.Module, example: torch.Tensor, facts: str, path: Path) -> None:
    write_graph(network, example, path, OUTPUTS, facts)


def _load_openvino(path: Path) -> Run:
    # By default OpenVINO computes in bfloat16 if the processor can, which changes the answers.
    model = import_openvino().Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(crop: Pixels) -> tuple[Floats, Floats]:
        results = model([crop])
        return results["logits"].copy(), results["embedding"].copy()

    return run


def _write_pt2(network: nn.Module, example: torch.Tensor, facts: str, path: Path) -> None:
    torch.export.save(_program(network, example), path, extra_files={KEY: facts})


def _load_pt2(path: Path) -> Run:
    return _of_torch(torch.export.load(path).module())


def _write_torchscript(network: nn.Module, example: torch.Tensor, facts: str, path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)
        torch.jit.save(_JIT.trace(network, (example,), check_trace=False), path, _extra_files={KEY: facts})


def _load_torchscript(path: Path) -> Run:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)
        return _of_torch(_JIT.load(path))


def _of_torch(network: Any) -> Run:
    def run(crop: Pixels) -> tuple[Floats, Floats]:
        return infer(network, crop)

    return run


def infer(
    network: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], crops: Pixels
) -> tuple[Floats, Floats]:
    """Compute the logits and embeddings of crops (n, side, side, 3) with torch."""
    with torch.inference_mode():
        logits, embedding = network(torch.from_numpy(np.require(crops, requirements="W")))
    return logits.numpy(), embedding.numpy()


WRITE: dict[str, Callable[[nn.Module, torch.Tensor, str, Path], None]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "pt2": _write_pt2,
    "torchscript": _write_torchscript,
}
"""How each of `FORMATS` is written: from the network, an example (2, side, side, 3), the metadata and the path."""

LOAD: dict[str, Callable[[Path], Run]] = {
    "onnx": _load_onnx,
    "openvino": _load_openvino,
    "pt2": _load_pt2,
    "torchscript": _load_torchscript,
}
"""How each is computed again."""
