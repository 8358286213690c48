"""`Classify`: photos become rows in an actor of Ray Data; `ray_job` runs a batch by it on a cluster.

An actor reads, decodes and computes a photo in one place, so that neither files nor pixels pass between processes. The
class takes and returns Arrow tables and needs nothing of Ray itself, so that other frameworks can use it too.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence

import msgspec
import pyarrow

from ..classifier import Classifier
from ..errors import BatchError
from ..model import Model
from ..photos.folders import MAX_FILE_BYTES
from ..processes.plan import available_cpus
from ..settings import Settings
from ..version import __version__
from .answering import Answering, Options
from .entries import Entry, entry_of
from .rows import PATH, Columns
from .runs import fingerprint_of
from .store import Store, is_address
from .tables import arrow_schema

# The column that says where a photo is read from, in jobs, whose photos may be in archives.
ENTRY = "entry"


class Classify:
    """Classify a batch of paths, for `map_batches(Classify, batch_format="pyarrow", …)` of Ray Data.

    Each actor loads the model of the file `bundle`, which must be on each node and have this SHA-256, and has decoders
    of its own. `cpus` are the processors of an actor. A batch has the column `path`, or `entry` as a job gives it; its
    other columns are kept, and those of `Columns` are added. `options` are by default the three best answers of the
    bundle's model. Paths are relative to `folder`. An actor whose model or precision is not `expected` stops the job.
    """

    def __init__(
        self,
        bundle: str,
        sha256: str,
        *,
        options: Options | None = None,
        models: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        folder: str = "",
        expected: Mapping[str, str] | None = None,
        cpus: int = 1,
    ) -> None:
        values = {**(variables or {}), "TOPTHREE_BUNDLE": bundle, "TOPTHREE_BUNDLE_SHA256": sha256}
        settings = Settings.from_environment(
            values | {"TOPTHREE_WORKERS": str(min(64, max(1, available_cpus() // cpus)))}
        )
        classifier = Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)
        found = classifier.find_models(models)
        self._options = options or Options(Columns(3, tuple(each.name for each in found), False), settings.max_pixels)
        actual = facts_of(found, self._options.columns)
        differing = [name for name, value in (expected or {}).items() if actual.get(name) != value]
        if expected and differing:
            what = "; ".join(f"{name} is {actual.get(name)} and not {expected[name]}" for name in differing)
            raise BatchError(f"A node of the cluster would give other answers: {what}.")
        if folder:
            os.chdir(folder)
        self._answering = Answering(classifier, found, self._options, Store())
        self.close = classifier.close
        self._decode = msgspec.msgpack.Decoder(Entry).decode

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Return the rows of a batch."""
        if ENTRY in batch.column_names:
            entries = [self._decode(each) for each in batch[ENTRY].to_pylist()]
        else:
            entries = [entry_of(path) for path in batch[PATH].to_pylist()]
        from_store = any(is_address(entry.name) for entry in entries)
        found = dict(self._answering.rows(enumerate(entries), from_store=from_store))
        schema = arrow_schema(self._options.columns.kinds, pyarrow.float64())
        rows = pyarrow.Table.from_pylist([found[place] for place in range(len(entries))], schema)
        for name in batch.column_names:
            if name not in (ENTRY, PATH):
                rows = rows.append_column(name, batch[name])
        return rows


@functools.cache
def classify_here(bundle: str, sha256: str) -> Classify:
    """Return this process's `Classify`, for frameworks such as Spark that call functions and keep no objects."""
    return Classify(bundle, sha256)


def facts_of(models: Sequence[Model], columns: Columns) -> dict[str, str]:
    """Return the facts that must be the same in all processes of a job."""
    return fingerprint_of(models, columns) | {"topthree": __version__}
