"""The head of a model file: the part of its graph after the feature map, known by what it computes.

Its matrix is found by feeding maps of one channel, and its form is checked on random maps: a graph has no names that
say which of its layers are the head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .heads import Floats, Head, of_length_one
from .runtime import import_openvino

# How far the logits of the matrix may be from the graph's own, as a share of the largest.
_TOLERANCE = 1e-3
_CHUNK_BYTES = 2**24
_CHECKS = 3

# Feature maps (n, C, h, w) to logits (n, classes).
_Run = Callable[[Floats], Floats]


def read_graph_head(graph: Any) -> Head | None:
    """Read the head of a graph with the outputs `logits` and `features`, if it has heat maps.

    That is one linear layer after the mean of all cells, divided by its length (L2) or not. Returns None for a head of
    another form, and for a graph without a map of several cells.
    """
    if len(graph.outputs) < 2:
        return None
    shape = graph.output("features").partial_shape
    if any(size.is_dynamic for size in list(shape)[1:]):
        return None
    channels, height, width = (size.get_length() for size in list(shape)[1:])
    run = _after_features(graph) if height * width > 1 else None
    if run is None:
        return None
    bias = run(np.zeros((1, channels, height, width), np.float32))[0]
    weight = _matrix(run, bias, (channels, height, width))
    maps = np.random.default_rng(0).standard_normal((_CHECKS, channels, height, width)).astype(np.float32)
    expected, means = run(maps), maps.mean(axis=(2, 3))
    for unit_length, pooled in ((False, means), (True, of_length_one(means))):
        error = np.abs(pooled @ weight.T + bias - expected).max()
        if error <= _TOLERANCE * np.abs(expected - bias).max():
            return Head(weight, unit_length=unit_length)
    return None


def _after_features(graph: Any) -> _Run | None:
    """Compile the part of a graph after the feature map; None if its logits do not depend on the map alone."""
    openvino = import_openvino()
    copy = graph.clone()
    source = copy.output("features").get_node().input_value(0)
    features = openvino.opset13.parameter(source.partial_shape, np.float32)
    for target in source.get_target_inputs():
        target.replace_source_output(features.output(0))
    try:
        head = openvino.Model([copy.output("logits").get_node().input_value(0)], [features], "head")
    except RuntimeError:  # the pixels are a parameter of it too
        return None
    compiled = openvino.Core().compile_model(head, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda maps: np.asarray(compiled([maps])[0], np.float32).copy()


def _matrix(run: _Run, bias: Floats, shape: tuple[int, int, int]) -> Floats:
    """Return the matrix (classes, C) of a head by its answers to maps in which one channel is 1."""
    channels, height, width = shape
    count = max(1, _CHUNK_BYTES // (4 * channels * height * width))
    rows = []
    for start in range(0, channels, count):
        maps = np.zeros((min(count, channels - start), channels, height, width), np.float32)
        maps[np.arange(len(maps)), start + np.arange(len(maps))] = 1
        rows.append(run(maps) - bias)
    return np.ascontiguousarray(np.concatenate(rows).T)
