"""The query parameters of the API: each is declared once, is read strictly, and has its own schema for OpenAPI.

A view names those of its route in `@operation(…)`; any other is refused, so that a misspelled one does not go
unnoticed. Parameters of one route are declared beside its view.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import flask

from ..errors import BadParameter
from ..photos.heatmaps import MAX_HEATMAPS
from .mistakes import is_address
from .operations import operation_of
from .schemas import Schema

Names = Literal["en", "zh", "both"]
Choices = TypeVar("Choices", bound=str)
# Longer than any number that a program would send.
_MAX_DIGITS = 40


@dataclass(frozen=True)
class Integer:
    """A whole number from `low` to `high`."""

    name: str
    description: str
    low: int
    high: int
    default: int | None = None

    @property
    def schema(self) -> Schema:
        """Return the JSON Schema of the values."""
        limits: Schema = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return limits if self.default is None else limits | {"default": self.default}

    def read(self) -> int:
        """Read a parameter that has a default; raises BadParameter with the range."""
        assert self.default is not None
        return self.read_or(self.default)

    def read_or(self, default: int, *, high: int | None = None) -> int:
        """Read the parameter, with a default and a range that only the request gives; raises BadParameter."""
        text, high = flask.request.args.get(self.name), self.high if high is None else high
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 10 and self.low <= int(text) <= high):
            raise BadParameter(f"The parameter '{self.name}' must be a whole number from {self.low} to {high}.")
        return int(text)


@dataclass(frozen=True)
class Flag:
    """0 or 1, and 0 if it is not given."""

    name: str
    description: str

    @property
    def schema(self) -> Schema:
        """Return the JSON Schema of the values."""
        return {"type": "integer", "enum": [0, 1], "default": 0}

    def read(self) -> bool:
        """Read the parameter; raises BadParameter."""
        return Integer(self.name, self.description, low=0, high=1, default=0).read() == 1


@dataclass(frozen=True)
class Fraction:
    """A number from 0 to 1, and 0 if it is not given."""

    name: str
    description: str

    @property
    def schema(self) -> Schema:
        """Return the JSON Schema of the values."""
        return {"type": "number", "minimum": 0, "maximum": 1, "default": 0}

    def read(self) -> float:
        """Read the parameter; raises BadParameter."""
        text = flask.request.args.get(self.name, "0")
        try:
            # float() also reads spaces, underscores and digits of other scripts.
            value = float(text) if set(text) <= set("0123456789.eE-") and len(text) <= _MAX_DIGITS else -1.0
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise BadParameter(f"The parameter '{self.name}' must be a number from 0 to 1.")
        return value + 0.0  # turns -0.0 into 0.0, for one spelling of the same answer


@dataclass(frozen=True)
class Choice(Generic[Choices]):
    """One of some words."""

    name: str
    description: str
    choices: tuple[Choices, ...]
    default: Choices

    @property
    def schema(self) -> Schema:
        """Return the JSON Schema of the values."""
        return {"type": "string", "enum": list(self.choices), "default": self.default}

    def read(self) -> Choices:
        """Read the parameter; raises BadParameter with the choices."""
        text = flask.request.args.get(self.name, self.default)
        for choice in self.choices:
            if text == choice:
                return choice
        raise BadParameter(f"The parameter '{self.name}' must be one of {', '.join(self.choices)}.")


@dataclass(frozen=True)
class Text:
    """Any text."""

    name: str
    description: str
    example: str

    @property
    def schema(self) -> Schema:
        """Return the JSON Schema of the values."""
        return {"type": "string", "examples": [self.example]}

    def read(self) -> str | None:
        """Read the parameter; None if it is not given."""
        return flask.request.args.get(self.name)


@dataclass(frozen=True)
class ModelNames:
    """Names of up to `most` models, separated by commas."""

    name: str
    description: str
    most: int

    @property
    def schema(self) -> Schema:
        """Return the JSON Schema of the values."""
        if self.most == 1:
            return {"type": "string", "pattern": "^[^,]+$", "examples": ["pets"]}
        return {"type": "string", "minLength": 1, "examples": ["pets", "pets,resnet18"]}

    def read(self) -> tuple[str, ...]:
        """Read the names, none if the parameter is not given.

        Raises BadParameter for an empty name, for a name that is repeated, and for more than `most` names.
        """
        text = flask.request.args.get(self.name)
        if text is None:
            return ()
        names = tuple(text.split(","))
        if not all(names) or len(set(names)) < len(names):
            raise BadParameter(f"The parameter '{self.name}' must be names of models, separated by commas, each once.")
        if len(names) > self.most:
            limit = "one model" if self.most == 1 else f"at most {self.most} models"
            raise BadParameter(f"The parameter '{self.name}' must name {limit} here, and names {len(names)}.")
        return names


TOP = Integer("top", "How many classes.", low=1, high=1000, default=3)
MIN_CONFIDENCE = Fraction("min_confidence", "Leave out answers below it.")
LABELS = Choice[Names]("labels", "The language of class names.", ("en", "zh", "both"), default="both")
HEATMAP = Flag("heatmap", f"1 adds a heat map to the first {MAX_HEATMAPS} answers.")
PREDICTION = (TOP, MIN_CONFIDENCE, LABELS, HEATMAP)
MODEL = ModelNames("model", "The model; `GET /api/v1/models` lists the names.", most=1)
_MAX_MODELS = 4
MODELS = ModelNames(
    "model",
    f"The model that answers, or up to {_MAX_MODELS} of them, separated by commas; `GET /api/v1/models` lists their"
    " names.",
    most=_MAX_MODELS,
)


@dataclass(frozen=True)
class Parameters:
    """The values of `PREDICTION`; equal ones give the same photo the same bytes."""

    top: int
    min_confidence: float
    labels: Names
    heatmap: bool


def read_parameters() -> Parameters:
    """Read the parameters of a prediction; raises BadParameter for one that is unknown, repeated or out of range."""
    refuse_unknown()
    return Parameters(TOP.read(), MIN_CONFIDENCE.read(), LABELS.read(), HEATMAP.read())


def known_parameters() -> tuple[str, ...]:
    """Return the names of the parameters that the current route declares."""
    declared = operation_of(flask.current_app.view_functions.get(flask.request.endpoint or ""))
    return tuple(parameter.name for parameter in declared.parameters) if declared else ()


def refuse_unknown() -> None:
    """Raise BadParameter for a query parameter that the current route does not declare, or that is given twice."""
    known = known_parameters()
    for name, values in flask.request.args.lists():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"Perhaps '{near[0]}' is meant." if near else _list(known)
            if is_address(flask.request.args[name].encode()):
                advice = "Addresses are not fetched: send the photo itself."
            raise BadParameter(f"There is no parameter '{name[:50]}'. {advice}")
        if len(values) > 1:
            raise BadParameter(f"The parameter '{name}' is given {len(values)} times.")


def _list(known: tuple[str, ...]) -> str:
    return f"The parameters are: {', '.join(known)}." if known else "This address takes none."
