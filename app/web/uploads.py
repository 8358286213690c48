"""Reading photos out of requests, within limits, in memory, never on disk."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TypeVar

import flask
import msgspec
from werkzeug.exceptions import RequestEntityTooLarge

from ..errors import (
    BadParameter,
    BadRequest,
    NoPhoto,
    Problem,
    TooLarge,
    TooManyPhotos,
    UnsupportedContentType,
    UnsupportedImage,
)
from ..parsers import base64_length
from ..photos.archives import Entry, read_archive
from ..photos.formats import find_format
from ..queueing.scheduling import Deadline
from ..settings import MEBI, Settings
from .forms import BINARY_TYPES, Part, boundary_of, parse_form
from .json_bodies import parse_photo
from .mistakes import explain
from .parameters import known_parameters
from .service import request_state, service

Document = TypeVar("Document", bound=msgspec.Struct)

FIELD = "file"
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
FRAMING_BYTES = 64 * 1024
EXAMPLE = "curl -F file=@photo.jpg"
SMALLER = "Send a smaller copy."
CHANGEABLE = "It can be changed with TOPTHREE_MAX_BATCH_BYTES."
FEWER = "Send fewer photos at a time."
JSON = "application/json"
FORM = "multipart/form-data"
# Browsers on Windows send the second.
ZIP = ("application/zip", "application/x-zip-compressed")
# Names in a request's WSGI environment: why the server has not taken the body, a function that frees the body's place,
# and waitress's function that returns whether the client has disconnected.
REFUSAL = "topthree.refusal"
RELEASE = "topthree.release"
DISCONNECTED = "waitress.client_disconnected"


@dataclass(frozen=True)
class BodyLimit:
    """How large a body a route takes: the name of its setting, whether it may be base64, and advice beyond it."""

    setting: str
    may_be_base64: bool
    advice: str

    def body_bytes(self, settings: Settings) -> int:
        """Return the limit of the whole body, with its framing."""
        base64_bytes = base64_length(settings.max_upload_bytes) if self.may_be_base64 else 0
        return max(self._size(settings), base64_bytes) + FRAMING_BYTES

    def problem(self, settings: Settings) -> TooLarge:
        """Return the problem of a larger body."""
        return _too_large(self._size(settings), self.advice)

    def _size(self, settings: Settings) -> int:
        size: int = getattr(settings, self.setting)
        return size


# The limits by what an operation takes, and the limit of the page's form.
BODY_LIMITS = {
    "photo": BodyLimit("max_upload_bytes", may_be_base64=True, advice=SMALLER),
    "photos": BodyLimit("max_batch_bytes", may_be_base64=True, advice=FEWER),
    "any": BodyLimit("max_batch_bytes", may_be_base64=True, advice=FEWER),
    "file": BodyLimit("max_batch_bytes", may_be_base64=False, advice=CHANGEABLE),
}
FORM_LIMIT = BodyLimit("max_upload_bytes", may_be_base64=False, advice=SMALLER)


def read_photo() -> bytes:
    """Read the one photo of the current request, from the form field `file`, as the raw body, or as base64 in JSON."""
    limit = service().settings.max_upload_bytes
    if flask.request.mimetype == JSON:
        return check_photo(_read_json_photo(limit), limit)
    if flask.request.mimetype == FORM:
        admit_body(base64_length(limit))
        parts = _parts(limit)
        if len(parts) > 1:
            raise TooManyPhotos(f"{len(parts)} parts are named 'file'. Send many photos to predict/batch.")
        data = _photo_of(parts[0], limit)
    else:
        admit_body(limit)
        data = _read_body(limit)
    return check_photo(data, limit)


def read_photos() -> list[Entry]:
    """Read all photos of a batch, in order: the parts named `file`, as entries without a name, or the files of a ZIP.

    An empty or too large photo is replaced by its problem.
    """
    settings = service().settings
    if flask.request.mimetype in ZIP:
        return [Entry(entry.name, _checked(entry.photo)) for entry in _read_zip(settings)]
    if flask.request.mimetype != FORM:
        raise UnsupportedContentType(
            f"A batch is multipart/form-data, {EXAMPLE} -F file=@other.jpg …, or an archive, "
            "curl --data-binary @photos.zip -H 'Content-Type: application/zip'."
        )
    return [Entry("", _checked(part)) for part in _read_parts(settings)]


def read_any() -> list[Entry]:
    """Read the photos of a request, in any form of one photo or of a batch, in order and with their files' names.

    An empty or too large photo of a batch is replaced by its problem.
    """
    settings = service().settings
    if flask.request.mimetype in ZIP:
        return [Entry(entry.name, _checked(entry.photo)) for entry in _read_zip(settings)]
    if flask.request.mimetype != FORM:
        return [Entry("", read_photo())]
    return [Entry(part.filename or "", _checked(part)) for part in _read_parts(settings)]


def read_file(limit: int) -> bytes:
    """Read a body that is one file of at most `limit` bytes and of any type."""
    admit_body(limit)
    return _take_body(limit, CHANGEABLE)


def read_json(kind: type[Document]) -> Document:
    """Read a small JSON document; an empty body is an empty object. Raises BadRequest."""
    body = flask.request.get_data(cache=False) or b"{}"
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a ValidationError is a DecodeError too
        raise BadRequest(f"The body is not the JSON that is expected here: {str(error)[:200]}.") from error


def read_form_field(name: str) -> str:
    """Read a text field of a form with one photo, which `read_photo` can still read; "" if there is no such field."""
    if flask.request.mimetype != FORM:
        return ""
    limit = service().settings.max_upload_bytes
    admit_body(limit)
    request_state().form = form = _take_form(limit)
    values = (part.data for part in form if part.name == name and part.filename is None)
    return next(values, b"").decode("utf-8", "replace")


def admit_body(limit: int) -> None:
    """Admit the current request with a body of up to `limit` bytes and its framing, until the request ends.

    Raises Overloaded, before anything is parsed, if there are too many requests in flight or too many bytes, and the
    problem for which the server has not taken the body.
    """
    state = request_state()
    if state.admitted_bytes is not None:
        return
    if (refusal := flask.request.environ.get(REFUSAL)) is not None:
        raise refusal
    flask.request.max_content_length = max_bytes = limit + FRAMING_BYTES
    declared = flask.request.content_length
    size = max_bytes if declared is None else min(declared, max_bytes)
    state.at_end.callback(service().admission.enter(size))
    state.admitted_bytes = size


def _admit_unpacked(size: int) -> None:
    """Admit the files of an archive, which may be far larger than its body, until the request ends."""
    state = request_state()
    state.at_end.callback(service().admission.enlarge(max(0, size - (state.admitted_bytes or 0))))


def request_deadline() -> Deadline:
    """Return the deadline of the current request: the setting's time, or the client's if that is shorter.

    Raises BadParameter for a header `X-Request-Timeout-Ms` that is not a whole number from 1.
    """
    milliseconds = service().settings.deadline_ms
    asked = flask.request.headers.get(TIMEOUT_HEADER)
    if asked is not None:
        if not (asked.isascii() and asked.isdigit() and int(asked[:10])):
            raise BadParameter(f"The header {TIMEOUT_HEADER} must be a whole number of milliseconds, from 1.")
        milliseconds = min(milliseconds, int(asked[:10]))
    return Deadline(request_state().began + milliseconds / 1000, flask.request.environ.get(DISCONNECTED, bool))


def release_place() -> None:
    """Free the place that the server gave a large form, once its key is known."""
    flask.request.environ.get(RELEASE, bool)()


def check_photo(data: bytes, limit: int) -> bytes:
    """Return one photo's bytes.

    Raises NoPhoto if there are none, TooLarge for more than `limit`, and UnsupportedImage for a usual mistake.
    """
    if not data:
        raise NoPhoto(f"The photo is empty (0 bytes). Send one, for example with {EXAMPLE}.")
    if len(data) > limit:
        raise _too_large(limit)
    if (mistake := explain(data)) is not None:
        raise UnsupportedImage(mistake)
    return data


def _parts(limit: int, *, advice: str = SMALLER) -> list[Part]:
    """Return the parts named `file`, of which at least one is a file; raises NoPhoto if there is none."""
    form = _take_form(limit, advice)
    parts = [part for part in form if part.name == FIELD]
    if any(_is_photo(part) for part in parts):
        # Frameworks add an empty field of the same name, so that a form without a photo has it too.
        return [part for part in parts if part.is_file or part.data]
    if parts:
        raise _text_instead_of_file(parts[0].data)
    other = next((part.name for part in form if part.is_file and part.name), "")
    found = f"The form has a file named '{other[:50]}', but" if other else "The form has"
    raise NoPhoto(f"{found} no file named 'file'. Send one, for example with {EXAMPLE}.")


def _is_photo(part: Part) -> bool:
    """Return whether a part is a file, by its header or, if that does not say, by its bytes."""
    return part.is_file or find_format(part.data) is not None


def _photo_of(part: Part, limit: int) -> bytes:
    """Return the bytes of a part that is a file; the limit is for the photo, which base64 makes longer."""
    if not _is_photo(part):
        raise _text_instead_of_file(part.data)
    if len(part.data) > base64_length(limit):
        raise _too_large(limit)
    return part.decode()


def _text_instead_of_file(data: bytes) -> NoPhoto:
    if (mistake := explain(data)) is not None:
        return NoPhoto(f"The part 'file' is text, not a file. {mistake}")
    return NoPhoto(f"The part 'file' is text, not a file: it has no file name. With curl: {EXAMPLE} (note the @).")


def _take_form(limit: int, advice: str = SMALLER) -> list[Part]:
    """Return the form that `read_form_field` has read, or else read it from the body."""
    state = request_state()
    form, state.form = state.form, None
    if form is not None:
        return form
    boundary = boundary_of(flask.request.content_type or "")
    return parse_form(_take_body(limit, advice), boundary)


def _read_body(limit: int) -> bytes:
    mimetype = flask.request.mimetype
    if mimetype and not (mimetype.startswith("image/") or mimetype in BINARY_TYPES):
        raise _wrong_content_type(mimetype)
    return _take_body(limit, SMALLER)


def _take_body(limit: int, advice: str) -> bytes:
    """Return the body. The server's buffer is given up: its bytes are taken, not copied, and so can be freed early."""
    _refuse_encoded_body()
    buffer = flask.request.environ["wsgi.input"]
    if isinstance(buffer, io.BytesIO):
        with buffer:
            body = buffer.getvalue()  # the buffer's own bytes
        if len(body) > (flask.request.max_content_length or 0):  # as `admit_body` has set it
            raise _too_large(limit, advice)
        return body
    try:
        return flask.request.get_data(cache=False)
    except RequestEntityTooLarge as error:
        raise _too_large(limit, advice) from error


