"""Teaching with several real workers: nothing is lost, and what is published answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from servers import GUNICORN, Server, serving
from taught import COLOURS, photo_of

from app.settings import Settings

PROJECT = "/api/v1/projects/colours"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}

pytestmark = pytest.mark.live


@pytest.fixture
def server(packaged_settings: Settings, tmp_path: Path) -> Iterator[Server]:
    """A service of two workers with teaching on."""
    folders = {"projects": tmp_path / "projects", "models": tmp_path / "models"}
    with serving(
        packaged_settings.cache, tmp_path / "log", command=GUNICORN, teach="on", workers=2, **folders
    ) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture
def page(server: Server) -> Iterator[httpx.Client]:
    """A client whose requests come from our own page."""
    with httpx.Client(base_url=server.url, headers=SAME_ORIGIN, timeout=60) as client:
        yield client


def test_two_workers_and_four_people_lose_nothing(server: Server, page: httpx.Client) -> None:
    assert page.put(PROJECT, json={}).status_code == 201
    answers: list[httpx.Response] = []

    def work(colour: str) -> None:
        with httpx.Client(base_url=server.url, headers=SAME_ORIGIN, timeout=60) as person:
            person.put(f"{PROJECT}/classes/{colour}", json={})
            for seed in range(6):
                # A connection each, so that both workers get some.
                answers.append(
                    httpx.post(
                        f"{server.url}{PROJECT}/classes/{colour}/photos",
                        content=photo_of(colour, seed),
                        headers=SAME_ORIGIN,
                        timeout=60,
                    )
                )

    people = [threading.Thread(target=work, args=(colour,)) for colour in COLOURS]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert {answer.status_code for answer in answers} == {200}
    project = page.get(PROJECT).json()
    assert {row["label"]: row["photos"] for row in project["classes"]} == dict.fromkeys(COLOURS, 6) | {"~none": 0}
    reports = [httpx.get(f"{server.url}{PROJECT}/report", timeout=60).json() for _ in range(6)]
    assert all(report["classes"] == reports[0]["classes"] for report in reports)
    photo = photo_of("red", 50)
    draft = page.post(f"{PROJECT}/predict", content=photo).json()
    assert page.post(f"{PROJECT}/publish").json()["version"] == 1
    assert f" Ready: {server.url}/teach" in server.log
    server.wait_for_log("The model colours answers in version 1", times=2)
    served = httpx.post(f"{server.url}/api/v1/predict?model=colours", content=photo, timeout=60).json()
    assert [row["label"] for row in served["predictions"]] == [row["label"] for row in draft["predictions"]]
    for ours, theirs in zip(draft["predictions"], served["predictions"], strict=True):
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-6)
    bundle = page.get(f"{PROJECT}/bundle")
    assert bundle.headers["Content-Disposition"] == 'attachment; filename="topthree-colours-1.tar"'
    assert len(bundle.content) == int(bundle.headers["Content-Length"])
