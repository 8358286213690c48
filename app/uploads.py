"""Reading photos out of requests, within limits, in memory, never on disk."""

from __future__ import annotations

import io
import logging
import socket
import time
from typing import IO

import flask
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from .errors import BadParameter, BadRequest, NoPhoto, Problem, TooLarge, TooManyPhotos, UnsupportedContentType
from .scheduling import Admission, Deadline
from .settings import MEBI, Settings

log = logging.getLogger(__name__)

FIELD = "file"
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
FRAMING_BYTES = 64 * 1024
MOST_PARTS = 1024
# What is read, and for how long at most, so that a client still sending can read why it was refused.
DRAIN_BYTES = 256 * MEBI
DRAIN_SECONDS = 30.0
DRAIN_PAUSE_SECONDS = 5.0
EXAMPLE = "curl -F file=@photo.jpg"
SMALLER = "Send a smaller copy."


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
    admit_body(limit)
    if flask.request.mimetype == "multipart/form-data":
        parts = _parts(limit)
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
    admit_body(settings.max_batch_bytes)
    parts = _parts(settings.max_batch_bytes, advice="Send fewer photos at a time.")
    if len(parts) > settings.max_batch_items:
        raise TooLarge(f"{len(parts)} photos are more than the {settings.max_batch_items} of one batch.")
    return [part.stream.read() for part in parts]


def note_arrival() -> None:
    """Remember when the current request began, before anything else is done for it."""
    flask.g.arrived = time.monotonic()


def admit_body(limit: int) -> None:
    """Let the current request in with a body of `limit` bytes and its framing; it leaves when it ends.

    Raises Overloaded, before anything is read, where it is one too many or its bytes are.
    """
    flask.request.max_content_length = most = limit + FRAMING_BYTES
    declared = flask.request.content_length
    admission: Admission = flask.current_app.extensions["topthree_admission"]
    flask.g.leave = admission.enter(most if declared is None else min(declared, most))


def leave(_: BaseException | None = None) -> None:
    """Make room for others at the end of the current request."""
    flask.g.pop("leave", lambda: None)()


def request_deadline() -> Deadline:
    """Return until when the current request's answer is of use: the setting's time, or the client's if shorter.

    Raises BadParameter for a header `X-Request-Timeout-Ms` that is not a whole number from 1.
    """
    milliseconds = settings_of_app().deadline_ms
    asked = flask.request.headers.get(TIMEOUT_HEADER)
    if asked is not None:
        if not (asked.isascii() and asked.isdigit() and int(asked[:10])):
            raise BadParameter(f"The header {TIMEOUT_HEADER} must be a whole number of milliseconds, from 1.")
        milliseconds = min(milliseconds, int(asked[:10]))
    connection = flask.request.environ.get("gunicorn.socket")
    return Deadline(flask.g.arrived + milliseconds / 1000, (lambda: has_left(connection)) if connection else bool)


def has_left(connection: socket.socket) -> bool:
    """Tell whether the client has closed its end of a connection; it may have sent its next request already."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


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
    """Read on for a while after a refusal has been sent, within bounds of size and time.

    Browsers and simple clients send their whole body before they read; one that is still sending when its
    connection closes sees a reset and never learns why it was refused.
    """
    environ = flask.request.environ
    # Only where the server ends the body itself (gunicorn does) can reading past it not wait for ever.
    if response.status_code >= 400 and environ.get("wsgi.input_terminated"):
        response.call_on_close(lambda: _drain(environ["wsgi.input"], environ.get("gunicorn.socket")))
    return response


def _drain(source: IO[bytes], connection: socket.socket | None) -> None:
    left = DRAIN_BYTES
    deadline = time.monotonic() + DRAIN_SECONDS
    if connection is not None:
        connection.settimeout(DRAIN_PAUSE_SECONDS)
    try:
        while left > 0 and time.monotonic() < deadline and (chunk := source.read(FRAMING_BYTES)):
            left -= len(chunk)
    except OSError as error:  # the client has left, or stopped sending; nothing is owed to it
        log.debug("A refused body broke off: %r", error)


def _parts(limit: int, *, advice: str = SMALLER) -> list[FileStorage]:
    request = flask.request
    if not request.mimetype_params.get("boundary"):
        raise BadRequest("The Content-Type has no boundary. Let your HTTP library write that header itself.")
    # Text counts towards the body's own limit, so that a photo sent as text is refused for what is wrong with it.
    request.max_form_parts, request.max_form_memory_size = MOST_PARTS, limit + FRAMING_BYTES
    try:
        parts = request.files.getlist(FIELD)
    except RequestEntityTooLarge as error:
        if request.content_length and request.content_length <= limit + FRAMING_BYTES:
            raise TooLarge(f"The request has more than {MOST_PARTS:,} parts.") from error
        raise _too_large(limit, advice) from error
    if parts:
        return parts
    if FIELD in request.form:
        raise NoPhoto(f"The part 'file' is text, not a file: it has no file name. With curl: {EXAMPLE} (note the @).")
    raise NoPhoto(f"No file part is named 'file'. Send one, for example with {EXAMPLE}.")


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


def _too_large(limit: int, advice: str = SMALLER) -> TooLarge:
    mebibytes = f" ({limit // MEBI} MiB)" if limit % MEBI == 0 else ""
    return TooLarge(f"The limit is {limit:,} bytes{mebibytes}. {advice}")