def _refuse_encoded_body() -> None:
    """Raise UnsupportedContentType for a compressed body: it would save nothing, and be one more kind of bomb."""
    encoding = flask.request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedContentType(
            f"The body has the Content-Encoding '{encoding[:50]}'. Send it as it is: photos are compressed already.",
            accept_encoding="identity",
        )


def _read_parts(settings: Settings) -> list[Part]:
    admit_body(settings.max_batch_bytes)
    parts = _parts(settings.max_batch_bytes, advice=FEWER)
    if len(parts) > settings.max_batch_items:
        raise TooLarge(f"{len(parts)} photos are more than the {settings.max_batch_items} of one batch.")
    return parts


def _read_zip(settings: Settings) -> list[Entry]:
    admit_body(settings.max_batch_bytes)
    return read_archive(
        _take_body(settings.max_batch_bytes, FEWER),
        max_entries=settings.max_batch_items,
        max_bytes=settings.max_batch_bytes,
        max_entry_bytes=settings.max_upload_bytes,
        admit=_admit_unpacked,
    )


def _read_json_photo(limit: int) -> bytes:
    """Read `{"image": "…"}`; the limit is for the decoded photo, which base64 makes longer."""
    admit_body(base64_length(limit))
    return parse_photo(_take_body(limit, SMALLER), known_parameters())


def _checked(photo: Part | bytes | Problem) -> bytes | Problem:
    if isinstance(photo, Problem):
        return photo
    limit = service().settings.max_upload_bytes
    try:
        return check_photo(_photo_of(photo, limit) if isinstance(photo, Part) else photo, limit)
    except Problem as problem:
        return problem


def _wrong_content_type(mimetype: str) -> Problem:
    if mimetype == "application/x-www-form-urlencoded":
        return UnsupportedContentType(
            f"The body is declared as a form of text fields. Send the photo as a part, {EXAMPLE}, or as the body, "
            "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg'."
        )
    if mimetype in ZIP:
        return UnsupportedContentType("An archive is a batch. Send it to predict/batch.")
    return UnsupportedContentType(
        "Send the photo as multipart/form-data, as the body with Content-Type image/jpeg, another image type, "
        "or application/octet-stream, or as base64 in application/json."
    )


def _too_large(limit: int, advice: str = SMALLER) -> TooLarge:
    mebibytes = f" ({limit // MEBI} MiB)" if limit % MEBI == 0 else ""
    return TooLarge(f"The limit is {limit:,} bytes{mebibytes}. {advice}")
