"""What operators count: Prometheus metrics, right also where several processes serve together.

A process alone keeps its numbers in its own memory. Where gunicorn runs several, `share` puts them into a folder in
memory, one set of files for each worker's place, and `render` adds them up, whoever is asked. A worker that is
replaced goes on with its predecessor's counters, so that none is lost and the files stay few.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, values
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from ..version import __version__

PREFIX = "topthree_"
# From a cached answer to the longest deadline that is set by default.
REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32)
# Whatever else a client calls its method is one label, so that nobody can fill the memory with names.
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

_process = {"name": ""}


class Stages(Protocol):
    """How long a photo took, and how many were computed together."""

    @property
    def decode_seconds(self) -> float:
        """The time to decode and crop it."""

    @property
    def queue_seconds(self) -> float:
        """The time that it waited for its turn."""

    @property
    def infer_seconds(self) -> float:
        """The time to compute it."""

    @property
    def batch_size(self) -> int:
        """How many photos were computed with it, itself included."""


class _Collectors:
    """All metrics of this process; made on first use, since `share` must come before."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()
        self.registry = CollectorRegistry()
        self.model: tuple[str, ...] | None = None
        self.model_lock = threading.Lock()
        self.requests = self._counter("requests", "Requests answered.", "route", "method", "status")
        self.request_seconds = self._histogram(
            "request_seconds", "Time from the complete request to its response.", REQUEST_BUCKETS, "route"
        )
        self.in_progress = self._gauge("requests_in_progress", "Requests being processed.")
        self.stage_seconds = self._histogram(
            "stage_seconds", "Time of one photo in a stage: decode, queue, infer.", STAGE_BUCKETS, "stage"
        )
        self.batch_photos = self._histogram("batch_photos", "Photos computed together in one batch.", BATCH_BUCKETS)
        self.waiting = self._gauge("photos_waiting", "Photos waiting for their turn.")
        self.in_flight = self._gauge("photos_in_flight", "Photos being decoded or computed.")
        self.upload_bytes = self._gauge("upload_bytes", "Bytes of uploads admitted and not yet answered.")
        self.cache = self._counter("cache_lookups", "Answers by source: hit, miss, shared.", "source")
        self.decode_failures = self._counter("decode_failures", "Photos that could not be read.", "reason")
        self.problems = self._counter("problems", "Requests answered with a problem.", "problem")
        self.restarts = self._counter("worker_restarts", "Workers started in place of one that ended.")
        self.ready = self._gauge(
            "ready_workers", "Workers whose model has classified the known photo.", mode="livemostrecent"
        )
        self.planned = self._gauge("planned_workers", "Workers that the service should have.", mode="livemostrecent")
        self.model_info = self._gauge(
            "model_info", "The model in use.", "name", "weights_sha256", "engine", "precision", mode="livemax"
        )
        self._gauge("build_info", "The running version.", "version", mode="livemax").labels(__version__).set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str, mode: str = "livesum") -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, text, labels, registry=self.registry, buckets=buckets)


@functools.cache
def _collectors() -> _Collectors:
    return _Collectors()


class _Current(Collector):
    """What another collector yields, without the facts that are no longer so."""

    def __init__(self, source: Collector) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics; of those that state a fact, the label sets that are set to 1."""
        for metric in self._source.collect():
            if metric.name.endswith("_info"):
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric


def share(process: str) -> None:
    """Keep this process's numbers in files of PROMETHEUS_MULTIPROC_DIR that are named `process`.

    To be called before anything is counted, and again, under a name of its own, in each process that was forked.
    """
    if not _process["name"]:
        values.ValueClass = values.MultiProcessValue(lambda: _process["name"])
    _process["name"] = process


def forget_process(process: str) -> None:
    """Drop what was true of a process only while it lived; its counters stay."""
    mark_process_dead(process)


def names() -> dict[str, str]:
    """List all metrics, as they are queried, with what each means."""
    return {
        metric.name + ("_total" if metric.type == "counter" else ""): metric.documentation
        for metric in _collectors().registry.collect()
    }


def render(accept: str) -> tuple[bytes, str]:
    """Write all metrics in the format that the header `Accept` asks for; returns it with its content type."""
    source: Collector = _collectors().registry
    if _process["name"]:
        source = MultiProcessCollector(None)
    encode, content_type = choose_encoder(accept)
    return encode(_Current(source)), content_type


def request_started() -> None:
    """Count a request in."""
    _collectors().in_progress.inc()


def request_answered(route: str, method: str, status: int, seconds: float) -> None:
    """Count a request's answer; `route` is the rule that matched, never the path that was asked for."""
    collectors = _collectors()
    collectors.requests.labels(route, method if method in METHODS else "other", str(status)).inc()
    collectors.request_seconds.labels(route).observe(seconds)


def request_ended() -> None:
    """Count a request out."""
    _collectors().in_progress.dec()


def photo_computed(stages: Stages) -> None:
    """Note where the time of a photo went."""
    collectors = _collectors()
    collectors.stage_seconds.labels("decode").observe(stages.decode_seconds)
    collectors.stage_seconds.labels("queue").observe(stages.queue_seconds)
    collectors.stage_seconds.labels("infer").observe(stages.infer_seconds)
    collectors.batch_photos.observe(stages.batch_size)


def counting_waiting() -> AbstractContextManager[object]:
    """Count a photo as waiting for its turn, inside a `with`."""
    return _collectors().waiting.track_inprogress()


def counting_in_flight() -> AbstractContextManager[object]:
    """Count a photo as being worked on, inside a `with`."""
    return _collectors().in_flight.track_inprogress()


def change_upload_bytes(size: int) -> None:
    """Add `size` to the bytes of uploads in flight; negative once they are answered."""
    _collectors().upload_bytes.inc(size)


def count_cache(source: str) -> None:
    """Count an answer by where it came from."""
    _collectors().cache.labels(source).inc()


def count_decode_failure(reason: str) -> None:
    """Count a photo that could not be read, by its problem's slug."""
    _collectors().decode_failures.labels(reason).inc()


def count_problem(slug: str) -> None:
    """Count a request that was refused or failed."""
    _collectors().problems.labels(slug).inc()


def count_restart() -> None:
    """Count a worker that replaces another."""
    _collectors().restarts.inc()


def set_readiness(ready: int, planned: int) -> None:
    """Note how many workers are ready, and how many are to be."""
    _collectors().ready.set(ready)
    _collectors().planned.set(planned)


def set_model(identity: Mapping[str, object]) -> None:
    """Note which model serves in this process, in place of the one before."""
    collectors = _collectors()
    labels = tuple(str(identity[name]) for name in ("name", "weights_sha256", "engine", "precision"))
    with collectors.model_lock:
        if collectors.model is not None:
            collectors.model_info.labels(*collectors.model).set(0)
        collectors.model_info.labels(*labels).set(1)
        collectors.model = labels
