"""Search in an index of photos, under `/api/v1/search`: photos that look like a photo, and their thumbnails."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager

import flask
import msgspec

from ..errors import BadParameter, ForeignOrigin, IndexProblem, IndexUnavailable, NoIndex, NotFound
from ..search.library import Library
from ..search.served import ServedIndex
from . import schemas
from .answers import current_answerer, json_response, server_timing
from .operations import BINARY, operation
from .parameters import Integer, refuse_unknown
from .same_origin import require_our_host
from .service import service
from .uploads import JSON, read_photo

COUNT = Integer("count", "How many photos of the index to return, at most.", low=1, high=100, default=10)
VERSION = Integer("version", "The index's version, as in the address that a search gave.", low=0, high=10**9 - 1)
ROW = re.compile(r"[0-9]{1,9}")
PROBLEMS = (NoIndex, ForeignOrigin, IndexUnavailable)

blueprint = flask.Blueprint("search", __name__, url_prefix="/api/v1/search")


@blueprint.before_request
def guard() -> None:
    """Require an index and, unless a key has shown that the client may ask, a host name of ours.

    A site whose name is rebound to this machine could otherwise have a visitor's browser read the photos.
    """
    if service().index is None:
        raise NoIndex("There is no index of photos here. The administrator can name one with TOPTHREE_INDEX.")
    if not service().keys.is_required:
        require_our_host()


@blueprint.post("")
@operation({JSON: schemas.SearchAnswer}, takes="photo", parameters=(COUNT,), problems=PROBLEMS)
def search() -> flask.Response:
    """Return the photos of the index that look most like one photo, the most similar first.

    Of a photo's path in the index only the name is shown.
    """
    refuse_unknown()
    count = COUNT.read()
    answerer, photo = current_answerer(), read_photo()
    with _usable_index() as index:
        model = answerer.load_model()
        index.check(model)
        rendered = answerer.embed(photo, normalize=True, as_npy=False)
        sent = msgspec.json.decode(rendered.body, type=schemas.PhotoEmbedding)
        library = index.check(model)  # again, since the index may have been replaced since
        nearest = library.nearest(sent.embedding, count)
        found = [_found(library, row, cosine) for row, cosine in nearest]
    document = schemas.SearchAnswer(found, len(library), sent.image, schemas.Model(**rendered.model.identity))
    response = json_response(document)
    response.headers["Server-Timing"] = server_timing(rendered.computed, rendered.source)
    return response


@blueprint.get("/thumbnails/<row>")
@operation({"image/jpeg": BINARY}, parameters=(VERSION,), problems=(*PROBLEMS, BadParameter, NotFound))
def search_thumbnail(row: str) -> flask.Response:
    """Return a photo of the index, upright, with at most 96 pixels a side.

    Rows move when photos are removed. An address that a search has given is not found any more then.
    """
    refuse_unknown()
    with _usable_index() as index:
        library = index.library()
        version = VERSION.read_or(library.generation)
        is_row = ROW.fullmatch(row) and int(row) < len(library)
        if not is_row or version != library.generation:
            raise NotFound("The index has no such row, or its rows have moved since the search.")
        return flask.Response(library.thumbnail(int(row)), mimetype="image/jpeg")


@contextmanager
def _usable_index() -> Iterator[ServedIndex]:
    """Yield the index; what is wrong with it is in the log, and not in the answer, since it names folders."""
    index = service().index
    assert index is not None  # `guard` has made sure
    try:
        yield index
    except IndexProblem as error:
        raise IndexUnavailable(error.public) from error


def _found(library: Library, row: int, cosine: float) -> schemas.FoundPhoto:
    facts = library.rows[row]
    # Relative to the search's own address, since a proxy may have put a prefix before it.
    address = f"search/thumbnails/{row}?version={library.generation}"
    similarity = round(max(cosine, -1.0), 6)
    return schemas.FoundPhoto(posixpath.basename(facts.path), similarity, row, facts.width, facts.height, address)
