"""From a torch backbone to the graph that serves."""

from __future__ import annotations

from pathlib import Path

import torch

from ...errors import WeightsError
from ..heads import head_bytes
from ..runtime import import_openvino
from . import Backbone
from .head_reading import read_head_of


def save_graph(backbone: Backbone, side: int, folder: Path) -> None:
    """Trace a backbone and save it into `folder` as a float32 graph of OpenVINO, with the matrices of its head.

    The graph takes uint8 RGB of shape (n, side, side, 3). Raises WeightsError for a network without a feature map.
    """
    openvino = import_openvino()
    example = torch.zeros((2, side, side, 3), dtype=torch.uint8)  # a batch of 1 would be taken for a constant
    with torch.no_grad():
        _, features = backbone(example[:1])
        if features.ndim != 4:
            raise WeightsError("The network has no feature map of channels, height and width.")
        program = torch.export.export(backbone, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    model = openvino.convert_model(program)
    model.reshape([-1, side, side, 3])
    model.inputs[0].get_tensor().set_names({"pixels"})
    for output, name in zip(model.outputs, ("logits", "features"), strict=True):
        output.get_tensor().set_names({name})
    # By default save_model rounds the weights to 16 bits, which changes the answers.
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    (folder / "classifier.npy").write_bytes(head_bytes(read_head_of(backbone.head, features)))
