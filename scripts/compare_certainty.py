"""Compare how far answers can be relied on in several precisions, with one calibration for all of them.

    TOPTHREE_MODEL=efficientnet_lite0 python scripts/compare_certainty.py PHOTOS... [--precisions fp32,int8]

PHOTOS are folders, labelled as for 'topthree evaluate' or not. An int8 model must be prepared already. Prints a table
in Markdown for each folder: the answers by their certainty, those of the sure ones that are wrong where the photos are
labelled, the fifth percentile of the rejection scores, and how many answers have the same certainty as in the first
precision.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections import Counter
from pathlib import Path

import numpy as np

from app.model import Model, head_bias, load_model
from app.model.calibration_fit import UNLIKE_PERCENTILE
from app.model.certainty import Judgement, rejection_score
from app.model.exporting.crops import photo_crops
from app.model.labels import class_names
from app.photos.folders import list_photos, true_class
from app.settings import Settings

CERTAINTIES = ("sure", "group", "unsure", "unlike")


def judged(model: Model, crops: np.ndarray) -> tuple[np.ndarray, list[Judgement], float | None]:
    """Return the first class and the judgement of each crop, and the fifth percentile of the rejection scores."""
    found = [model.engine.infer(crop[None]) for crop in crops]
    logits = np.concatenate([each.logits for each in found])
    embeddings = np.concatenate([each.embeddings for each in found])
    bias = head_bias(model)
    low = None if bias is None else np.percentile(rejection_score(logits, embeddings, bias), UNLIKE_PERCENTILE)
    judgements = [model.judge.judge(*pair) for pair in zip(logits, embeddings, strict=True)]
    return logits.argmax(axis=1), judgements, None if low is None else float(low)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", metavar="PHOTOS", nargs="+")
    parser.add_argument("--precisions", default="fp32,int8")
    options = parser.parse_args()
    settings = Settings.from_environment(os.environ)
    precisions = options.precisions.split(",")
    models = {each: load_model(dataclasses.replace(settings, precision=each))[0] for each in precisions}
    first = models[precisions[0]]
    names = class_names(first.labels)
    for folder in options.photos:
        files = list_photos([folder])
        truths = [true_class(Path(file), Path(folder), names) for file in files]
        crops = photo_crops(files, first.weights.record.geometry, settings.max_pixels)
        print(f"\n{first.name}, {len(files)} photos, {sum(truth is not None for truth in truths)} labelled\n")
        print(f"| precision | {' | '.join(CERTAINTIES)} | wrong of the sure | score, 5% | same certainty |")
        print("|---" * (len(CERTAINTIES) + 4) + "|")
        expected: list[str | None] = []
        for precision, model in models.items():
            classes, judgements, low = judged(model, crops)
            found = [each.certainty for each in judgements]
            expected = expected or found
            count = Counter(found)
            rows = zip(truths, classes, found, strict=True)
            wrong = sum(word == "sure" and truth not in (None, answer) for truth, answer, word in rows)
            same = sum(ours == theirs for ours, theirs in zip(found, expected, strict=True))
            numbers = " | ".join(str(count[each]) for each in CERTAINTIES)
            score = "" if low is None else f"{low:.2f}"
            print(f"| {precision} | {numbers} | {wrong} | {score} | {same} of {len(files)} |", flush=True)


if __name__ == "__main__":
    main()
