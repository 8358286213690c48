"""From a torch backbone to the graph that serves."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import WeightsError
from ..facts import KEY
from ..heads import head_bytes
from ..runtime import import_openvino
from . import Backbone
from .head_reading import read_head_of

_JIT: Any = torch.jit  # which has no annotations


def write_graph(
    network: nn.Module, example: torch.Tensor, path: Path, outputs: tuple[str, str], facts: str = ""
) -> None:
    """Write a network as a float32 model of OpenVINO, for batches of any size of pixels shaped like the example.

    The input is named `pixels`, the results are named `outputs`, and `facts` becomes the metadata. The graph is that
    which OpenVINO makes of torch.export's program, in less than half the time. Raises WeightsError for a network that
    computes only as many photos at once as the example has.
    """
    openvino = import_openvino()
    with warnings.catch_warnings(), torch.no_grad():
        # Traced in TorchScript, sizes become constants: only the batch's must not, which is checked.
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)
        warnings.simplefilter("ignore", _JIT.TracerWarning)
        # OpenVINO would trace the network by itself, and then once more to compare, which takes longer than all else.
        traced = _JIT.trace(network, (example,), strict=False, check_trace=False)
        model = openvino.convert_model(traced, example_input=example)
    model.reshape([-1, *example.shape[1:]])
    if any(output.partial_shape[0].is_static for output in model.outputs):
        raise WeightsError("The network does not compute batches of any size.")
    model.inputs[0].get_tensor().set_names({"pixels"})
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    if facts:
        model.set_rt_info(facts, KEY)
    # By default save_model rounds the weights to 16 bits, which changes the answers.
    openvino.save_model(model, path, compress_to_fp16=False)


def save_graph(backbone: Backbone, side: int, folder: Path) -> None:
    """Trace a backbone and save it into `folder` as a float32 graph of OpenVINO, with the matrices of its head.

    The graph takes uint8 RGB of shape (n, side, side, 3). Raises WeightsError for a network without a feature map, or
    one that computes only as many photos at once as it was traced with.
    """
    example = torch.zeros((2, side, side, 3), dtype=torch.uint8)  # a batch of 1 would be taken for a constant
    with torch.no_grad():
        _, features = backbone(example[:1])
        if features.ndim != 4:
            raise WeightsError("The network has no feature map of channels, height and width.")
    write_graph(backbone, example, folder / "model.xml", ("logits", "features"))
    (folder / "classifier.npy").write_bytes(head_bytes(read_head_of(backbone.head, features)))
