"""Measure how well the rejection score tells photos from blank pictures, noise, text pages and line drawings.

    TOPTHREE_MODEL=efficientnet_lite0 python scripts/measure_unlike.py PHOTOS [--pictures 100]

PHOTOS is a folder of photos that show what the model knows. The threshold is the fifth percentile of their scores.
For the first shares, each half of the photos in turn sets the threshold, and the other half gives the false alarms.
The last share is that at the threshold of all photos, below which exactly 5% of them are: a point of the ROC curve.
"""

from __future__ import annotations

import argparse
import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import unlike_pictures

from app.model import Model, head_bias, load_model
from app.model.certainty import rejection_score
from app.photos.decoding import decode
from app.photos.folders import list_photos
from app.settings import Settings

Scores = npt.NDArray[np.float64]
PERCENTILE = 5
RESAMPLES = 2000


def score(model: Model, bias: npt.NDArray[np.float32], data: bytes) -> float:
    """Return the rejection score of an encoded photo."""
    geometry = model.weights.record.geometry
    crop = decode(data, max_pixels=64_000_000, resize=geometry.resize).crop(geometry)
    inference = model.engine.infer(crop[None])
    return rejection_score(inference.logits[0], inference.embeddings[0], bias)


def encode(picture: unlike_pictures.Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def two_fold(photos: Scores, others: Scores) -> tuple[float, float]:
    """Return the shares of other pictures and of photos below the threshold; the other half of the photos sets it."""
    halves = photos[::2], photos[1::2]
    limits = [np.percentile(half, PERCENTILE) for half in halves]
    found = float(np.mean([np.mean(others < limit) for limit in limits]))
    return found, float(np.mean([np.mean(half < limit) for half, limit in zip(halves[::-1], limits, strict=True)]))


def at_all(photos: Scores, others: Scores) -> float:
    """Return the share of other pictures below the threshold of all photos."""
    return float(np.mean(others < np.percentile(photos, PERCENTILE)))


def interval(photos: Scores, others: Scores, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return the 95% bootstrap intervals of the threshold, of both results of `two_fold`, and of that of `at_all`."""
    rows = []
    for _ in range(RESAMPLES):
        known = rng.permutation(photos)[rng.integers(0, len(photos), len(photos))]
        found = rng.choice(others, len(others))
        rows.append((np.percentile(known, PERCENTILE), *two_fold(known, found), at_all(known, found)))
    low, high = np.percentile(np.array(rows), (2.5, 97.5), axis=0)
    return list(zip(low, high, strict=True))


def main() -> None:
    """Print the threshold, the false alarms, and the share that is found of each kind of picture and of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", metavar="PHOTOS")
    parser.add_argument("--pictures", type=int, default=100, help="how many of each kind to draw")
    options = parser.parse_args()
    model, _ = load_model(Settings.from_environment(os.environ))
    bias, rng = head_bias(model), np.random.default_rng(0)
    if bias is None:
        parser.error("the model's head is not one linear layer")
    photos = np.array([score(model, bias, Path(file).read_bytes()) for file in list_photos([options.photos])])
    print(f"{model.weights.record.name}, {model.engine.precision}, {len(photos)} photos")
    scores: dict[str, Scores] = {}
    for kind in unlike_pictures.KINDS:
        drawn = unlike_pictures.pictures(kind, options.pictures)
        scores[kind] = np.array([score(model, bias, encode(picture)) for picture in drawn])
    scores["all pictures"] = np.concatenate(list(scores.values()))
    for kind, others in scores.items():
        found, alarms = two_fold(photos, others)
        limits, founds, falses, exacts = interval(photos, others, rng)
        print(
            f"{kind}: {found:.1%} ({founds[0]:.1%} to {founds[1]:.1%}) unlike,"
            f" {alarms:.1%} ({falses[0]:.1%} to {falses[1]:.1%}) false alarms;"
            f" {at_all(photos, others):.1%} ({exacts[0]:.1%} to {exacts[1]:.1%}) unlike at {PERCENTILE}% false alarms"
        )
    limit = np.percentile(photos, PERCENTILE)
    print(f"threshold of all photos: {limit:.2f} ({limits[0]:.2f} to {limits[1]:.2f})")


if __name__ == "__main__":
    main()
