"""Failures as answers: ours and the framework's alike, as JSON for scripts and as a page for people."""

from __future__ import annotations

import flask
import pytest
from flask.testing import FlaskClient
from shapes import assert_problem, assert_problem_document
from werkzeug.exceptions import HTTPException, RequestedRangeNotSatisfiable, default_exceptions

from app.errors import PROBLEMS, Problem
from app.web.problems import problem_class, render_problem

EXPECTED = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}
FRAMEWORK = sorted(default_exceptions.items())


@pytest.fixture(scope="module")
def app(shared_app: flask.Flask) -> flask.Flask:
    """One application for all tests, with addresses that fail and one that is a folder."""

    def fail() -> str:
        raise shared_app.config["FAILS_WITH"]

    shared_app.add_url_rule("/api/fail", "api_fail", fail)
    shared_app.add_url_rule("/fail", "fail", fail)
    shared_app.add_url_rule("/folder/", "folder", lambda: "here")
    return shared_app


def failing(app: flask.Flask, error: Exception) -> FlaskClient:
    """Make a client whose GET of /api/fail and /fail raises this."""
    app.config["FAILS_WITH"] = error
    return app.test_client()


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.slug)
def test_problem_is_rendered_for_scripts_and_people(app: flask.Flask, problem: type[Problem]) -> None:
    client = failing(app, problem("Because of this."))
    assert assert_problem(client.get("/api/fail"), problem.status, problem.slug) == "Because of this."
    page = client.get("/fail")
    assert (page.status_code, page.mimetype) == (problem.status, "text/html")
    assert page.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.slug)
def test_retry_after_is_a_number_of_seconds_where_it_helps(app: flask.Flask, problem: type[Problem]) -> None:
    retry_after = failing(app, problem("Because.")).get("/api/fail").headers.get("Retry-After")
    assert (retry_after is not None) == (problem.retry_after_seconds is not None)
    if problem.status == 503:
        assert int(retry_after or 0) > 0


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.slug)
def test_type_of_a_problem_is_a_page(client: FlaskClient, problem: type[Problem]) -> None:
    assert problem_class(problem.slug) is problem
    assert client.get(f"/problems/{problem.slug}").status_code == 200


def test_unknown_problem_is_not_found(client: FlaskClient) -> None:
    assert problem_class("nope") is None
    assert client.get("/problems/nope").status_code == 404


@pytest.mark.parametrize(("code", "error"), FRAMEWORK, ids=[str(code) for code, _ in FRAMEWORK])
def test_every_error_of_the_framework_becomes_a_problem(
    app: flask.Flask, code: int, error: type[HTTPException]
) -> None:
    slug, status = EXPECTED.get(code, "bad-request"), code if code in EXPECTED else 400
    if code >= 500:
        slug, status = "internal-error", 500
    assert_problem(failing(app, error()).get("/api/fail"), status, slug)


def test_headers_of_the_framework_survive(app: flask.Flask) -> None:
    answer = failing(app, RequestedRangeNotSatisfiable(length=9)).get("/api/fail")
    assert answer.headers["Content-Range"] == "bytes */9"


def test_redirect_stays_a_redirect(app: flask.Flask) -> None:
    assert app.test_client().get("/folder").status_code == 308


def test_an_unexpected_failure_hides_its_cause_and_logs_it(app: flask.Flask, caplog: pytest.LogCaptureFixture) -> None:
    client = failing(app, RuntimeError("secret path /srv/keys"))
    detail = assert_problem(client.get("/api/fail"), 500, "internal-error")
    assert "secret" not in detail + client.get("/fail").text
    assert "RuntimeError: secret path /srv/keys" in caplog.text


@pytest.mark.parametrize("path", ["/api/none", "/api/v1/none?x=<script>", "/healthz", "/readyz"])
def test_scripts_and_probes_get_json(client: FlaskClient, path: str) -> None:
    answer = client.post(path)
    assert_problem_document(
        answer.json, answer.status_code, {404: "not-found", 405: "method-not-allowed"}[answer.status_code]
    )


@pytest.mark.parametrize("path", ["/none", "/static/none.css", "/none/of/these", "/%3Cscript%3Ealert(1)%3C/script%3E"])
def test_people_get_a_page(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.slug)
def test_flask_and_the_renderer_give_the_same_problem(app: flask.Flask, problem: type[Problem]) -> None:
    raised = problem("Because of this.")
    answer = failing(app, raised).get("/api/fail", headers={"X-Request-ID": "a-1"})
    status, headers, body = render_problem(raised, "a-1")
    assert (answer.status_code, answer.data) == (status, body)
    assert dict(answer.headers) == headers | {"Content-Length": str(len(body))}
