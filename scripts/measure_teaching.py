"""Measure how soon a taught photo counts, and what teaching costs those who only ask.

    PYTHONPATH=. python scripts/measure_teaching.py PHOTOS [--photos 200] [--rounds 4] [--seconds 30]

PHOTOS is a folder of folders, one a class, as `topthree train` takes. A service of its own, which the environment
configures, gets a project with that many of them. Then single photos are added, and the time from the arrival of each
to the new report is taken. Then four clients ask for predictions, in turns without and beside a person who adds a
photo a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.measuring.load import closed_loop, http_sender
from app.measuring.own_server import own_server
from app.settings import Settings

CLIENTS = 4
SINGLE_PHOTOS = 10
AT_ONCE = 20
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


class Project:
    """A project of a service, and the photos that it gets one after another, from each class in turn."""

    def __init__(self, url: str, photos: Path) -> None:
        address = f"{url}/api/v1/projects/measured"
        self.client = httpx.Client(base_url=address, headers=OWN_PAGE, timeout=120)
        self.client.put(address).raise_for_status()
        classes = [sorted(folder.iterdir()) for folder in sorted(photos.iterdir()) if folder.is_dir()]
        self.waiting = (path for paths in itertools.zip_longest(*classes) for path in paths if path)
        for paths in classes:
            self.client.put(f"/classes/{paths[0].parent.name}").raise_for_status()

    def add(self, count: int) -> None:
        """Add this number of photos."""
        for label, group in itertools.groupby(
            sorted(itertools.islice(self.waiting, count)), lambda path: path.parent.name
        ):
            files = [("file", (path.name, path.read_bytes())) for path in group]
            self.client.post(f"/classes/{label}/photos", files=files).raise_for_status()

    def add_one(self) -> float:
        """Add a photo, and return the seconds from its arrival to the report that counts it."""
        begin = time.monotonic()
        self.add(1)
        self.client.get("/report").raise_for_status()
        return time.monotonic() - begin


@contextmanager
def person(project: Project) -> Iterator[None]:
    """Add a photo a second until the block ends."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(1):
            project.add_one()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        is_over.set()
        worker.join()


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        kept = {"projects": Path(work, "projects"), "models": Path(work, "models")}
        settings = Settings.from_environment(os.environ | {"TOPTHREE_TEACH": "on"})
        with own_server(dataclasses.replace(settings, result_cache_bytes=0, **kept)) as server:
            server.wait_until_ready()
            project = Project(server.url, asked.folder)
            for begin in range(0, asked.photos, AT_ONCE):
                project.add(min(AT_ONCE, asked.photos - begin))
            project.add_one()
            seconds = [project.add_one() for _ in range(SINGLE_PHOTOS)]
            print(
                f"{asked.photos} photos; from arrival to report: median {statistics.median(seconds):.3f} s, ", end=""
            )
            print(f"slowest {max(seconds):.3f} s", flush=True)
            compare(project, server.url, asked)


def compare(project: Project, url: str, asked: argparse.Namespace) -> None:
    """Print the 99th percentile of predictions without and beside a person who teaches."""
    photos = [path.read_bytes() for path in itertools.islice(asked.folder.rglob("*.jpg"), 100)]
    ratios = []
    for _ in range(asked.rounds):
        alone = closed_loop(http_sender(url), photos, clients=CLIENTS, seconds=asked.seconds)
        with person(project):
            beside = closed_loop(http_sender(url), photos, clients=CLIENTS, seconds=asked.seconds)
        ratios.append(beside.p99 / alone.p99)
        print(
            f"alone {alone.requests} requests, {alone.errors} errors, p99 {alone.p99:.0f} ms;  beside teaching "
            f"{beside.requests}, {beside.errors}, {beside.p99:.0f} ms;  {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"median {statistics.median(ratios):.2f}, of {asked.rounds} rounds")


if __name__ == "__main__":
    main()
