"""Forms (multipart/form-data, RFC 7578), parsed in memory."""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)
from werkzeug.http import parse_options_header as parse_extended_header

from ..errors import BadRequest, TooLarge, UnsupportedContentType

MAX_PARTS = 1024
# The usual limit of a header's line, as Apache and gunicorn have it.
MAX_HEADER_LINE_BYTES = 8190
# A file's name of 255 characters takes up to 765 bytes, and the rest of its part's header about 100.
MAX_HEADER_BYTES = MAX_PARTS * 1024
# Ways to write a part that leave its bytes as they are (RFC 2045, section 6.2).
_PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")
BINARY_TYPES = ("application/octet-stream", "binary/octet-stream")


@dataclass(frozen=True)
class Part:
    """One part of a form, with its bytes as they came.

    `filename` is None for a part without one, and may be empty for a file. The content type, without its parameters,
    and the transfer encoding are in lower case, and empty where the part names none.
    """

    name: str
    filename: str | None
    data: bytes
    content_type: str = ""
    transfer_encoding: str = ""

    @property
    def is_file(self) -> bool:
        """Return whether the header makes the part a file: by a file name, or the type of a picture or of bytes."""
        return self.filename is not None or self.content_type.startswith("image/") or self.content_type in BINARY_TYPES

    def decode(self) -> bytes:
        """Return the file's bytes, where `Content-Transfer-Encoding` says base64 without it.

        HTTP needs no such encoding (RFC 7578, section 4.7), but some mail libraries and curl's `encoder=` write it.
        Raises BadRequest for text that is not base64, and UnsupportedContentType for another encoding.
        """
        if self.transfer_encoding in _PLAIN_ENCODINGS:
            return self.data
        if self.transfer_encoding != "base64":
            raise UnsupportedContentType(
                f"A part has the Content-Transfer-Encoding '{self.transfer_encoding[:50]}'. Send the file's bytes."
            )
        try:
            return binascii.a2b_base64(self.data.translate(None, b" \t\r\n"), strict_mode=True)
        except binascii.Error as error:
            raise BadRequest(
                "A part has the Content-Transfer-Encoding 'base64', but what it holds is not base64."
            ) from error


@dataclass
class _Unfinished:
    segment: MultipartSegment
    chunks: list[bytes] = field(default_factory=list)


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type names; raises BadRequest if it names no boundary."""
    boundary = parse_options_header(content_type)[1].get("boundary")
    if not boundary:
        raise BadRequest("The Content-Type has no boundary. Let your HTTP library write that header itself.")
    return str(boundary).encode("latin-1")  # as WSGI decodes a header


def parse_form(body: bytes, boundary: bytes) -> list[Part]:
    """Return all parts of a form in their order.

    Raises BadRequest for a form that is malformed or ends early, and TooLarge for one of too many parts.
    """
    if not body:
        raise BadRequest("The body is empty, but declared as a form.")
    parts: list[_Unfinished] = []
    try:
        parser = _make_parser(boundary)
        _collect(parser.parse(body), parts)
    except ParserLimitReached as error:
        if len(parts) == MAX_PARTS:
            raise TooLarge(f"The request has more than {MAX_PARTS:,} parts.") from error
        raise _header_too_large() from error
    except MultipartError as error:
        raise _malformed(body, boundary) from error
    try:
        parser.close()
    except MultipartError as error:
        raise BadRequest("The form ends early: the boundary that closes it is missing.") from error
    return [_finish(part) for part in parts]


def _make_parser(boundary: bytes) -> PushMultipartParser:
    return PushMultipartParser(
        boundary,
        max_header_size=MAX_HEADER_LINE_BYTES,
        max_segment_count=MAX_PARTS,
        header_charset="latin-1",
        # Otherwise it joins continued header lines, which takes many seconds for some megabytes of short ones.
        strict=True,
    )


def _collect(events: Iterable[MultipartSegment | bytes | None], parts: list[_Unfinished]) -> None:
    header_bytes = 0
    for event in events:
        if isinstance(event, MultipartSegment):
            header_bytes += sum(len(name) + len(value) for name, value in event.headerlist)
            if header_bytes > MAX_HEADER_BYTES:
                raise _header_too_large()
            parts.append(_Unfinished(event))
        elif event is not None:
            parts[-1].chunks.append(event)


def _finish(part: _Unfinished) -> Part:
    segment = part.segment
    filename = None if segment.filename is None else _text(segment.filename)
    disposition = segment.header("Content-Disposition")
    # RFC 7578, section 4.2, forbids `filename*`, but some older libraries send it for names beyond ASCII.
    if filename is None and "*" in disposition:
        filename = parse_extended_header(disposition)[1].get("filename")
    return Part(
        _text(segment.name),
        filename,
        b"".join(part.chunks),
        segment.header("Content-Type", "").partition(";")[0].strip().lower(),
        segment.header("Content-Transfer-Encoding", "").strip().lower(),
    )


def _text(value: str) -> str:
    """Decode UTF-8 that was read as Latin-1; in other encodings, as on Windows, characters are replaced."""
    return value.encode("latin-1").decode("utf-8", "replace")


def _header_too_large() -> BadRequest:
    return BadRequest("A part of the form has too many header lines, or a header that is too large.")


def _malformed(body: bytes, boundary: bytes) -> BadRequest:
    delimiter = b"--" + boundary
    if delimiter not in body:
        return BadRequest(
            "The body is not a well-formed form: it does not hold the boundary that its Content-Type names. "
            "Let your HTTP library write both."
        )
    if delimiter + b"\n" in body:
        return BadRequest("The body is not a well-formed form: its lines end with LF alone, and must end with CRLF.")
    return BadRequest(
        "The body is not a well-formed form: a part's header or length is wrong, or other bytes follow a boundary. "
        "Let your HTTP library write the form."
    )
