"""What requests and refusals look like, said once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
from werkzeug.test import TestResponse

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator


def form(*photos: bytes, name: str | None = "a.png", field: str = "file") -> dict[str, Any]:
    """Encode photos as a form, in memory: Flask's own client would put a large one into a file."""
    request = httpx.Request("POST", "http://localhost/", files=[(field, (name, photo)) for photo in photos])
    return {"data": request.read(), "content_type": request.headers["Content-Type"]}


def assert_problem(answer: TestResponse | httpx.Response, status: int, slug: str) -> str:
    """Assert that an answer is the problem `slug` with this status, and return its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    document = json.loads(answer.text)
    assert document.pop("instance") == "urn:topthree:request:" + answer.headers["X-Request-ID"]
    return assert_problem_document(document, status, slug)


def assert_problem_document(document: dict[str, Any], status: int, slug: str) -> str:
    """Assert the members of a problem, alone or inside a batch, and return its detail."""
    assert [member for member in document if member != "instance"] == ["type", "title", "status", "detail"]
    assert document["type"] == f"/problems/{slug}"
    assert document["status"] == status
    assert document["title"]
    assert document["title"] != document["detail"]
    assert document["detail"][-1] in ".)…'", document["detail"]
    return document["detail"]


class SlowBody:
    """A body without end that counts what was read of it."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        """Give as much as is asked for."""
        self.taken += size
        return bytes(size)


def validator_of(document: dict, schema: dict) -> Draft202012Validator:
    """Make a validator of one schema of the interface's document, which takes no member that a schema lacks."""
    from jsonschema import Draft202012Validator  # which takes more than a second, not to be spent by every process

    schemas = {
        name: each | ({"additionalProperties": False} if "properties" in each else {})
        for name, each in document["components"]["schemas"].items()
    }
    return Draft202012Validator(schema | {"components": {"schemas": schemas}})
