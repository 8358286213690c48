"""The head of a graph is found by what the graph computes, and left out where heat maps would be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from app.model.graph_heads import read_graph_head
from app.model.heads import head_bytes, of_length_one, read_head
from app.model.runtime import import_openvino

CHANNELS, CLASSES, CELLS = 6, 5, 4
NUMBERS = np.random.default_rng(0)
WEIGHT = NUMBERS.normal(size=(CLASSES, CHANNELS)).astype(np.float32)
BIAS = NUMBERS.normal(size=(1, CLASSES)).astype(np.float32)
COLOURS = NUMBERS.normal(size=(3, CHANNELS)).astype(np.float32)

# The operations, the map (n, C, h, w) and the pixels (n, 3, side, side) to logits.
MakeHead = Callable[[Any, Any, Any], Any]


def graph_of(head: MakeHead, *, cells: int = CELLS) -> Any:
    """Make a graph whose feature map has `cells` rows and columns of colours."""
    openvino = import_openvino()
    ops = openvino.opset13
    pixels = ops.parameter([-1, 32, 32, 3], np.uint8, name="pixels")
    mixed = ops.matmul(ops.convert(pixels, np.float32), ops.constant(COLOURS / 255), False, False)
    planes = ops.transpose(mixed, ops.constant([0, 3, 1, 2], dtype="int64"))
    size = 32 // cells
    features = ops.avg_pool(planes, [size, size], [0, 0], [0, 0], [size, size], True)
    graph = openvino.Model([head(ops, features, planes), features], [pixels], "test")
    for output, name in zip(graph.outputs, ("logits", "features"), strict=True):
        output.get_tensor().set_names({name})
    return graph


def mean(ops: Any, features: Any) -> Any:
    return ops.reduce_mean(features, ops.constant([2, 3], dtype="int64"), False)


def linear(ops: Any, values: Any) -> Any:
    return ops.add(ops.matmul(values, ops.constant(WEIGHT), False, True), ops.constant(BIAS))


def pooled(ops: Any, features: Any, planes: Any) -> Any:
    return linear(ops, mean(ops, features))


def of_unit_length(ops: Any, features: Any, planes: Any) -> Any:
    values = mean(ops, features)
    return linear(ops, ops.normalize_l2(values, ops.constant([1], dtype="int64"), 1e-12, "max"))


def with_relu(ops: Any, features: Any, planes: Any) -> Any:
    return linear(ops, ops.relu(mean(ops, features)))


def of_the_largest_cell(ops: Any, features: Any, planes: Any) -> Any:
    return linear(ops, ops.reduce_max(features, ops.constant([2, 3], dtype="int64"), False))


def of_the_pixels_too(ops: Any, features: Any, planes: Any) -> Any:
    return linear(ops, ops.add(mean(ops, features), mean(ops, planes)))


@pytest.mark.parametrize(("head", "unit_length"), [(pooled, False), (of_unit_length, True)])
def test_the_matrix_of_a_linear_head_is_found(head: MakeHead, unit_length: bool) -> None:
    found = read_graph_head(graph_of(head))
    assert found is not None
    assert found.unit_length is unit_length
    assert np.abs(found.weight - WEIGHT).max() < 1e-5
    again = read_head(head_bytes(found))
    assert again is not None
    assert again.unit_length is unit_length
    features = NUMBERS.normal(size=(CHANNELS, CELLS, CELLS)).astype(np.float32)
    means = features.mean(axis=(1, 2))
    expected = WEIGHT @ (of_length_one(means) if unit_length else means)
    assert np.abs(again.logits(features) - expected).max() < 1e-5


@pytest.mark.parametrize("head", [with_relu, of_the_largest_cell, of_the_pixels_too])
def test_a_head_of_another_form_has_no_heat_maps(head: MakeHead) -> None:
    assert read_graph_head(graph_of(head)) is None


def test_a_map_of_one_cell_has_no_heat_maps() -> None:
    assert read_graph_head(graph_of(pooled, cells=1)) is None
