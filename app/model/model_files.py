"""Model files that serve as they are: ONNX, or OpenVINO's IR, whose input is a crop of uint8 RGB.

OpenVINO reads both, so that neither torch nor onnx is needed. The names, calibration and geometry that 'topthree
export' writes into the metadata are used; a file without them takes the centre of photos, and has ImageNet's names if
it has 1000 classes. Heat maps need a feature map in the graph, embeddings need one or an output of their own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..photos.decoding import Geometry
from ..photos.protocol import MAX_CROP_SIDE
from .digests import file_sha256
from .facts import KEY, Facts, read_facts
from .graph_heads import read_graph_head
from .heads import head_bytes
from .labels import imagenet_labels, write_labels
from .records import FILE, ModelRecord
from .runtime import import_openvino
from .weights import Weights

SOURCE = "model file"
# torchvision's usual share of the short side.
_RESIZE, _CROP = 256, 224


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a model file, or, for an IR, of the digests of both its files; raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"TOPTHREE_MODEL names {path}, which is not a file.")
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and not weights.is_file():
        raise WeightsError(f"TOPTHREE_MODEL names {path}, but {weights.name}, its weights, is not beside it.")
    try:
        if path.suffix == ".onnx":
            return file_sha256(path)
        return hashlib.sha256((file_sha256(path) + file_sha256(weights)).encode()).hexdigest()
    except OSError as error:
        raise WeightsError(f"TOPTHREE_MODEL names {path}, which cannot be read: {error.strerror}.") from error


def read_model_file(path: Path) -> tuple[Any, Weights]:
    """Read and check a model file: return its graph, with outputs `logits` and perhaps `features`, and what serves it.

    Raises WeightsError, in one sentence, for a file that cannot serve.
    """
    digest = file_digest(path)
    openvino = import_openvino()
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise WeightsError(
            f"{path} cannot be read by OpenVINO: it is damaged or incomplete, or its operators or opset are unknown."
        ) from error
    side = _side(model, path)
    logits = _logits(model, path)
    graph = _as_served(openvino, model, logits, path)
    try:
        graph.clone().reshape([1, side, side, 3])
    except RuntimeError as error:
        raise WeightsError(f"{path} takes no single photo: its batch size is fixed.") from error
    facts = _facts(model, path, side, int(logits.partial_shape[1].get_length()))
    graph.set_rt_info(facts.to_json(), KEY)
    return graph, Weights(path, digest, _record(facts, path), SOURCE)


def save_model_file(path: Path, folder: Path) -> int:
    """Write the files of the artifact that serves a model file, and return how many classes it has."""
    graph, _ = read_model_file(path)
    import_openvino().save_model(graph, folder / "model.xml", compress_to_fp16=False)
    (folder / "classifier.npy").write_bytes(head_bytes(read_graph_head(graph)))
    return int(graph.output("logits").partial_shape[1].get_length())


def facts_of(graph: bytes) -> Facts | None:
    """Return the metadata of a prepared model file's graph, None without any."""
    import xml.etree.ElementTree as ET  # for model files alone

    found = ET.fromstring(graph).find(f"rt_info/{KEY}")
    text = found.get("value") if found is not None else None
    return read_facts(text, "the prepared model") if text else None


def labels_of(graph: bytes) -> bytes | None:
    """Return the names of the classes in the metadata of a graph, as the bytes of a labels file; None without any."""
    facts = facts_of(graph)
    return write_labels(facts.labels) if facts and facts.labels else None


def _side(model: Any, path: Path) -> int:
    """Return the side of the crop that a graph takes; raises WeightsError for any other input."""
    if len(model.inputs) != 1:
        raise WeightsError(f"{path} has {len(model.inputs)} inputs; only a model of one input, a crop, can serve.")
    kind, shape = model.input().element_type.get_type_name(), model.input().partial_shape
    if kind != "u8":
        raise WeightsError(
            f"{path} takes {kind} pixels, and only uint8 can serve: export it again with its normalisation inside."
        )
    wanted = "crops (n, side, side, 3)"
    if shape.rank.is_dynamic or len(shape) != 4 or shape[3].is_dynamic or shape[3].get_length() != 3:
        raise WeightsError(f"{path} takes an input of shape {shape}, and only {wanted} can serve.")
    if shape[1].is_dynamic or shape[2].is_dynamic:
        raise WeightsError(f"{path} takes pictures of any height and width; export it for {wanted} of one side.")
    height, width = shape[1].get_length(), shape[2].get_length()
    if height != width or height > MAX_CROP_SIDE:
        raise WeightsError(
            f"{path} takes pictures of {width}x{height} pixels, and only squares of at most {MAX_CROP_SIDE} can serve."
        )
    return int(height)


