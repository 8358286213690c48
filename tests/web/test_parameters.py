"""The query parameters: strict, so that a misspelled one is reported."""

from __future__ import annotations

import flask
import pytest
from fakes import colour_png
from flask.testing import FlaskClient
from shapes import assert_problem
from werkzeug.test import TestResponse

from app.errors import BadParameter
from app.web.parameters import Integer, Parameters, read_parameters

COCK = colour_png(7, 251, 80)
N = Integer("n", "A number.", low=1, high=9, default=3)


def ask(client: FlaskClient, query: str, route: str = "predict") -> TestResponse:
    """Send a photo whose three colours have 0.665, 0.245 and 0.090 of confidence."""
    return client.post(f"/api/v1/{route}?{query}", data=COCK)


@pytest.mark.parametrize(("text", "value"), [("", 3), ("?n=1", 1), ("?n=9", 9), ("?n=007", 7)])
def test_integer_parameter_is_read(app: flask.Flask, text: str, value: int) -> None:
    with app.test_request_context(f"/{text}"):
        assert N.read() == value


@pytest.mark.parametrize("text", ["?n=", "?n=0", "?n=10", "?n=%2B3", "?n=%EF%BC%93", "?n=1_0", "?n=0000000003"])
def test_bad_integer_parameter_names_its_range(app: flask.Flask, text: str) -> None:
    with app.test_request_context(f"/{text}"), pytest.raises(BadParameter, match="'n' must be .* from 1 to 9"):
        N.read()


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("", Parameters(3, 0.0, "both", False)),
        ("top=5&min_confidence=0.25&labels=zh&heatmap=1", Parameters(5, 0.25, "zh", True)),
        ("min_confidence=1e-05", Parameters(3, 0.00001, "both", False)),
        ("min_confidence=1", Parameters(3, 1.0, "both", False)),
        ("min_confidence=.5", Parameters(3, 0.5, "both", False)),
    ],
)
def test_parameters_are_read(app: flask.Flask, query: str, parameters: Parameters) -> None:
    with app.test_request_context(f"/api/v1/predict?{query}", method="POST"):
        assert read_parameters() == parameters


@pytest.mark.parametrize(
    "text", ["", "-0.1", "1.01", "nan", "inf", "1e400", "0,5", "%200.5", "0_1", "٠", "half", "1e"]
)
def test_bad_confidence_is_refused_with_its_range(client: FlaskClient, text: str) -> None:
    detail = assert_problem(ask(client, f"min_confidence={text}"), 400, "bad-parameter")
    assert detail == "The parameter 'min_confidence' must be a number from 0 to 1."


@pytest.mark.parametrize("text", ["", "EN", "fr", "en,zh"])
def test_bad_labels_are_refused_with_the_choices(client: FlaskClient, text: str) -> None:
    assert "en, zh, both" in assert_problem(ask(client, f"labels={text}"), 400, "bad-parameter")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("tpo=5", "There is no parameter 'tpo'. Perhaps 'top' is meant."),
        ("min-confidence=0.5", "Perhaps 'min_confidence' is meant."),
        ("debug=1", "The parameters are: top, min_confidence, labels, heatmap, model."),
        ("top=1&top=2", "The parameter 'top' is given 2 times."),
    ],
)
def test_unknown_or_repeated_parameters_are_refused(client: FlaskClient, query: str, text: str) -> None:
    assert text in assert_problem(ask(client, query), 400, "bad-parameter")


@pytest.mark.parametrize("route", ["predict", "predict/batch", "heatmap", "embed"])
def test_every_route_for_photos_is_strict(client: FlaskClient, route: str) -> None:
    assert "'x'" in assert_problem(ask(client, "x=1", route), 400, "bad-parameter")


@pytest.mark.parametrize(("route", "names"), [("heatmap", "class_id, model"), ("embed", "normalize, model")])
def test_refusal_lists_the_parameters_of_its_route(client: FlaskClient, route: str, names: str) -> None:
    detail = assert_problem(ask(client, "debug=1", route), 400, "bad-parameter")
    assert detail == f"There is no parameter 'debug'. The parameters are: {names}."


@pytest.mark.parametrize(
    ("route", "text"),
    [("predict", "Parameters go into the query: ?top=…"), ("embed", "The photo is the member 'image'")],
)
def test_json_member_is_a_parameter_only_of_its_route(client: FlaskClient, route: str, text: str) -> None:
    answer = client.post(f"/api/v1/{route}", json={"top": 5})
    assert text in assert_problem(answer, 400, "bad-request")


def test_routes_without_parameters_say_so(client: FlaskClient) -> None:
    answer = client.get("/api/v1/models?q=cat")
    assert "takes none" in assert_problem(answer, 400, "bad-parameter")


@pytest.mark.parametrize(("least", "count"), [("0", 3), ("0.244728", 2), ("0.244729", 1), ("0.7", 0)])
def test_answers_below_the_confidence_are_left_out(client: FlaskClient, least: str, count: int) -> None:
    assert len(ask(client, f"min_confidence={least}").json["predictions"]) == count


@pytest.mark.parametrize(
    ("labels", "names"),
    [("en", ["label", "label_gloss"]), ("zh", ["label_zh"]), ("both", ["label", "label_zh", "label_gloss"])],
)
def test_labels_choose_the_language(client: FlaskClient, labels: str, names: list[str]) -> None:
    for row in ask(client, f"labels={labels}").json["predictions"]:
        assert [member for member in row if member.startswith("label")] == names
