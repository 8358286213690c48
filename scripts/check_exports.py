"""Export models in every format, and run each file's example in a process that cannot import this package.

EfficientNet-Lite0 has its real weights; the others have random ones, whose batch norms one batch of the samples'
crops has set, and whose head is scaled to logits of standard deviation 3. Prints a table in Markdown.

    python scripts/check_exports.py [MODEL...] [--to FORMAT]...
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from app.model.backbones import load_backbone
from app.model.backbones.untrained import untrained_backbone
from app.model.calibration import published_calibration
from app.model.exporting.crops import SAMPLES, sample_crops
from app.model.exporting.files import WithEmbedding
from app.model.exporting.folder import export_network
from app.model.exporting.formats import FORMATS
from app.model.facts import Facts
from app.model.labels import imagenet_labels
from app.model.records import RECORDS
from app.model.weights import packaged_weights

MODELS = ("resnet18", "resnet50", "efficientnet_b0", "mobilenet_v3_large", "efficientnet_lite0")
PHOTOS = 8
ALONE = "import runpy, sys; sys.modules['app'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"


def network_of(name: str) -> nn.Module:
    """Build a model: the built-in one with its weights, any other with random ones."""
    if name == "efficientnet_lite0":
        return WithEmbedding(load_backbone(packaged_weights(""), 1000)).eval()
    crops = sample_crops(RECORDS[name].geometry)
    return WithEmbedding(untrained_backbone(RECORDS[name], torch.from_numpy(crops[:: len(crops) // PHOTOS]))).eval()


def run_example(folder: Path) -> str:
    """Run the example of an exported folder on the cat, without this package; return its first line."""
    command = [sys.executable, "-W", "ignore", "-c", ALONE, str(folder / "classify.py"), str(SAMPLES[0])]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def main() -> None:
    """Print a row for each model and format; a failed gate or example ends it with an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", metavar="MODEL", nargs="*", default=MODELS)
    parser.add_argument("--to", choices=FORMATS, action="append", help="only this format")
    options = parser.parse_args()
    print("| Model | Format | Largest error of a probability | Seconds | Size | Example's first line |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in options.models:
        network, geometry = network_of(name), RECORDS[name].geometry
        facts = Facts(name, "", imagenet_labels(), geometry, published_calibration(RECORDS[name]))
        for to in options.to or FORMATS:
            with tempfile.TemporaryDirectory() as made:
                folder, begin = Path(made) / to, time.monotonic()
                error = export_network(network, facts, sample_crops(geometry), to, folder)
                seconds = time.monotonic() - begin
                size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
                first = run_example(folder)
            print(f"| `{name}` | {to} | {error:.0e} | {seconds:.0f} | {size:.1f} MB | {first} |", flush=True)


if __name__ == "__main__":
    main()
