"""Quantisation to 8 bits after training, and the accuracy that its result must reach."""

from __future__ import annotations

import functools
import logging
import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import TopthreeError, WeightsError
from ..photos.crops import read_crops
from ..photos.folders import FileProblem, list_photos, true_class
from .artifact import Manifest, Prepared, read_files
from .artifact_writer import describe
from .engines import OpenVINOEngine, Pixels, may_overflow
from .labels import Label, class_names, load_labels
from .runtime import import_openvino
from .shares import Z_95

MAX_CALIBRATION_PHOTOS = 300
MIN_PHOTOS = 20
MIN_AGREEMENT_PERCENT = 93.0
STRONG_EVIDENCE_PHOTOS = 1000
# OpenVINO's names of the operations that multiply by weights.
_LAYERS = ("Convolution", "GroupConvolution", "MatMul")

Classes = npt.NDArray[np.int64]


class QuantisationRefused(TopthreeError):
    """The 8-bit model answers too differently from the float32 one to be served."""


@dataclass(frozen=True)
class Comparison:
    """How an 8-bit model compares with its float32 original on photos that it was not calibrated with.

    All in percent. `top1_change` is the mean of the paired differences, with its 95% interval, or None if no
    photo is labelled.
    """

    calibration_photos: int
    photos: int
    labelled_photos: int
    agreement: float
    top1_fp32: float | None
    top1_int8: float | None
    top1_change: float | None
    top1_change_low: float | None
    top1_change_high: float | None


def quantise(
    base: Prepared,
    photos: Path,
    folder: Path,
    *,
    max_drop: float,
    max_pixels: int,
    report: Callable[[str], object],
    keep_last: int | None = 0,
) -> Manifest:
    """Quantise a float32 artifact with half of the photos and test it on the others.

    The classifier stays in float32, and so do the `keep_last` layers before it; None means the fewest with which the
    test passes. Where sums of 8-bit products may overflow, a model that fails is tried with weights of 7 bits.
    Writes the artifact's files into `folder`, and calls `report` with a few lines about each test. Raises
    QuantisationRefused if top-1 falls by more than `max_drop` points or fewer than 93% of the answers agree.
    """
    _refuse_quantised(base)
    files, truths = _labelled(photos, load_labels(base.labels))
    crops = read_crops(files, base.weights.record.geometry, max_pixels=max_pixels)
    calibration, evaluation = _split(len(files))
    shown = [crops[index] for index in evaluation]
    truth = np.array([truths[index] for index in evaluation])
    fp32 = _answers(base, "fp32", shown)

    def attempt(keep_last: int, is_narrow: bool) -> Comparison:
        """Write the artifact with these layers in float32 and test it; raises QuantisationRefused if that fails."""
        _quantise_graph(base, [crops[index] for index in calibration], folder, keep_last, is_narrow)
        (folder / "classifier.npy").write_bytes(base.content["classifier.npy"])
        manifest = describe(base.weights, folder, precision="int8", classes=base.manifest.classes)
        int8 = _answers(Prepared(folder, manifest, base.weights, read_files(folder)), "int8", shown)
        comparison = compare(fp32, int8, truth, calibration_photos=len(calibration))
        report(_summary(comparison, max_drop))
        _gate(comparison, max_drop)
        return comparison

    def either(keep_last: int) -> Comparison:
        return _wide_or_narrow(functools.partial(attempt, keep_last), may_overflow(), report)

    comparison = _fewest(either, _layers_before_classifier(base), report) if keep_last is None else either(keep_last)
    return describe(base.weights, folder, precision="int8", classes=base.manifest.classes, accuracy=asdict(comparison))


def _wide_or_narrow(
    attempt: Callable[[bool], Comparison], can_overflow: bool, report: Callable[[str], object]
) -> Comparison:
    """Try weights of 8 bits, and if they fail because sums overflow, perhaps, of 7; raises QuantisationRefused."""
    try:
        return attempt(False)
    except QuantisationRefused:
        if not can_overflow:
            raise
    report("This processor may overflow when it adds products of 8 bits: weights of 7 bits are tried.")
    return attempt(True)


def _fewest(attempt: Callable[[int], Comparison], layers: int, report: Callable[[str], object]) -> Comparison:
    """Find the fewest layers that must stay in float32, and leave their artifact as the last one that was written.

    The number is doubled until the test passes, and then the gap below is halved: the test is assumed to pass with
    more layers if it passes with some. Raises QuantisationRefused if it fails with all layers.
    """
    tried: dict[int, Comparison | None] = {}

    def passes(count: int) -> bool:
        report(f"Layers before the classifier left in float32: {count}")
        try:
            tried[count] = attempt(count)
        except QuantisationRefused:
            tried[count] = None
        return tried[count] is not None

    failed, count = -1, 0
    while not passes(count):
        if count >= layers:
            raise QuantisationRefused(
                f"No number of layers in float32, up to all {layers} before the classifier, passes; nothing was "
                "written. Calibrate with more photos like those that it will classify."
            )
        failed, count = count, min(max(1, 2 * count), layers)
    while count - failed > 1:
        middle = (failed + count) // 2
        if passes(middle):
            count = middle
        else:
            failed = middle
    found = tried[count]
    if found is None or next(reversed(tried)) != count:
        found = attempt(count)
    report(f"The fewest layers in float32 that pass are {count} before the classifier.")
    return found


