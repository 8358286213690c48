"""What each route of the API takes and returns, declared at its view: `@operation(…)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import flask
from msgspec import Struct

from ..errors import Problem
from .schemas import Schema

TEXT: Schema = {"type": "string"}
BINARY: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}

View = TypeVar("View", bound=Callable[..., Any])

_ATTRIBUTE = "topthree_operation"


class Parameter(Protocol):
    """A query parameter, as `parameters.py` declares them."""

    @property
    def name(self) -> str:
        """Return its name in the query."""

    @property
    def description(self) -> str:
        """Return a sentence for the OpenAPI document."""

    @property
    def schema(self) -> Schema:
        """Return the JSON Schema of its values."""


@dataclass(frozen=True)
class Operation:
    """What a route takes and returns; the view's docstring is its summary and description.

    `answers` are the documents or schemas of its answers by media type. `takes` says whether its body is one photo,
    many, a file, a JSON document of its own, or nothing; `status` is that of success. `problems` are those besides the
    problems of every route that takes the same.
    """

    answers: Mapping[str, Schema | type[Struct]]
    takes: Literal["photo", "photos", "any", "file", "json", ""] = ""
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[type[Problem], ...] = ()
    needs_key: bool = True
    status: int = 200
    body: type[Struct] | None = None

    def __call__(self, view: View) -> View:
        """Declare this operation for a view."""
        setattr(view, _ATTRIBUTE, self)
        return view


operation = Operation


def operation_of(view: Callable[..., Any] | None) -> Operation | None:
    """Return the operation that is declared for a view, or None."""
    found: Operation | None = getattr(view, _ATTRIBUTE, None)
    return found


def operations_of(app: flask.Flask) -> Iterator[tuple[str, str, str, Operation]]:
    """Yield path, method, endpoint and declaration of each route that has one."""
    for rule in app.url_map.iter_rules():
        found = operation_of(app.view_functions[rule.endpoint])
        if found is not None:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule.rule, method.lower(), rule.endpoint, found
