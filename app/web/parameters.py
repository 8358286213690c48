"""The query parameters of a request, read strictly, so that a misspelled one does not go unnoticed."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

import flask

from ..errors import BadParameter
from .mistakes import is_address

Names = Literal["en", "zh", "both"]
NAMES: tuple[Names, ...] = ("en", "zh", "both")
MAX_MODELS = 4
# Longer than any number that a program would send.
_MAX_DIGITS = 40


@dataclass(frozen=True)
class Parameters:
    """The options of a prediction; equal parameters give the same photo the same bytes.

    `top` is 1 to 1000; answers below `min_confidence`, 0 to 1, are left out; `labels` is the language of
    class names.
    """

    top: int = 3
    min_confidence: float = 0.0
    labels: Names = "both"
    heatmap: bool = False


def read_parameters() -> Parameters:
    """Read the parameters of a prediction; raises BadParameter for one that is unknown, repeated or out of range."""
    refuse_unknown("top", "min_confidence", "labels", "heatmap", "model")
    return Parameters(
        top=integer_parameter("top", default=3, low=1, high=1000),
        min_confidence=_fraction_parameter("min_confidence"),
        labels=_names_parameter("labels"),
        heatmap=flag_parameter("heatmap"),
    )


def model_names(most: int = MAX_MODELS) -> tuple[str, ...]:
    """Read the names of the parameter `model`, none if it is not given.

    Raises BadParameter for an empty name, for a name that is repeated, and for more than `most` names.
    """
    text = flask.request.args.get("model")
    if text is None:
        return ()
    names = tuple(text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise BadParameter("The parameter 'model' must be names of models, separated by commas, each once.")
    if len(names) > most:
        limit = "one model" if most == 1 else f"at most {most} models"
        raise BadParameter(f"The parameter 'model' must name {limit} here, and names {len(names)}.")
    return names


def refuse_unknown(*known: str) -> None:
    """Raise BadParameter for a query parameter that is not known, or is given twice."""
    for name, values in flask.request.args.lists():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"Perhaps '{near[0]}' is meant." if near else _list(known)
            if is_address(flask.request.args[name].encode()):
                advice = "Addresses are not fetched: send the photo itself."
            raise BadParameter(f"There is no parameter '{name[:50]}'. {advice}")
        if len(values) > 1:
            raise BadParameter(f"The parameter '{name}' is given {len(values)} times.")


def integer_parameter(name: str, default: int, low: int, high: int) -> int:
    """Read a whole number from the query string, or raise BadParameter with the range."""
    text = flask.request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise BadParameter(f"The parameter '{name}' must be a whole number from {low} to {high}.")
    return int(text)


def flag_parameter(name: str) -> bool:
    """Read 0 or 1 from the query string; 0 if it is not given."""
    return integer_parameter(name, default=0, low=0, high=1) == 1


def _list(known: tuple[str, ...]) -> str:
    return f"The parameters are: {', '.join(known)}." if known else "This address takes none."


def _fraction_parameter(name: str) -> float:
    text = flask.request.args.get(name, "0")
    try:
        # float() also reads spaces, underscores and digits of other scripts.
        value = float(text) if set(text) <= set("0123456789.eE-") and len(text) <= _MAX_DIGITS else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise BadParameter(f"The parameter '{name}' must be a number from 0 to 1.")
    return value + 0.0  # turns -0.0 into 0.0, for one spelling of the same answer


def _names_parameter(name: str) -> Names:
    text = flask.request.args.get(name, "both")
    for choice in NAMES:
        if text == choice:
            return choice
    raise BadParameter(f"The parameter '{name}' must be one of {', '.join(NAMES)}.")
