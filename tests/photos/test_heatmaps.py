"""Heat maps: the numbers in an answer, and the picture for scripts."""

from __future__ import annotations

import io

import numpy as np
import pytest
from fakes import colour_png
from flask.testing import FlaskClient
from PIL import Image

from app import create_app
from app.classifier import Classifier
from app.photos.heatmaps import STOPS, class_activation_map, colours, draw

WHOLE = {"left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0}
PEAK_TOP_LEFT = [[1.0 if (x, y) == (0, 0) else 0.0 for x in range(7)] for y in range(7)]


def test_a_class_activation_map_is_the_positive_weighted_sum() -> None:
    features = np.zeros((2, 7, 7), np.float32)
    features[0, 1, 2], features[1, 5, 5] = 4.0, 8.0
    grid = class_activation_map(features, np.array([0.5, -1.0], np.float32))
    assert grid[1, 2] == 1.0
    assert grid[5, 5] == 0.0
    assert grid.sum() == 1.0
    assert class_activation_map(features, np.array([-1.0, -1.0], np.float32)).max() == 0.0


def grey(width: int = 70, height: int = 70) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def pixels(picture: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32)


def brightness(rgb: np.ndarray) -> np.ndarray:
    """Return the relative luminance of sRGB colours, as WCAG defines it."""
    part = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def test_colours_grow_brighter_with_every_step() -> None:
    steps = brightness(colours(np.linspace(0, 1, 101, dtype=np.float32)))
    assert (np.diff(steps) > 0).all()
    assert steps[-1] > 10 * steps[0]


def test_colours_meet_their_stops() -> None:
    assert np.allclose(colours(np.linspace(0, 1, len(STOPS), dtype=np.float32)), STOPS)


def test_the_strongest_place_is_yellow_and_the_weakest_blue() -> None:
    drawn = pixels(draw(grey(), PEAK_TOP_LEFT, WHOLE, "PNG"))
    red, green, blue = drawn[2, 2]
    assert min(red, green) > blue + 50
    red, green, blue = drawn[-3, -3]
    assert blue > red


def test_outside_the_crop_the_photo_is_darkened_evenly() -> None:
    crop = WHOLE | {"left": 0.25, "right": 0.75}
    drawn = pixels(draw(grey(80), PEAK_TOP_LEFT, crop, "PNG"))
    assert np.ptp(drawn[:, :20]) == 0
    assert np.array_equal(drawn[:, :20], drawn[:, 60:])
    assert drawn[0, 0, 0] == pytest.approx(128 * 0.38, abs=1)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1024, 1), (1, 1024), (7, 5)])
def test_thin_and_tiny_photos_are_drawn(width: int, height: int) -> None:
    crop = {"left": 0.4999, "top": 0.0625, "right": 0.5001, "bottom": 0.9375}
    assert pixels(draw(grey(width, height), PEAK_TOP_LEFT, crop, "PNG")).shape == (height, width, 3)


@pytest.mark.parametrize(
    ("accept", "mimetype", "kind"),
    [
        (None, "image/png", "PNG"),
        ("*/*", "image/png", "PNG"),
        ("image/webp", "image/webp", "WEBP"),
        ("image/png;q=0.5, image/webp", "image/webp", "WEBP"),
        ("text/html", "image/png", "PNG"),
    ],
)
def test_the_picture_is_of_the_kind_that_is_asked_for(
    client: FlaskClient, accept: str | None, mimetype: str, kind: str
) -> None:
    headers = {"Accept": accept} if accept else {}
    response = client.post("/api/v1/heatmap", data=colour_png(8), content_type="image/png", headers=headers)
    assert (response.status_code, response.mimetype) == (200, mimetype)
    with Image.open(io.BytesIO(response.data)) as image:
        assert (image.format, image.size) == (kind, (300, 260))
    assert "accept" in {name.lower() for name in response.vary.as_set()}


def test_a_large_photo_comes_back_smaller(client: FlaskClient) -> None:
    photo = colour_png(8, size=(3000, 1500))
    response = client.post("/api/v1/heatmap", data=photo, content_type="image/png")
    assert pixels(response.data).shape == (512, 1024, 3)


@pytest.mark.parametrize("class_id", ["1000", "-1", "cat", "", "1.5"])
def test_a_class_that_does_not_exist_is_refused(client: FlaskClient, class_id: str) -> None:
    response = client.post(f"/api/v1/heatmap?class_id={class_id}", data=colour_png(8), content_type="image/png")
    assert response.status_code == 400
    assert response.json["type"] == "/problems/bad-parameter"


@pytest.mark.parametrize(("data", "status"), [(b"", 400), (b"text", 415), (b"\x89PNG\r\n\x1a\n", 422)])
def test_a_bad_photo_is_a_problem_not_a_picture(client: FlaskClient, data: bytes, status: int) -> None:
    response = client.post("/api/v1/heatmap", data=data, content_type="image/png")
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")


def test_a_picture_is_not_stored_and_says_where_its_time_went(client: FlaskClient) -> None:
    response = client.post("/api/v1/heatmap", data=colour_png(8), content_type="image/png")
    assert response.headers["Cache-Control"] == "no-store"
    assert "infer;dur=" in response.headers["Server-Timing"]


@pytest.fixture
def real_client(make_settings, packaged_classifier: Classifier) -> FlaskClient:
    """A client of an application with the real packaged model."""
    return create_app(make_settings(), packaged_classifier).test_client()


def test_the_default_is_the_first_answer_and_others_differ(
    real_client: FlaskClient, real_photos: dict[str, bytes]
) -> None:
    def ask(query: str, path: str = "heatmap"):
        return real_client.post(f"/api/v1/{path}{query}", data=real_photos["coffee"], content_type="image/jpeg")

    best = ask("", "predict").json["predictions"][0]["class_id"]
    assert ask("").data == ask(f"?class_id={best}").data
    assert ask("?class_id=0").data != ask("").data


def test_a_real_map_points_at_the_thing(real_client: FlaskClient, real_photos: dict[str, bytes]) -> None:
    answer = real_client.post("/api/v1/predict?heatmap=1", data=real_photos["coffee"], content_type="image/jpeg").json
    grid = np.array(answer["predictions"][0]["heatmap"])
    assert grid.shape == (7, 7)
    assert grid.max() == 1
    # The cup stands in the middle of the photo; the corners show the table.
    assert grid[2:5, 2:5].mean() > 2 * grid[[0, 0, -1, -1], [0, -1, 0, -1]].mean()
