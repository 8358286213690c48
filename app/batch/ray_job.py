"""A batch on a cluster of Ray: names go to its actors, rows come back, and the parts are written here.

Import this module only if Ray is wanted: it takes seconds, and needs the extra `ray`. A photo of a node that dies is
computed again by another.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pyarrow
import ray
import ray.data
from ray.exceptions import RayError

from ..errors import BatchError, BatchStopped, TopthreeError
from ..model import Model
from ..model.bundle import read_bundle
from ..settings import Settings
from .answering import Key, Options
from .entries import Entry
from .ray import ENTRY, Classify, facts_of
from .rows import Row

KEY = "key"
AUTO = "auto"
CONNECT_SECONDS = 5.0
# Photos that an actor gets at once: a second's work, so that a node that dies costs little.
BLOCK_PHOTOS = 128
# A cluster that grows is used as far as this.
MAX_ACTORS = 10_000


class RayAnswers:
    """Photos become rows in the actors of a cluster, one for each of its GPUs if the models need one, else processors.

    Opening it connects to the cluster; raises BatchError if that fails, or the settings name no bundle.
    """

    def __init__(self, address: str, settings: Settings, models: Sequence[Model], options: Options) -> None:
        if settings.bundle is None:
            raise BatchError("--ray needs a bundle, as 'topthree bundle' writes it; name it by TOPTHREE_BUNDLE.")
        self._arguments = {
            "bundle": str(settings.bundle.absolute()),
            "sha256": read_bundle(settings.bundle, settings.bundle_sha256).sha256,
            "options": options,
            "models": options.columns.models,
            "variables": settings.as_environment(),
            "folder": os.getcwd(),
            "expected": facts_of(models, options.columns),
        }
        self._on_gpu = models[0].engine.batches
        self._encode = msgspec.msgpack.Encoder().encode
        _connect(address)

    def rows(self, items: Iterable[tuple[Key, Entry]], *, from_store: bool) -> Generator[tuple[Key, Row]]:
        """Yield the row of each photo with its key, as the actors give them; see `Answers`."""
        keys: list[Key] = []
        blocks = [ray.put(block) for block in self._blocks(items, keys)]
        if not blocks:
            return
        photos = ray.data.from_arrow_refs(blocks)
        del blocks  # each is dropped when its rows are there
        try:
            for table in self._classify(photos).iter_batches(batch_size=None, batch_format="pyarrow"):
                for row in table.to_pylist():
                    yield keys[row.pop(KEY)], row
        except RayError as error:
            raise _reason(error) from error

    def _classify(self, photos: Any) -> Any:
        cluster = ray.cluster_resources()
        cpus, gpus = max(1, int(cluster.get("CPU", 1))), int(cluster.get("GPU", 0))
        actors, each = (gpus, max(1, cpus // gpus)) if self._on_gpu and gpus else (cpus, 1)
        return photos.map_batches(
            Classify,
            fn_constructor_kwargs=self._arguments | {"cpus": each},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=each,
            num_gpus=1 if self._on_gpu and gpus else 0,
            compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=actors, max_size=MAX_ACTORS),
        )

    def _blocks(self, items: Iterable[tuple[Key, Entry]], keys: list[Key]) -> Iterator[pyarrow.Table]:
        """Yield the photos in blocks, with their keys' places in `keys`, which is filled."""
        waiting = iter(items)
        while block := list(itertools.islice(waiting, BLOCK_PHOTOS)):
            places = []
            for key, _ in block:
                if not keys or keys[-1] is not key:
                    keys.append(key)
                places.append(len(keys) - 1)
            yield pyarrow.table({ENTRY: [self._encode(entry) for _, entry in block], KEY: places})

    def close(self) -> None:
        """Leave the cluster, which ends the actors."""
        ray.shutdown()


def _connect(address: str) -> None:
    """Connect to a running cluster; raises BatchError if there is none."""
    _check_address(address)
    before = signal.getsignal(signal.SIGTERM)  # Ray sets its own handler, by which no sentence would be printed
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unusable(address, (str(error).splitlines() or [type(error).__name__])[0]) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _check_address(address: str) -> None:
    """Raise BatchError for an address of another kind, or where nothing listens: Ray itself tries for minutes."""
    if address == AUTO:
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdecimal() or int(port) > 65535:
        raise BatchError(f"--ray is {address!r}; it must be auto or HOST:PORT.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise _unusable(address, error.strerror or str(error)) from error


def _unusable(address: str, reason: str) -> BatchError:
    return BatchError(f"The cluster of Ray at {address} cannot be used: {reason.rstrip('.')}.")


def _reason(error: BaseException) -> TopthreeError:
    """Return the error of ours that an actor raised, or one that says that the cluster failed."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, TopthreeError):
            return found
        found = getattr(found, "cause", None) or found.__cause__
    return BatchStopped(f"The cluster of Ray failed ({type(error).__name__}).")
