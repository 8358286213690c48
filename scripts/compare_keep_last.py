"""Compare two ways to make an int8 model pass its test: our --keep-last auto, and NNCF's accuracy control.

    TOPTHREE_MODEL=efficientnet_lite1 python scripts/compare_keep_last.py PHOTOS [--least PERCENT] [--only WAY]

Half of the photos calibrate, the others test, as in 'topthree prepare --precision int8'. A model passes if at least
PERCENT of its answers are those of float32, and it loses at most one point of top-1. Accuracy control quantises
everything, measures how much each layer costs, and takes the worst ones back until the share of equal answers is
reached. Prints seconds, layers in float32, the share, and the time of one photo on one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nncf
import numpy as np

from app.model import quantise
from app.model.artifact import Prepared, ensure_prepared
from app.model.artifact_writer import describe
from app.model.engines import OpenVINOEngine, Pixels
from app.model.labels import load_labels
from app.model.runtime import import_openvino
from app.settings import Settings

REPEATS = 30


def opened(base: Prepared, folder: Path) -> Prepared:
    """Open the int8 files in a folder as the artifact of the same weights."""
    (folder / "classifier.npy").write_bytes(base.content["classifier.npy"])
    manifest = describe(base.weights, folder, precision="int8", classes=base.manifest.classes)
    return Prepared(folder, manifest, base.weights, quantise.read_files(folder))


def floating(folder: Path) -> int:
    """Count the layers of a graph whose input is not quantised, the classifier among them."""
    graph = import_openvino().Core().read_model(folder / "model.xml")
    layers, _ = quantise._layers(graph)
    return sum(node.input_value(0).get_node().get_type_name() != "FakeQuantize" for node in layers)


def milliseconds(artifact: Prepared, crop: Pixels) -> float:
    """Measure one photo on one thread: the median of some runs."""
    engine = OpenVINOEngine(artifact, precision="int8", cpus=1, threads_alone=1)
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        engine.infer(crop[None])
        times.append(time.perf_counter() - begin)
    return 1000 * float(np.median(times))


def controlled(base: Prepared, calibration: list[Pixels], test: list[Pixels], folder: Path) -> None:
    """Quantise with NNCF's accuracy control, for the share of answers that are those of float32."""
    openvino = import_openvino()
    model = openvino.Core().read_model(base.content["model.xml"], base.content["model.bin"])
    layers, classifier = quantise._layers(model)
    answers = quantise._answers(base, "fp32", test)
    pairs = [(crop[None], answer) for crop, answer in zip(test, answers, strict=True)]

    def share(compiled: Any, pairs: Iterable[Any]) -> tuple[float, None]:
        return float(np.mean([compiled(batch)["logits"].argmax() == answer for batch, answer in pairs])), None

    quantised = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset([view[None] for crop in calibration for view in (crop, crop[:, ::-1].copy())]),
        nncf.Dataset(pairs, lambda pair: pair[0]),
        share,
        max_drop=1 - quantise.MIN_AGREEMENT_PERCENT / 100,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=2 * len(calibration),
        fast_bias_correction=True,
        ignored_scope=nncf.IgnoredScope(names=[layers[classifier].get_friendly_name()]),
    )
    openvino.save_model(quantised, folder / "model.xml", compress_to_fp16=False)


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", metavar="PHOTOS", type=Path)
    parser.add_argument("--least", type=float, default=quantise.MIN_AGREEMENT_PERCENT)
    parser.add_argument("--only", choices=("keep-last", "accuracy-control"))
    options = parser.parse_args()
    quantise.MIN_AGREEMENT_PERCENT = options.least
    settings = Settings.from_environment(os.environ)
    base = ensure_prepared(dataclasses.replace(settings, precision="fp32"))
    files, _ = quantise._labelled(options.photos, load_labels(base.labels))
    crops = quantise._crops(files, base, settings.max_pixels)
    calibration, test = ([crops[index] for index in part] for part in quantise._split(len(crops)))
    truth = quantise._answers(base, "fp32", test)
    print(f"{base.weights.record.name}, {len(calibration)} photos to calibrate, {len(test)} to test", flush=True)
    for way in ("keep-last", "accuracy-control"):
        if options.only not in (None, way):
            continue
        with tempfile.TemporaryDirectory() as made:
            folder, begin = Path(made), time.monotonic()
            if way == "keep-last":
                limits = {"max_drop": 1.0, "max_pixels": settings.max_pixels, "report": print}
                quantise.quantise(base, options.photos, folder, keep_last=None, **limits)
            else:
                controlled(base, calibration, test, folder)
            seconds = time.monotonic() - begin
            artifact = opened(base, folder)
            equal = 100 * (quantise._answers(artifact, "int8", test) == truth).mean()
            print(
                f"{way}: {seconds:.0f} s, {floating(folder)} layers in float32, {equal:.1f}% equal answers, "
                f"{milliseconds(artifact, test[0]):.2f} ms a photo",
                flush=True,
            )


if __name__ == "__main__":
    main()
