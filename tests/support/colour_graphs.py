"""Small model files: graphs of OpenVINO's whose embedding is the mean colour of a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from app.model.facts import KEY
from app.model.runtime import import_openvino

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)


def save_graph(
    folder: Path,
    *,
    kind: Any = np.uint8,
    shape: Any = (-1, 32, 32, 3),
    outputs: tuple[str, ...] = ("logits", "embedding"),
    facts: str = "",
    softmax: bool = False,
) -> Path:
    """Write an IR of four classes whose embedding is the mean colour; `outputs` names logits and embedding."""
    openvino = import_openvino()
    operations = openvino.opset13
    pixels = operations.parameter(list(shape), kind, name="pixels")
    values = operations.convert(pixels, np.float32)
    embedding = operations.reduce_mean(
        values, operations.constant([1, 2] if shape[3] in (3, -1) else [2, 3], dtype="int64"), False
    )
    logits = operations.matmul(embedding, operations.constant(WEIGHT), False, True)
    if softmax:
        logits = operations.softmax(logits, 1)
    model = openvino.Model([logits, embedding][: len(outputs)], [pixels], "colours")
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    if facts:
        model.set_rt_info(facts, KEY)
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"
