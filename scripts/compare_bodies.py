"""Compare the cost of a photo as the body itself, in a form and in JSON.

usage: python scripts/compare_bodies.py PHOTO [--rounds 400] [--seconds 6]

The ways take turns, so that a drift of the machine's speed affects all alike. Printed are medians of the processor
time of a whole request in this process, cached and computed, and of the time over HTTP from one client to a server.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import http.client
import io
import json
import os
import statistics
import time
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path

import flask

from app import create_app
from app.measuring.own_server import own_server
from app.settings import Settings
from app.web.service import service_of

BOUNDARY = b"------------------------d74496d66958873e"  # as long as curl's
PATH = "/api/v1/predict"
Body = tuple[str, bytes]
Ask = Callable[[Body], None]


def bodies_of(photo: bytes) -> dict[str, Body]:
    """Write a photo's Content-Type and body in each way."""
    head = b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    form = b"--%s\r\n%s%s\r\n--%s--\r\n" % (BOUNDARY, head, photo, BOUNDARY)
    text = base64.b64encode(photo).decode()
    return {
        "the body itself": ("image/jpeg", photo),
        "a form": (f"multipart/form-data; boundary={BOUNDARY.decode()}", form),
        "base64 in JSON": ("application/json", json.dumps({"image": text}).encode()),
    }


def ask_in_process(app: flask.Flask) -> Ask:
    """Load the application's model, and return a function that calls it as gunicorn does, without a socket."""
    service_of(app).classifier.warm_up()

    def ask(body: Body) -> None:
        environ = {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": PATH,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": body[0],
            "CONTENT_LENGTH": str(len(body[1])),
            "wsgi.input": io.BytesIO(body[1]),
            "wsgi.input_terminated": True,
            "wsgi.url_scheme": "http",
        }
        statuses: list[str] = []
        answer = app(environ, lambda status, headers: statuses.append(status))  # type: ignore[arg-type, return-value]
        b"".join(answer)
        answer.close()  # type: ignore[attr-defined]
        assert statuses == ["200 OK"], statuses

    return ask


def ask_over_http(url: str) -> Ask:
    """Return a function that sends requests to a server over one connection."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)

    def ask(body: Body) -> None:
        connection.request("POST", PATH, body[1], {"Content-Type": body[0]})
        response = connection.getresponse()
        response.read()
        assert response.status == 200, response.status

    return ask


def medians(
    ask: Ask, bodies: dict[str, Body], turns: Iterable[object], clock: Callable[[], float]
) -> dict[str, float]:
    """Time each way once per turn, and return their medians in milliseconds."""
    times: dict[str, list[float]] = {way: [] for way in bodies}
    for body in bodies.values():
        ask(body)
    for _ in turns:
        for way, body in bodies.items():
            begin = clock()
            ask(body)
            times[way].append(1000 * (clock() - begin))
    return {way: statistics.median(values) for way, values in times.items()}


def until(end: float) -> Iterable[int]:
    """Yield turns until a moment of the monotonic clock."""
    turn = 0
    while time.monotonic() < end:
        yield turn
        turn += 1


def show(title: str, found: dict[str, float]) -> None:
    """Print one row for each way, with its ratio to the first."""
    first = next(iter(found.values()))
    for way, milliseconds in found.items():
        print(f"{title:36} {way:16} {milliseconds:8.3f} ms  {milliseconds / first:6.3f}")


def main() -> None:
    """Measure and print all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=6)
    options = parser.parse_args()
    photo = options.photo.read_bytes()
    bodies = bodies_of(photo)
    print(f"{options.photo.name}, {len(photo):,} bytes")
    settings = Settings.from_environment(os.environ)
    uncached = dataclasses.replace(settings, result_cache_bytes=0)
    ask = ask_in_process(create_app(settings))
    show("in process, answered from memory", medians(ask, bodies, range(options.rounds), time.process_time))
    ask = ask_in_process(create_app(uncached))
    show("in process, computed", medians(ask, bodies, range(options.rounds // 10), time.process_time))
    with own_server(uncached) as server:
        server.wait_for_answer(photo)
        turns = until(time.monotonic() + options.seconds)
        show("over HTTP, computed", medians(ask_over_http(server.url), bodies, turns, time.perf_counter))


if __name__ == "__main__":
    main()
