"""Projects of teaching through the API, with a real model and drawn photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import flask
import numpy as np
import pytest
from fakes import encode
from flask.testing import FlaskClient
from PIL import Image

from app import create_app
from app.classifier import Classifier
from app.settings import Settings

PROJECTS = "/api/v1/projects"
OURS = {"Sec-Fetch-Site": "same-origin"}


def drawn(kind: str, seed: int) -> bytes:
    """Draw a photo of a kind: stripes, dots or a gradient, in colours of its own."""
    random = np.random.default_rng([seed, *kind.encode()])
    y, x = np.mgrid[0:240, 0:240] / 240
    colours = random.uniform(40, 215, (2, 3))
    if kind == "stripes":
        share = np.sin(2 * np.pi * (x * random.uniform(6, 14) + y * random.uniform(0, 3))) > 0
    elif kind == "dots":
        step = random.uniform(0.08, 0.16)
        share = ((x % step - step / 2) ** 2 + (y % step - step / 2) ** 2) < (step / 3.2) ** 2
    else:
        share = x * random.uniform(0.2, 1) + y * random.uniform(0.2, 1)
    pixels = colours[0] * (1 - share[..., None]) + colours[1] * share[..., None]
    pixels += random.normal(0, 6, pixels.shape)
    return encode(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), "JPEG", quality=90)


@pytest.fixture
def app_of_projects(
    make_settings: Callable[..., Settings], packaged_classifier: Classifier, tmp_path: Path
) -> flask.Flask:
    """An application with teaching on, and the packaged model."""
    settings = make_settings(teach="on", projects=tmp_path / "projects", models=tmp_path / "models")
    return create_app(settings, packaged_classifier)


@pytest.fixture
def teacher(app_of_projects: flask.Flask) -> FlaskClient:
    """A client whose writes come from our own page."""
    client = app_of_projects.test_client()
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    return client


@pytest.fixture
def project(teacher: FlaskClient) -> Iterator[FlaskClient]:
    """A client of a project `shapes` with two classes of six photos each."""
    assert teacher.put(f"{PROJECTS}/shapes").status_code == 201
    for kind in ("stripes", "dots"):
        assert teacher.put(f"{PROJECTS}/shapes/classes/{kind}").status_code == 201
        for seed in range(6):
            assert added(teacher, kind, drawn(kind, seed))["state"] == "added"
    return teacher


def added(client: FlaskClient, label: str, photo: bytes, name: str = "shapes") -> dict:
    """Add a photo, and return what became of it."""
    answer = client.post(f"{PROJECTS}/{name}/classes/{label}/photos", data=photo)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json["photos"]
    return found


def test_head_is_solved_and_reported(project: FlaskClient) -> None:
    report = project.get(f"{PROJECTS}/shapes/report").json
    assert report["ready"]
    assert report["accuracy"]["value"] > 0.8
    assert [each["label"] for each in report["classes"]] == ["stripes", "dots", "~none"]
    assert all(len(each["doubted"]) == 2 for each in report["classes"][:2])


def test_prediction_is_by_the_newest_head(project: FlaskClient) -> None:
    photo = drawn("dots", 99)
    answer = project.post(f"{PROJECTS}/shapes/predict", data=photo).json
    assert answer["predictions"][0]["label"] == "dots"
    assert answer["model"]["name"] == "shapes"
    assert "version" not in answer["model"]


def test_published_version_answers_as_the_project(project: FlaskClient, packaged_classifier: Classifier) -> None:
    photo = drawn("stripes", 98)
    before = project.post(f"{PROJECTS}/shapes/predict", data=photo).json
    published = project.post(f"{PROJECTS}/shapes/publish")
    assert (published.status_code, published.json) == (201, {"name": "shapes", "version": 1})
