"""Compare three ways to use the processors, in this process, and the service: with one client, two, and eight.

usage: python scripts/compare_plans.py PHOTOS [--seconds 6] [--rounds 3]

'whole machine' gives every photo all processors, one after the other; 'streams' gives every photo one; 'both' is the
plan of the service: a lone photo gets all processors, photos that come together get one each. 'service' is that plan
over HTTP. All take turns round by round, so that a drift of the machine's speed affects all alike; medians over rounds
are printed, and the median of the ratios of the service to 'both'.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from app.classifier import Classifier
from app.measuring.load import Load, MakeSender, closed_loop, http_sender
from app.measuring.own_server import own_server
from app.model import Model
from app.model.engines import Engine, Inference, Pixels
from app.model.served import Served, load_served
from app.photos.decoders import Decoders
from app.processes.plan import SPARE_SLOTS, make_plan
from app.settings import Settings

CLIENTS = (1, 2, 8)
Case = tuple[str, int]
MAX_PHOTO_BYTES = 10 * 2**20
MAX_PHOTO_MEMORY = 2**29


@dataclass(frozen=True)
class OnePlan:
    """An engine that computes every photo in the same way, whether others wait or not."""

    engine: Engine
    is_alone: bool

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch as the plan says."""
        return self.engine.infer(batch, alone=self.is_alone)


def classifier_for(plan: str, model: Model, cpus: int) -> Classifier:
    """Make a classifier whose engine has only the graphs that the plan allows."""
    engine = model.engine if plan == "both" else OnePlan(model.engine, plan == "whole machine")
    plan_cpus = 1 if plan == "whole machine" else cpus
    decoders = Decoders(plan_cpus + SPARE_SLOTS, max_bytes=MAX_PHOTO_BYTES, memory_bytes=MAX_PHOTO_MEMORY)
    return Classifier(lambda: Served(dataclasses.replace(model, engine=engine)), decoders, cpus=plan_cpus)


def sender_of(classifier: Classifier, settings: Settings) -> MakeSender:
    """Return what has a classifier in this process answer a photo."""

    def send(photo: bytes) -> dict[str, float]:
        classifier.classify(photo, max_pixels=settings.max_pixels)
        return {}

    return lambda: nullcontext(send)


def compare(
    targets: dict[str, MakeSender], photos: list[bytes], rounds: int, seconds: float
) -> dict[Case, list[Load]]:
    """Load the targets in turns, with each number of clients, each time after a short warm-up."""
    found: dict[Case, list[Load]] = {}
    for _ in range(rounds):
        for clients in CLIENTS:
            for name, make_sender in targets.items():
                closed_loop(make_sender, photos, clients=clients, seconds=1)
                load = closed_loop(make_sender, photos, clients=clients, seconds=seconds)
                found.setdefault((name, clients), []).append(load)
    return found


def report(found: dict[Case, list[Load]]) -> None:
    """Print the medians, and the ratios of the service to the same plan in this process."""
    for (name, clients), loads in found.items():
        throughput, p50, p99 = (
            statistics.median(getattr(load, key) for load in loads) for key in ("throughput", "p50", "p99")
        )
        print(f"{name:14} {clients} clients {throughput:7.1f} photos/s  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms")
    for clients in CLIENTS:
        pairs = zip(found["service", clients], found["both", clients], strict=True)
        ratio = statistics.median(over_http.throughput / here.throughput for over_http, here in pairs)
        print(f"service to both, {clients} clients: {ratio:.1%}")


def main() -> None:
    """Measure and print a line for each plan and number of clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    settings = Settings.from_environment(os.environ)
    photos = [path.read_bytes() for path in sorted(options.photos.iterdir())]
    model, cpus = load_served(settings).backbone, make_plan(settings).cpus_per_worker
    with ExitStack() as stack:
        targets = {}
        for plan in ("whole machine", "streams", "both"):
            classifier = stack.enter_context(closing(classifier_for(plan, model, cpus)))
            targets[plan] = sender_of(classifier, settings)
        server = stack.enter_context(own_server(dataclasses.replace(settings, result_cache_bytes=0)))
        server.wait_for_answer(photos[0])
        targets["service"] = http_sender(server.url)
        found = compare(targets, photos, options.rounds, options.seconds)
    report(found)


if __name__ == "__main__":
    main()
