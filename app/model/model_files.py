"""Model files that serve as they are: ONNX, or OpenVINO's IR, whose input is a crop of uint8 RGB.

OpenVINO reads both, so that neither torch nor onnx is needed. The names, temperature and geometry that 'topthree
export' writes into the metadata are used; a file without them takes the centre of photos, and has ImageNet's names if
it has 1000 classes.
"""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..photos.decoding import Geometry
from ..photos.protocol import MAX_CROP_SIDE
from .digests import file_sha256
from .facts import KEY, Facts, read_facts
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
    """Read and check a model file: return its graph, with outputs `logits` and `features`, and what serves it.

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
    outputs = {name: output for output in model.outputs for name in output.get_names()}
    classes = _classes(outputs, path)
    graph = _with_features(openvino, model, outputs, path)
    try:
        graph.clone().reshape([1, side, side, 3])
    except RuntimeError as error:
        raise WeightsError(f"{path} takes no single photo: its batch size is fixed.") from error
    facts = _facts(model, path, side, classes)
    graph.set_rt_info(facts.to_json(), KEY)
    return graph, Weights(path, digest, _record(facts, path), SOURCE)


def save_model_file(path: Path, folder: Path) -> int:
    """Write the files of the artifact that serves a model file, and return how many classes it has."""
    graph, _ = read_model_file(path)
    import_openvino().save_model(graph, folder / "model.xml", compress_to_fp16=False)
    (folder / "classifier.npy").write_bytes(head_bytes(None))
    return int(graph.output("logits").partial_shape[1].get_length())


def labels_of(graph: bytes) -> bytes | None:
    """Return the names of the classes in the metadata of a graph, as the bytes of a labels file; None without any."""
    found = ET.fromstring(graph).find(f"rt_info/{KEY}")
    text = found.get("value") if found is not None else None
    labels = read_facts(text, "the prepared model").labels if text else ()
    return write_labels(labels) if labels else None


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


def _classes(outputs: dict[str, Any], path: Path) -> int:
    if "logits" not in outputs:
        names = ", ".join(sorted(outputs)) or "none with a name"
        raise WeightsError(f"{path} has no output 'logits' (n, classes); its outputs are {names}.")
    shape, kind = outputs["logits"].partial_shape, outputs["logits"].element_type.get_type_name()
    if kind != "f32" or shape.rank.is_dynamic or len(shape) != 2 or shape[1].is_dynamic or shape[1].get_length() < 2:
        raise WeightsError(f"{path} gives logits of shape {shape} in {kind}, and only float32 (n, classes) can serve.")
    return int(shape[1].get_length())


def _with_features(openvino: Any, model: Any, outputs: dict[str, Any], path: Path) -> Any:
    """Return the graph with two outputs; an embedding (n, C) becomes a feature map of one cell."""
    if "features" in outputs:
        found, rank = outputs["features"], 4
    elif "embedding" in outputs:
        found, rank = outputs["embedding"], 2
    else:
        raise WeightsError(f"{path} has no output 'embedding' (n, channels) or 'features' beside its logits.")
    shape = found.partial_shape
    if found.element_type.get_type_name() != "f32" or shape.rank.is_dynamic or len(shape) != rank:
        raise WeightsError(f"{path} gives an embedding or features of shape {shape}, which cannot serve.")
    logits, features = (output.get_node().input_value(0) for output in (outputs["logits"], found))
    if rank == 2:
        operations = openvino.opset13
        features = operations.unsqueeze(features, operations.constant([2, 3], dtype="int64")).output(0)
    graph = openvino.Model([logits, features], model.get_parameters(), "served")
    for output, name in zip(graph.outputs, ("logits", "features"), strict=True):
        output.get_tensor().set_names({name})
    return graph


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
