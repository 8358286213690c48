"""Measure what each part of fine-tuning gives: one run with all parts, and one without each of them.

PHOTOS is a set that `topthree train` reads, with photos for testing. Prints a table in Markdown: the accuracy on
left-out photos with the gain over the head, and on the photos for testing. The settings choose the backbone.

    TOPTHREE_WEIGHTS=resnet18.pth python scripts/ablate_tuning.py PHOTOS --tune last --epochs 8 [--only PART...]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from app.settings import Settings
from app.training import (
    backbones,
    learning,
    tuning,
    tuning_data,
    tuning_net,
    tuning_schedule,
    tuning_setup,
    tuning_steps,
)
from app.training.photosets import open_photo_set
from app.training.report import sentence
from app.training.tuning_result import ALL, HEAD, LAST, Extras, Options

NAME = "ablation"
Changed = tuple[ModuleType, str, Any]

# Without a part: the constants that take it away, and the extras.
PARTS: Mapping[str, tuple[tuple[Changed, ...], Extras]] = {
    "all parts": ((), Extras()),
    "the same rate for all stages": (((tuning_net, "STEM_RATE", 1.0),), Extras()),
    "the best epoch in place of an average": (((tuning_steps, "AVERAGED", 1),), Extras()),
    "new statistics of batch norms": (((tuning_setup, "MIN_PHOTOS_FOR_NORMS", 0),), Extras()),
    "large random crops from the start": (((tuning_schedule, "LARGE_FROM", 0.0),), Extras()),
    "random crops of 8% and more": (((tuning_data, "MIN_CROP_SHARE", 0.08),), Extras()),
    "views: the photo and its mirror image only": (((tuning_data, "VIEWS", 2),), Extras()),
    "with label smoothing 0.1": ((), Extras(smoothing=0.1)),
    "with mixup 0.2": ((), Extras(mixup=True)),
}


@contextmanager
def changed(constants: tuple[Changed, ...]) -> Iterator[None]:
    """Set constants of modules for a time."""
    before = [(module, name, getattr(module, name)) for module, name, _ in constants]
    try:
        for module, name, value in constants:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def main() -> None:
    """Learn the head once, and tune with each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--tune", choices=(LAST, ALL), default=LAST)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    asked = parser.parse_args()
    photo_set = open_photo_set(asked.photos)
    chosen = backbones.choose(photo_set, Settings.from_environment(os.environ), None, lambda name, done, total: None)
    lesson = learning.learn(chosen, photo_set, has_flip=True, seed=0, step=lambda name, done, total: None)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    shown = tuning_steps.Shown(lambda name, done, total: None, say, lambda choice: say(sentence(choice, "en")))
    print("| run | left-out photos | gain over the head (95% interval) | photos for testing |\n|---|---|---|---|")
    for part in asked.only:
        constants, extras = PARTS[part]
        options = Options(asked.tune, epochs=asked.epochs, extras=extras)
        with changed(constants):
            found = tuning.tune(chosen, photo_set, lesson, options, name=NAME, shown=shown)
        for row in found.rows:
            if row.method == asked.tune or (row.method == HEAD and part == asked.only[0]):
                gain = f"{row.gain.points:+.1f} ({row.gain.low:+.1f} to {row.gain.high:+.1f})" if row.gain else ""
                tested = f"{row.tested.percent:.1f}%" if row.tested else ""
                name = "head" if row.method == HEAD else part
                print(f"| {name} | {row.left_out.percent:.1f}% | {gain} | {tested} |", flush=True)
    tuning.remove_files(chosen, NAME)


if __name__ == "__main__":
    main()
