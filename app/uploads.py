"""Reading photos out of requests, within limits, in memory, never on disk."""

from __future__ import annotations

import io
from typing import IO

import flask
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from .errors import BadParameter, NoPhoto, Problem, TooLarge, TooManyPhotos, UnsupportedContentType
from .settings import Settings

FIELD = "file"
FRAMING_BYTES = 64 * 1024
DRAIN_BYTES = 1024 * 1024
EXAMPLE = "curl -F file=@photo.jpg"


class MemoryRequest(flask.Request):
    """A request whose upload stays in memory, where Werkzeug would spool it to a file beyond 500 KB."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return io.BytesIO()


def settings_of_app() -> Settings:
    """Return the current application's settings."""
    settings: Settings = flask.current_app.config["TOPTHREE"]
    return settings


def read_photo() -> bytes:
    """Read the one photo of the current request, from the form field `file` or as the raw body."""
    limit = settings_of_app().max_upload_bytes
    request = flask.request
    request.max_content_length = limit + FRAMING_BYTES
    if request.mimetype == "multipart/form-data":
        parts = _parts(limit, most_parts=16)
        if len(parts) > 1:
            raise TooManyPhotos(f"{len(parts)} parts are named 'file'. Send many photos to predict/batch.")
        data = parts[0].stream.read()
    else:
        data = _read_body(limit)
    return check_size(data, limit)


def read_photos() -> list[bytes]:
    """Read all parts named `file` of a batch, in order; the size of each is left to `check_size`."""
    settings = settings_of_app()
    if flask.request.mimetype != "multipart/form-data":
        raise UnsupportedContentType(f"A batch is multipart/form-data: {EXAMPLE} -F file=@other.jpg …")
    flask.request.max_content_length = settings.max_batch_bytes + FRAMING_BYTES
    parts = _parts(settings.max_batch_bytes, most_parts=settings.max_batch_items + 16)
    if len(parts) > settings.max_batch_items:
        raise TooLarge(f"{len(parts)} photos are more than the {settings.max_batch_items} of one batch.")
    return [part.stream.read() for part in parts]


def check_size(data: bytes, limit: int) -> bytes:
    """Return one photo's bytes, or raise NoPhoto for none and TooLarge for more than `limit`."""
    if not data:
        raise NoPhoto(f"The photo has no bytes. Send one, for example with {EXAMPLE}.")
    if len(data) > limit:
        raise _too_large(limit)
    return data


def integer_parameter(name: str, default: int, low: int, high: int) -> int:
    """Read a whole number from the query string, or raise BadParameter with the range."""
    text = flask.request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise BadParameter(f"The parameter '{name}' must be a whole number from {low} to {high}.")
    return int(text)


def drain_refused(response: flask.Response) -> flask.Response:
    """Read on for a while after a refusal.

    A client still sending when its connection closes sees a reset and never reads why it was refused.
    """
    if response.status_code >= 400 and flask.request.method in ("POST", "PUT", "PATCH"):
        source = flask.request.environ["wsgi.input"]
        left = DRAIN_BYTES
        try:
            while left > 0 and (chunk := source.read(min(left, FRAMING_BYTES))):
                left -= len(chunk)
        except OSError:  # the client has left; nobody reads the answer
            return response
    return response


def _parts(limit: int, *, most_parts: int) -> list[FileStorage]:
    flask.request.max_form_parts = most_parts
    try:
        parts = flask.request.files.getlist(FIELD)
    except RequestEntityTooLarge as error:
        raise _too_large(limit) from error
    if not parts:
        raise NoPhoto(f"No file part is named 'file'. Send one, for example with {EXAMPLE}.")
    return parts


def _read_body(limit: int) -> bytes:
    mimetype = flask.request.mimetype
    if mimetype and not (mimetype.startswith("image/") or mimetype == "application/octet-stream"):
        raise _wrong_content_type(mimetype)
    try:
        return flask.request.get_data(cache=False)
    except RequestEntityTooLarge as error:
        raise _too_large(limit) from error


def _wrong_content_type(mimetype: str) -> Problem:
    if mimetype == "application/x-www-form-urlencoded":
        return UnsupportedContentType(
            "The body is declared as a form. Send the photo as a part, "
            f"{EXAMPLE}, or as the body, curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'."
        )
    return UnsupportedContentType(
        "Send the photo as multipart/form-data, or as the body with Content-Type image/jpeg, another image type, "
        "or application/octet-stream."
    )


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The limit is {limit:,} bytes ({limit / 1024 / 1024:.0f} MiB). Send a smaller copy.")
