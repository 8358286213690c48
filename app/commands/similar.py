"""Find the photos of an index that look like a photo.

\b
Examples:
  topthree similar beach.jpg --index lib/
  topthree similar beach.jpg --index lib/ --count 3 --json
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import click
import msgspec

from ..classifier import Classifier
from ..errors import NoPhoto
from ..measuring.stream import printable
from ..model.verdicts import Outputs
from ..photos.folders import MAX_FILE_BYTES, FileProblem, read_file
from ..search.embeddings import Embedding
from ..search.library import Library
from . import model_option, settings_of_one_process

MAX_COUNT = 1000


@click.command(help=__doc__)
@click.argument("photo", metavar="FILE | -")
@click.option(
    "--index",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder of the index.",
)
@click.option("--count", type=click.IntRange(1, MAX_COUNT), default=10, show_default=True, help="Photos to print.")
@click.option("--exact", is_flag=True, help="Compare with all photos of the index, not with candidates only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@model_option
def command(photo: str, *, index: Path, count: int, exact: bool, as_json: bool, model: str) -> None:
    """Print the photos that are nearest by the cosine of their embeddings, the nearest first."""
    library = Library.open(index)
    settings = settings_of_one_process(model)
    try:
        data = read_file(photo)
    except FileProblem as problem:
        raise FileProblem(f"{photo}: {problem}") from problem
    if not data:
        raise NoPhoto("The file is empty.")
    with closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)) as classifier:
        chosen = classifier.load_model()
        library.check(Embedding.of(chosen))
        outputs = Outputs(top=1, embedding=True)
        answer = classifier.classify(data, outputs, max_pixels=settings.max_pixels, models=[chosen])
    assert answer.embedding is not None
    found = [(library.rows[row], cosine) for row, cosine in library.nearest(answer.embedding, count, exact=exact)]
    if as_json:
        similar = [msgspec.structs.asdict(row) | {"cosine": round(cosine, 6)} for row, cosine in found]
        json.dump({"photo": photo, "similar": similar}, sys.stdout, ensure_ascii=False, indent=1)
        click.echo()
        return
    for row, cosine in found:
        click.echo(f"{cosine:.4f}  {printable(row.path)}")
