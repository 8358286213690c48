"""Make an index of photos, by which `topthree similar` finds those that look alike.

The source is a folder, a pattern in quotes, a ZIP or TAR archive, or s3://BUCKET/PREFIX. The index holds each photo's
path below the source, its embedding, a perceptual hash and a thumbnail of 96 pixels. Run the same command again to
add new photos. With --remove, the arguments are paths in the index, or folders of them; nothing of those photos is
left in it. The photos themselves are never changed.

The exit status is 0 if all photos are in the index, 1 if some failed, and 3 if the job was stopped before its end.

\b
Examples:
  topthree index photos/ --output lib/
  topthree index --output lib/ --remove holiday/beach.jpg trash/
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import click

from ..batch.entries import FILE, Entry, shown
from ..batch.listing import check_sources, list_entries, read_entry, readers
from ..batch.lists import is_list
from ..batch.spool import Spool
from ..batch.store import Store, is_address
from ..batch.walking import is_pattern, split_pattern
from ..classifier import Classifier
from ..errors import BatchError, IndexProblem
from ..photos.folders import MAX_FILE_BYTES
from ..queueing.scheduling import Counts
from ..search.embeddings import Embedding
from ..search.files import stopping
from ..search.indexing import Indexer, Source
from ..search.library import Library
from ..search.writer import Writer
from ..settings import Settings
from . import model_option, plural, settings_of_one_process
from ._progress import showing_resumable, stopped_in_order


@click.command(help=__doc__)
@click.argument("sources", nargs=-1, metavar="[SOURCE | PATH…]")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder of the index.",
)
@model_option
@click.option("--remove", is_flag=True, help="Remove these photos from the index.")
@click.option("--retry-failed", is_flag=True, help="Try the photos again that failed.")
def command(sources: tuple[str, ...], *, output: Path, model: str, remove: bool, retry_failed: bool) -> None:
    """Add the photos of a source to an index, or remove some."""
    if not sources:
        raise click.UsageError("Name the source, or the photos to remove.")
    if remove:
        _remove(output, sources)
        return
    if len(sources) > 1:
        raise click.UsageError("Name one source: paths in the index are below it.")
    _check(sources[0])
    with stopped_in_order():
        _add(sources[0], output, settings_of_one_process(model), retry_failed=retry_failed)


def _add(source: str, output: Path, settings: Settings, *, retry_failed: bool) -> None:
    """Run a job and print how it has ended; the exit status is 1 if photos failed."""
    with closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)) as classifier:
        chosen = classifier.load_model()
        classifier.start_decoders()
        with closing(Writer(output, Embedding.of(chosen))) as writer:
            indexer = Indexer(classifier, chosen, writer, max_pixels=settings.max_pixels)
            progress = _run(indexer, writer, source, output, retry_failed=retry_failed)
    click.echo(
        f"{plural(progress.done - progress.failed, 'photo')} in {output}, {progress.failed:,} failed.", err=True
    )
    if progress.failed:
        click.echo(f"{output}/data-*/failed.ndjson has the reasons; --retry-failed tries them again.", err=True)
        raise SystemExit(IndexProblem.exit_status)


def _check(source: str) -> None:
    if is_list(source):
        raise BatchError("An index is made of a folder, a pattern, an archive or a store, and not of a list of paths.")
    check_sources([source])


def _remove(output: Path, paths: tuple[str, ...]) -> None:
    with closing(Writer(output)) as writer:
        count = writer.remove(paths)
    click.echo(f"{plural(count, 'photo')} removed; {len(Library.open(output)):,} left in {output}.", err=True)


def _run(indexer: Indexer, writer: Writer, source: str, output: Path, *, retry_failed: bool) -> Counts:
    """Run a job to its end; raises BatchStopped, with what is done, if it is stopped before."""
    progress, store = indexer.progress, Store()
    with (
        showing_resumable("Indexing", progress) as indexer.note,
        closing(_listed(source, output, store)) as spool,
    ):
        progress.photos = spool.count
        changed = writer.drop_changed(_sizes(source, spool))
        indexer.note(progress)
        photos = _sources(source, spool, store)
        indexer.run(photos, readers=readers(from_store=spool.has_addresses), retry_failed=retry_failed)
    if changed:
        click.echo(f"{plural(changed, 'photo')} had changed and replaced the old one.", err=True)
    return progress


def _listed(source: str, output: Path, store: Store) -> Spool:
    """List the photos of a source into a file without a name in the index's folder."""
    with stopping(output), ExitStack() as on_failure:
        spool = on_failure.enter_context(closing(Spool(output, 1)))
        for entry in list_entries([source], store, [output]):
            spool.add(0, entry)
        spool.flush()
        on_failure.pop_all()
    return spool


def _sources(source: str, spool: Spool, store: Store) -> Iterator[Source]:
    """Yield the photos of a listing: their paths below the source, and how they are read."""
    root = root_of(source)
    for entry in spool.read(0):
        yield Source(below(entry, root), functools.partial(read_entry, entry, store))


def _sizes(source: str, spool: Spool) -> Iterator[tuple[str, int]]:
    """Yield the paths of the photos that are files here, below the source, with the bytes that each has now."""
    root = root_of(source)
    for entry in spool.read(0):
        if entry.kind == FILE and not is_address(entry.name):
            with suppress(OSError):  # reading it gives the reason
                yield below(entry, root), os.path.getsize(entry.name)


def root_of(source: str) -> str:
    """Return the folder, or the address, that the paths of a source's photos are relative to; empty for none."""
    if is_pattern(source):
        return split_pattern(source)[0]
    if os.path.isdir(source) or is_address(source):
        return source
    return os.path.dirname(source)  # of an archive, or a photo


def below(entry: Entry, root: str) -> str:
    """Return an entry's path below a folder as rows have it, never an absolute one."""
    path, start = entry.name.rstrip("/"), root.rstrip("/")
    if path == start:  # a single photo, or a folder that cannot be read
        path = os.path.basename(path)
    elif start and path.startswith(f"{start}/"):
        path = path[len(start) :]
    return shown(os.fsencode(path.lstrip("/") or "."))
