"""Compare the graph that serves with torch, for the smallest model of each torchvision family.

The weights are random; one batch of the samples' crops sets the batch norms, and the head is scaled to logits of
standard deviation 3. Prints a table in Markdown: the largest error of a logit, as a share of the deviation.

    python scripts/compare_families.py [MODEL...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from app.model.artifact import FILES, Manifest, Prepared
from app.model.backbones.converting import save_graph
from app.model.backbones.untrained import untrained_backbone
from app.model.engines import OpenVINOEngine
from app.model.exporting.crops import sample_crops
from app.model.records import RECORDS
from app.model.weights import Weights

SMALLEST = (
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "efficientnet_b0",
    "densenet121",
    "efficientnet_v2_s",
    "convnext_tiny",
    "vgg11",
)
PHOTOS = 8
LIMIT = 1e-3


def error_of(name: str) -> float:
    """Return the largest error of a logit that OpenVINO computes in float32, as a share of their deviation."""
    record = RECORDS[name]
    crops = sample_crops(record.geometry)
    backbone = untrained_backbone(record, torch.from_numpy(crops[:: len(crops) // PHOTOS]))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        save_graph(backbone, record.geometry.crop, folder)
        content = {file: (folder / file).read_bytes() for file in FILES}
    prepared = Prepared(folder, Manifest(name, "", "fp32", 1000, {}, {}, {}), Weights(folder, "", record, ""), content)
    engine = OpenVINOEngine(prepared, precision="fp32", cpus=1, threads_alone=1)
    chosen = crops[1 :: len(crops) // PHOTOS]
    with torch.inference_mode():
        expected = backbone.network(backbone.normalise(torch.from_numpy(chosen))).numpy()
    found = np.concatenate([engine.infer(crop[None]).logits for crop in chosen])
    return float(np.abs(found - expected).max() / expected.std())


def main() -> int:
    """Print the table; the exit status is 1 if an error is above 1e-3."""
    print("| Model | Largest error / deviation |\n|---|---|", flush=True)
    errors = []
    for name in sys.argv[1:] or SMALLEST:
        errors.append(error_of(name))
        print(f"| `{name}` | {errors[-1]:.1e} |", flush=True)
    return int(max(errors) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
