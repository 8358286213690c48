"""The head of a model file: the part of its graph after the feature map, known by what it computes.

Its matrix is found by feeding maps of one channel, and its form is checked on random maps: a graph has no names that
say which of its layers are the head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .heads import Floats, Head, of_length_one
from .runtime import import_openvino

# How far the logits of the matrix may be from the graph's own, as a share of the largest.
_TOLERANCE = 1e-3
_CHUNK_BYTES = 2**24
_CHECKS = 3

# Feature maps (n, C, h, w) and pixels (n, side, side, 3) to logits (n, classes).
Pixels = npt.NDArray[np.uint8]
_Run = Callable[[Floats, Pixels], Floats]


def read_graph_head(graph: Any) -> Head | None:
    """Read the head of a graph with the outputs `logits` and `features`, if it has heat maps.

    That is one linear layer after the mean of all cells, divided by its length (L2) or not. Returns None for a head of
    another form, one that uses more than the map, and for a graph without a map of several cells.
    """
    if len(graph.outputs) < 2:
        return None
    shape = list(graph.output("features").partial_shape)[1:]
    if any(size.is_dynamic for size in shape):
        return None
    channels, height, width = (size.get_length() for size in shape)
    if height * width == 1:
        return None
    run, side = _after_features(graph), graph.input().partial_shape[1].get_length()
    black = np.zeros((1, side, side, 3), np.uint8)
    bias = run(np.zeros((1, channels, height, width), np.float32), black)[0]
    weight = _matrix(lambda maps: run(maps, black.repeat(len(maps), axis=0)) - bias, (channels, height, width))
    numbers = np.random.default_rng(0)
    maps = numbers.standard_normal((_CHECKS, channels, height, width)).astype(np.float32)
    expected = run(maps, numbers.integers(0, 256, (_CHECKS, side, side, 3), np.uint8)) - bias
    means = maps.mean(axis=(2, 3))
    for unit_length, pooled in ((False, means), (True, of_length_one(means))):
        if np.abs(pooled @ weight.T - expected).max() <= _TOLERANCE * np.abs(expected).max():
            return Head(weight, unit_length=unit_length)
    return None


def _after_features(graph: Any) -> _Run:
    """Compile the part of a graph after the feature map; it takes the pixels too, of whose shape it may make use."""
    openvino = import_openvino()
    copy = graph.clone()
    source = copy.output("features").get_node().input_value(0)
    features = openvino.opset13.parameter(source.partial_shape, np.float32)
    for target in source.get_target_inputs():
        target.replace_source_output(features.output(0))
    logits = copy.output("logits").get_node().input_value(0)
    head = openvino.Model([logits], [features, *copy.get_parameters()], "head")
    compiled = openvino.Core().compile_model(head, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda maps, pixels: np.asarray(compiled([maps, pixels])[0], np.float32).copy()


def _matrix(run: Callable[[Floats], Floats], shape: tuple[int, int, int]) -> Floats:
    """Return the matrix (classes, C) of a head by its answers, without the bias, to maps of which one channel is 1."""
    channels, height, width = shape
    count = max(1, _CHUNK_BYTES // (4 * channels * height * width))
    rows = []
    for start in range(0, channels, count):
        maps = np.zeros((min(count, channels - start), channels, height, width), np.float32)
        maps[np.arange(len(maps)), start + np.arange(len(maps))] = 1
        rows.append(run(maps))
    return np.ascontiguousarray(np.concatenate(rows).T)
