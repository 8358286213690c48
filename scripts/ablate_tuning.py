"""Measure what each part of fine-tuning gives: one run with all parts, and one without each of them.

PHOTOS is a set that `topthree train` reads, with photos for testing. Prints a table in Markdown: the accuracy on
left-out photos with the gain over the head, and on the photos for testing. The settings choose the backbone. The
networks learn from the photos that are not left out; the second run of `topthree train`, on all of them, is not made.

    TOPTHREE_WEIGHTS=resnet18.pth python scripts/ablate_tuning.py PHOTOS --tune last --epochs 8 [--only PART...]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
    tuning_plan,
    tuning_schedule,
    tuning_setup,
    tuning_steps,
)
from app.training.photosets import open_photo_set
from app.training.report import sentence
from app.training.tuning_result import ALL, FOLDER, HEAD, LAST, Extras, Options, Row

NAME = "ablation"
Changed = tuple[ModuleType, str, Any]


@dataclass(frozen=True)
class Part:
    """What changes a part of the recipe: constants and extras; `maps` says that the feature maps change with it.

    A part that is `of_all` changes nothing if the last stage learns alone.
    """

    constants: tuple[Changed, ...] = ()
    extras: Extras = field(default_factory=Extras)
    maps: bool = False
    of_all: bool = False


PARTS: Mapping[str, Part] = {
    "all parts": Part(),
    "the best epoch in place of an average": Part(((tuning_steps, "AVERAGED", 1),)),
    "new statistics of batch norms": Part(((tuning_setup, "MIN_PHOTOS_FOR_NORMS", 0),)),
    "with label smoothing 0.1": Part(extras=Extras(smoothing=0.1)),
    "with mixup 0.2": Part(extras=Extras(mixup=True)),
    "the same rate for all stages": Part(((tuning_net, "STEM_RATE", 1.0),), of_all=True),
    "large random crops from the start": Part(((tuning_schedule, "LARGE_FROM", 0.0),), of_all=True),
    "views: the photo and its mirror image only": Part(((tuning_data, "VIEWS", 2),), maps=True),
    "random crops of 8% and more": Part(((tuning_data, "MIN_CROP_SHARE", 0.08),), maps=True),
}


def plan_first_run(*known: Any, **more: Any) -> tuning_plan.Plan:
    """Plan the first run of tuning alone."""
    return replace(tuning_plan.plan_epochs(*known, **more), has_finish=False)


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


def clear(folder: Path, usable: Container[str]) -> None:
    """Remove what the part before has left in the folder of the run, except what this one can use again."""
    for path in folder.glob("*"):
        if path.name not in usable:
            path.unlink()


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
    usable: set[str] = set()
    names = [name for name in asked.only if asked.tune == ALL or not PARTS[name].of_all]
    for name in names:
        part = PARTS[name]
        clear(chosen.settings.cache / FOLDER / NAME, usable - {"maps"} if part.maps else usable)
        usable = {"squares"} if part.maps else {"squares", "maps"}
        options = Options(asked.tune, epochs=asked.epochs, extras=part.extras, resume=True)
        with changed((*part.constants, (tuning_setup, "plan_epochs", plan_first_run))):
            found = tuning.tune(chosen, photo_set, lesson, options, name=NAME, shown=shown)
        print_rows(found.rows, name, {asked.tune, HEAD} if name == names[0] else {asked.tune})
    tuning.remove_files(chosen, NAME)


def print_rows(rows: Iterable[Row], name: str, methods: Container[str]) -> None:
    """Print the rows of these methods as one table's."""
    for row in rows:
        if row.method in methods:
            gain = f"{row.gain.points:+.1f} ({row.gain.low:+.1f} to {row.gain.high:+.1f})" if row.gain else ""
            tested = f"{row.tested.percent:.1f}%" if row.tested else ""
            run = "head" if row.method == HEAD else name
            print(f"| {run} | {row.left_out.percent:.1f}% | {gain} | {tested} |", flush=True)


if __name__ == "__main__":
    main()