def compare(fp32: Classes, int8: Classes, truth: Classes, *, calibration_photos: int) -> Comparison:
    """Compare the top-1 answers of two models photo by photo; a truth of -1 means unlabelled."""
    labelled = truth >= 0
    differences = (int8 == truth)[labelled].astype(float) - (fp32 == truth)[labelled]
    change = low = high = top1_fp32 = top1_int8 = None
    if len(differences):
        change = 100 * float(differences.mean())
        half = 100 * Z_95 * float(differences.std(ddof=1 if len(differences) > 1 else 0)) / math.sqrt(len(differences))
        low, high = change - half, change + half
        top1_fp32, top1_int8 = (100 * float((answers == truth)[labelled].mean()) for answers in (fp32, int8))
    agreement = 100 * float((fp32 == int8).mean())
    return Comparison(
        calibration_photos,
        len(truth),
        int(labelled.sum()),
        round(agreement, 2),
        *(None if value is None else round(value, 2) for value in (top1_fp32, top1_int8, change, low, high)),
    )


_ADVICE = "Calibrate with more photos like those that it will classify, or leave layers in float32: --keep-last auto."


def _gate(comparison: Comparison, max_drop: float) -> None:
    change = comparison.top1_change
    if change is not None and -change > max_drop:
        raise QuantisationRefused(
            f"Top-1 falls by {-change:.2f} points, more than the {max_drop:g} of --max-drop; nothing was written. "
            + _ADVICE
        )
    if comparison.agreement < MIN_AGREEMENT_PERCENT:
        raise QuantisationRefused(
            f"Only {comparison.agreement:.2f}% of the answers agree with float32, fewer than "
            f"{MIN_AGREEMENT_PERCENT:g}%; nothing was written. {_ADVICE}"
        )


def _refuse_quantised(base: Prepared) -> None:
    model = import_openvino().Core().read_model(base.content["model.xml"], base.content["model.bin"])
    if any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
        raise QuantisationRefused(
            f"{base.weights.path} is quantised already: serve it as it is, without --precision int8."
        )


def _labelled(folder: Path, labels: tuple[Label, ...]) -> tuple[list[str], list[int]]:
    files = list_photos([str(folder)])
    if len(files) < MIN_PHOTOS:
        raise FileProblem(f"{folder} holds {len(files)} photos; calibration takes at least {MIN_PHOTOS}.")
    classes = class_names(labels)
    truths = [true_class(Path(file), folder, classes) for file in files]
    return files, [-1 if truth is None else truth for truth in truths]


def _split(count: int) -> tuple[list[int], list[int]]:
    """Divide the photos at random, the same in every run, into those to calibrate with and those to test on."""
    order = list(range(count))
    random.Random(0).shuffle(order)
    calibration = min(MAX_CALIBRATION_PHOTOS, count // 2)
    return sorted(order[:calibration]), sorted(order[calibration:])


def _quantise_graph(base: Prepared, crops: list[Pixels], folder: Path, keep_last: int, is_narrow: bool) -> None:
    """Quantise all layers but the last, calibrating with each photo and its mirror image; narrow weights have 7 bits.

    Measured on three ways to split 100 photos: the classifier in float32 raises the agreement by up to two
    points and costs no time, the fast bias correction beats the exact one by three, mirroring never hurts.
    """
    openvino = import_openvino()
    # nncf imports it for a compiler that is not used here, and it warns where there is one but no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    try:
        import nncf
    except ImportError as error:
        raise WeightsError("--precision int8 needs nncf: pip install -e '.[optimize]'") from error
    nncf.set_log_level(logging.ERROR)  # its reports are about nodes of the graph, which tell a user nothing

    model = openvino.Core().read_model(base.content["model.xml"], base.content["model.bin"])
    layers, classifier = _layers(model)
    kept = [node.get_friendly_name() for node in layers[max(0, classifier - keep_last) :]]
    views = [view[None] for crop in crops for view in (crop, np.ascontiguousarray(crop[:, ::-1]))]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(views),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(views),
        fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(names=kept),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE if is_narrow else nncf.OverflowFix.FIRST_LAYER
        ),
    )
    openvino.save_model(quantised, folder / "model.xml", compress_to_fp16=False)


def _layers(model: Any) -> tuple[list[Any], int]:
    """Return the layers of a graph in their order, and the place of the classifier among them."""
    layers = [node for node in model.get_ordered_ops() if node.get_type_name() in _LAYERS]
    products = (index for index, node in enumerate(layers) if node.get_type_name() == "MatMul")
    return layers, max(products, default=len(layers) - 1)


def _layers_before_classifier(base: Prepared) -> int:
    model = import_openvino().Core().read_model(base.content["model.xml"], base.content["model.bin"])
    return _layers(model)[1]


def _answers(artifact: Prepared, precision: str, crops: list[Pixels]) -> Classes:
    engine = OpenVINOEngine(artifact, precision=precision, cpus=1, threads_alone=1)
    return np.array([int(engine.infer(crop[None]).logits[0].argmax()) for crop in crops])


def _summary(comparison: Comparison, max_drop: float) -> str:
    lines = [
        f"Calibrated with {comparison.calibration_photos} photos, tested on {comparison.photos} others:",
        f"  same top-1 answer as float32: {comparison.agreement:.2f}%",
    ]
    if comparison.top1_change is None:
        lines.append("  the photos are not labelled, so agreement alone decides")
    else:
        lines += [
            f"  top-1 {comparison.top1_fp32:.2f}% in float32, {comparison.top1_int8:.2f}% in 8 bits",
            f"  paired difference {comparison.top1_change:+.2f} points, 95% interval "
            f"{comparison.top1_change_low:+.2f} to {comparison.top1_change_high:+.2f}; {-max_drop:+g} is accepted",
        ]
    if comparison.photos < STRONG_EVIDENCE_PHOTOS:
        lines.append(f"  weak evidence: fewer than {STRONG_EVIDENCE_PHOTOS} photos tested it")
    return "\n".join(lines)
