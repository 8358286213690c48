"""Say where the time of one request goes, stage by stage, in milliseconds.

usage: python scripts/profile_request.py PHOTOS [--rounds 5]

Stages inside the process are timed one after the other on every photo; what remains of the whole request through
the Flask application is Flask's, and what remains of a request over a socket to a server of its own is gunicorn's,
the socket's and the client's. Means over all photos and rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from app import create_app
from app.classifier import _predictions
from app.measuring.load import http_sender
from app.measuring.own_server import own_server
from app.model import Model
from app.photos.decoding import _SHORTEST_DECODED_SIDE, decode
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


def open_header(photo: bytes) -> Image.Image:
    """Read a JPEG's header and choose the scale that it is decoded at."""
    image = Image.open(io.BytesIO(photo), formats=["JPEG"])
    image.draft(None, (_SHORTEST_DECODED_SIDE, _SHORTEST_DECODED_SIDE))
    return image


def inner_stages(model: Model, photos: list[bytes], rounds: int) -> dict[str, float]:
    """Time what `Classifier.classify` does, piece by piece."""
    geometry = model.weights.record.geometry
    decoded = {photo: decode(photo, max_pixels=MAX_PIXELS) for photo in photos}
    crops = {photo: decoded[photo].crop(geometry)[None] for photo in photos}
    logits = {photo: model.engine.infer(crops[photo]).logits[0] for photo in photos}
    header = mean_ms(open_header, photos, rounds)
    return {
        "JPEG header": header,
        "JPEG decoding (libjpeg-turbo)": mean_ms(lambda photo: open_header(photo).load(), photos, rounds) - header,
        "SHA-256 of the upload": mean_ms(lambda photo: hashlib.sha256(photo).hexdigest(), photos, rounds),
        "resize and crop (Pillow)": mean_ms(lambda photo: decoded[photo].crop(geometry), photos, rounds),
        "inference, all processors": mean_ms(
            lambda photo: model.engine.infer(crops[photo], alone=True), photos, rounds
        ),
        "softmax, top 3, names": mean_ms(lambda photo: _predictions(logits[photo], model.labels, 3), photos, rounds),
    }


def main() -> None:
    """Measure and print all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    # The photos repeat, and an answer from memory would show nothing.
    settings = dataclasses.replace(Settings.from_environment(os.environ), result_cache_bytes=0)
    photos = [path.read_bytes() for path in sorted(options.photos.iterdir())]
    app = create_app(settings)
    classifier = service_of(app).classifier
    stages = inner_stages(classifier.load_model(), photos, options.rounds)
    classify = mean_ms(lambda photo: classifier.classify(photo, max_pixels=MAX_PIXELS), photos, options.rounds)
    stages["checks, slot, copies and the rest of classify"] = classify - sum(stages.values())
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
