"""The interface's document: valid, complete, true, and readable as a page."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import zipfile
from pathlib import Path

import flask
import pytest
from fakes import colour_png, fake_classifier
from flask.testing import FlaskClient
from shapes import assert_problem, form, validator_of

from app import create_app
from app.errors import PROBLEMS
from app.web.operations import operations_of
from app.web.schemas import SCHEMAS

COCK = colour_png(7, 251, 80)


def archive_of(photo: bytes) -> bytes:
    """Make a ZIP archive of one photo."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("cock.png", photo)
    return archive.getvalue()


@pytest.fixture
def document(client: FlaskClient) -> dict[str, dict]:
    """The document as it is served."""
    answer = client.get("/api/v1/openapi.json")
    assert answer.mimetype == "application/json"
    return answer.json


def test_document_is_valid(document: dict) -> None:
    from openapi_spec_validator import OpenAPIV31SpecValidator, validate

    assert document["openapi"] == "3.1.0"
    validate(document, cls=OpenAPIV31SpecValidator)


def test_document_has_every_route_for_scripts_and_no_other(app: flask.Flask, document: dict) -> None:
    prefixes = ("/api/", "/healthz", "/readyz", "/metrics")
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith(prefixes)]
    routes = {
        (re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in rules
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert {(path, method) for path, item in document["paths"].items() for method in item} == routes


@pytest.mark.parametrize("path", ["predict", "predict/batch", "embed", "heatmap", "model", "models", "labels"])
def test_document_has_the_parameters_of_each_route(
    app: flask.Flask, client: FlaskClient, document: dict, path: str
) -> None:
    ((method, operation),) = document["paths"][f"/api/v1/{path}"].items()
    parameters = {each.name: each.schema for *_, declared in operations_of(app) for each in declared.parameters}
    described = {parameter["name"] for parameter in operation.get("parameters", [])}
    for name, schema in parameters.items():
        value = "resnet18" if name == "model" else schema.get("default", schema.get("minimum", 0))
        body = form(COCK) if "requestBody" in operation else {}
        answer = client.open(f"/api/v1/{path}?{name}={value}", method=method, **body)
        if name in described:
            assert answer.status_code == 200
        else:
            assert_problem(answer, 400, "bad-parameter")


@pytest.mark.parametrize("name", SCHEMAS)
def test_examples_are_of_their_shape(document: dict, name: str) -> None:
    schema = document["components"]["schemas"][name]
    for example in schema.get("examples", []):
        validator_of(document, schema).validate(example)


def examples_of_problems(document: dict) -> list[dict]:
    """List the examples of problems of all operations."""
    return [
        example["value"]
        for item in document["paths"].values()
        for operation in item.values()
        for answer in operation["responses"].values()
        for example in answer.get("content", {}).get("application/problem+json", {"examples": {}})["examples"].values()
    ]


def test_examples_of_problems_are_of_theirs(document: dict) -> None:
    problems = validator_of(document, SCHEMAS["Problem"])
    examples = examples_of_problems(document)
    assert len(examples) > 30
    for example in examples:
        problems.validate(example)


def test_document_has_every_problem_of_its_routes(document: dict) -> None:
    described = {example["type"] for example in examples_of_problems(document)}
    elsewhere = {"/problems/method-not-allowed", "/problems/client-closed-request"}
    assert {f"/problems/{problem.slug}" for problem in PROBLEMS} - described == elsewhere


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "/api/v1/predict", {"data": COCK}),
        ("post", "/api/v1/predict", {"data": b"text"}),
        ("post", "/api/v1/predict?heatmap=1&labels=zh", form(COCK)),
        ("post", "/api/v1/predict/batch", form(COCK, b"text")),
        ("post", "/api/v1/predict/batch", {"data": archive_of(COCK), "content_type": "application/zip"}),
        ("post", "/api/v1/embed", {"data": COCK}),
        ("get", "/api/v1/model", {}),
        ("get", "/api/v1/models", {}),
        ("get", "/api/v1/labels", {}),
        ("get", "/healthz", {}),
        ("get", "/readyz", {}),
    ],
)
def test_answers_are_of_the_shape_that_is_promised(
    client: FlaskClient, document: dict, method: str, path: str, body: dict
) -> None:
    answer = client.open(path, method=method, **body)
    responses = document["paths"][path.partition("?")[0]][method]["responses"]
    schema = responses[str(answer.status_code)]["content"][answer.mimetype]["schema"]
    validator_of(document, schema).validate(answer.json)