def _logits(model: Any, path: Path) -> Any:
    """Return the output of logits: the one of that name, or the only one there is."""
    named = [output for output in model.outputs if "logits" in output.get_names()]
    if not named and len(model.outputs) > 1:
        names = ", ".join(sorted(name for output in model.outputs for name in output.get_names())) or "without names"
        raise WeightsError(f"{path} has no output 'logits' (n, classes); its outputs are {names}.")
    found = named[0] if named else model.outputs[0]
    shape, kind = found.partial_shape, found.element_type.get_type_name()
    if kind != "f32" or shape.rank.is_dynamic or len(shape) != 2 or shape[1].is_dynamic or shape[1].get_length() < 2:
        raise WeightsError(f"{path} gives logits of shape {shape} in {kind}, and only float32 (n, classes) can serve.")
    if found.get_node().input_value(0).get_node().get_type_name() == "Softmax":
        raise WeightsError(f"{path} ends in a softmax: export it again without, so that it gives logits.")
    return found


def _as_served(openvino: Any, model: Any, logits: Any, path: Path) -> Any:
    """Return the graph of the logits and, unless the file gives logits alone, of the feature map."""
    outputs = {"logits": logits.get_node().input_value(0)}
    for name, rank in (("features", 4), ("embedding", 2)):
        found = next((output for output in model.outputs if name in output.get_names()), None)
        if found is None or "features" in outputs:
            continue
        shape = found.partial_shape
        if found.element_type.get_type_name() != "f32" or shape.rank.is_dynamic or len(shape) != rank:
            raise WeightsError(f"{path} gives {name} of shape {shape}, which cannot serve.")
        value = found.get_node().input_value(0)
        outputs["features"] = value if rank == 4 else _as_map(openvino.opset13, value)
    graph = openvino.Model(list(outputs.values()), model.get_parameters(), "served")
    for output, name in zip(graph.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    return graph


def _as_map(operations: Any, embedding: Any) -> Any:
    """Return the feature map whose mean an embedding (n, C) is, or the embedding as a map of one cell."""
    node = embedding.get_node()
    while node.get_type_name() in ("Reshape", "Squeeze"):
        node = node.input_value(0).get_node()
    if node.get_type_name() == "ReduceMean":
        source, axes = node.input_value(0), node.input_value(1).get_node()
        is_constant = axes.get_type_name() == "Constant"
        rank = source.partial_shape.rank
        if is_constant and not rank.is_dynamic and rank.get_length() == 4 and _axes(axes) == {2, 3}:
            return source
    return operations.unsqueeze(embedding, operations.constant([2, 3], dtype="int64")).output(0)


def _axes(constant: Any) -> set[int]:
    return {int(axis) % 4 for axis in constant.data.ravel()}


def _facts(model: Any, path: Path, side: int, classes: int) -> Facts:
    """Read the metadata of a file; without any, take the usual geometry and no names but ImageNet's."""
    place = next((place for place in ([KEY], ["framework", KEY]) if model.has_rt_info(place)), None)
    if place is None:
        labels = imagenet_labels() if classes == len(imagenet_labels()) else ()
        return Facts(path.stem, "", labels, Geometry(side * _RESIZE // _CROP, side))
    facts = read_facts(model.get_rt_info(place).astype(str), str(path))
    if facts.geometry.crop != side or (facts.labels and len(facts.labels) != classes):
        raise WeightsError(f"The metadata {KEY!r} of {path} is of a model with another input or other classes.")
    return facts


def _record(facts: Facts, path: Path) -> ModelRecord:
    return ModelRecord(
        name=f"{FILE}{facts.name.removeprefix(FILE)}",
        family=SOURCE,
        source="",
        sha256="",
        size_bytes=path.stat().st_size,
        size_slack=0,
        parameters=0,
        licence=facts.licence,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        top1=None,
        top5=None,
        temperature=facts.temperature,
        geometry=facts.geometry,
    )
