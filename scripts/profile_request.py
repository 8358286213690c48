"""Print where the time of one request goes, stage by stage, in milliseconds.

usage: python scripts/profile_request.py PHOTOS [--rounds 5]

Stages inside the process are timed one after the other on every photo. The rest of a request through the Flask
application is Flask's, and the rest of a request over a socket to a server of its own is gunicorn's, the socket's and
the client's. Means over all photos and rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from app import create_app
from app.measuring.load import http_sender
from app.measuring.own_server import own_server
from app.model import Model
from app.photos.decoding import decode
from app.settings import Settings
from app.web.service import service_of

MAX_PIXELS = 64_000_000


def mean_ms(work: Callable[[bytes], object], photos: list[bytes], rounds: int) -> float:
    """Time some work on every photo, after one round that is not counted."""
    for photo in photos:
        work(photo)
    begin = time.perf_counter()
    for _ in range(rounds):
        for photo in photos:
            work(photo)
    return 1000 * (time.perf_counter() - begin) / (rounds * len(photos))


def inner_stages(model: Model, photos: list[bytes], rounds: int) -> dict[str, float]:
    """Time the parts of `Classifier.classify`."""
    geometry = model.weights.record.geometry
    decoded = {photo: decode(photo, max_pixels=MAX_PIXELS) for photo in photos}
    crops = {photo: decoded[photo].crop(geometry)[None] for photo in photos}
    work: dict[str, Callable[[bytes], object]] = {
        "SHA-256 of the upload": lambda photo: hashlib.sha256(photo).hexdigest(),
        "header, checks and decoding": lambda photo: decode(photo, max_pixels=MAX_PIXELS),
        "resize and crop (Pillow)": lambda photo: decoded[photo].crop(geometry),
        "inference, all processors": lambda photo: model.engine.infer(crops[photo], alone=True),
    }
    return {name: mean_ms(function, photos, rounds) for name, function in work.items()}


def main() -> None:
    """Measure and print all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    # The photos repeat, and a cached answer would show nothing.
    settings = dataclasses.replace(Settings.from_environment(os.environ), result_cache_bytes=0)
    photos = [path.read_bytes() for path in sorted(options.photos.iterdir())]
    app = create_app(settings)
    classifier = service_of(app).classifier
    stages = inner_stages(classifier.load_model(), photos, options.rounds)
    classify = mean_ms(lambda photo: classifier.classify(photo, max_pixels=MAX_PIXELS), photos, options.rounds)
    stages["slot, another process, softmax, names"] = classify - sum(stages.values())
    with own_server(settings) as server:
        server.wait_for_answer(photos[0])
        with http_sender(server.url)() as send:
            totals = [send(photo)["total"] for photo in photos * options.rounds]
            socket = mean_ms(send, photos, options.rounds)
    total = statistics.mean(totals)
    stages["Flask: routing, reading the body, JSON"] = total - classify
    stages["gunicorn, socket and the client itself"] = socket - total
    for name, milliseconds in stages.items():
        print(f"{name:46} {milliseconds:6.2f} ms")
    print(f"{'one request over a socket':46} {socket:6.2f} ms")


if __name__ == "__main__":
    main()