def test_the_photo_of_the_example_is_answered(client: FlaskClient, document: dict) -> None:
    content = document["paths"]["/api/v1/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert base64.b64decode(content["example"]["image"]).startswith(b"\x89PNG")
    assert client.post("/api/v1/predict", json=content["example"]).status_code == 200


def test_limits_are_those_of_the_settings(make_settings) -> None:
    client = create_app(make_settings(max_upload_bytes=12_345, max_batch_items=7), fake_classifier()).test_client()
    text = client.get("/api/v1/openapi.json").text
    assert "12,345 bytes" in text
    assert '"maxItems":7' in text


def test_document_says_which_routes_need_a_key(make_settings, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("")
    guarded, open_to_all = (make_settings(**more) for more in ({"api_keys_file": keys}, {}))
    for settings, needed in ((guarded, [{"key": []}]), (open_to_all, [{}, {"key": []}])):
        answer = create_app(settings, fake_classifier()).test_client().get("/api/v1/openapi.json")
        assert answer.status_code == 200
        operations = {path: item.popitem()[1] for path, item in answer.json["paths"].items()}
        security = {path: operation["security"] for path, operation in operations.items()}
        assert security["/api/v1/predict"] == security["/api/v1/model"] == needed
        assert security["/api/v1/openapi.json"] == security["/healthz"] == [{}]
        refused = {path for path, operation in operations.items() if "401" in operation["responses"]}
        assert refused == {path for path, wanted in security.items() if wanted != [{}]}


def test_prefix_of_a_proxy_is_the_servers_address(make_settings) -> None:
    client = create_app(make_settings(trusted_proxies=1), fake_classifier()).test_client()
    document = client.get("/api/v1/openapi.json", headers={"X-Forwarded-Prefix": "/cats"}).json
    assert document["servers"] == [{"url": "/cats"}]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_shows_every_route_shape_and_problem(client: FlaskClient, document: dict, language: str) -> None:
    page = client.get("/docs", headers={"Accept-Language": language})
    assert page.status_code == 200
    targets = set(re.findall(r'id="([^"]+)"', page.text))
    assert set(re.findall(r'href="#([^"]+)"', page.text)) <= targets
    for path, item in document["paths"].items():
        for operation in item.values():
            assert path in page.text
            assert operation["operationId"] in targets
            for answer in operation["responses"].values():
                assert all(
                    line.split("`")[1] in page.text for line in answer["description"].split("\n") if "`" in line
                )
    assert {f"schema-{name}" for name in SCHEMAS} <= targets


def test_page_needs_no_other_host_and_no_inline_style(client: FlaskClient) -> None:
    text = client.get("/docs").text
    assert re.findall(r'(?:src|href)="(?:https?:)?//', text) == []
    assert "style=" not in text


def test_page_shows_examples_as_json(client: FlaskClient) -> None:
    page = client.get("/docs").text
    block = re.search(r'id="schema-Prediction".*?<pre[^>]*><code>(.*?)</code>', page, re.DOTALL)[1]
    assert json.loads(block.replace("&#34;", '"'))["label_zh"] == "条纹猫"


@pytest.mark.parametrize(
    ("route", "line"),
    [
        ("predict", "-F file=@cat.jpg http://localhost/cats/api/v1/predict"),
        ("predictBatch", "-F file=@cat.jpg -F file=@dog.jpg http://localhost/cats/api/v1/predict/batch"),
        ("heatmap", "-F file=@cat.jpg http://localhost/cats/api/v1/heatmap --output heatmap.png"),
    ],
)
def test_page_shows_commands_as_they_are_typed(make_settings, tmp_path: Path, route: str, line: str) -> None:
    (tmp_path / "keys.txt").write_text("", encoding="utf-8")
    for settings, key in [({}, ""), ({"api_keys_file": tmp_path / "keys.txt"}, '-H "Authorization: Bearer $KEY" ')]:
        app = create_app(make_settings(trusted_proxies=1, **settings), fake_classifier())
        page = app.test_client().get("/docs", headers={"X-Forwarded-Prefix": "/cats"}).text
        block = re.search(rf'id="{route}".*?<pre tabindex="0"><code>(.*?)</code>', page, re.DOTALL)[1]
        assert html.unescape(block) == f"curl {key}{line}"


def test_front_page_leads_to_the_document(client: FlaskClient) -> None:
    assert 'href="./docs"' in client.get("/").text


def test_only_predictions_take_several_models(client: FlaskClient) -> None:
    paths = client.get("/api/v1/openapi.json").json["paths"]
    schemas = {
        path: parameter["schema"]
        for path, operations in paths.items()
        for operation in operations.values()
        for parameter in operation.get("parameters", ())
        if parameter["name"] == "model"
    }
    several = {path for path, schema in schemas.items() if re.search(schema.get("pattern", ""), "pets,resnet18")}
    assert several == {"/api/v1/predict", "/api/v1/predict/batch"}
    assert len(schemas) > len(several)
