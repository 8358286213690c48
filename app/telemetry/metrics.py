"""Prometheus metrics, correct also when several processes serve together.

A single process keeps its numbers in its own memory. If gunicorn runs several, `share` puts them into a folder in
memory, one set of files for each worker's slot, and `render` adds them up in any worker. A worker that replaces
another continues its counters, so that no count is lost and the number of files stays small.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping, Sequence
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
# From a prepared model in a warm file cache to a large one that has to be prepared.
OPEN_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32)
# All other methods share one label, so that no client can fill the memory with names.
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

MODEL_LABELS = ("name", "version", "weights_sha256", "engine", "precision")
# As many names as models can answer at once; a name costs memory until the process ends, even if its model is removed.
MAX_MODELS = 100

_process = {"name": ""}
_creation = threading.Lock()


class Stages(Protocol):
    """The times of one photo, and the size of its batch."""

    @property
    def decode_seconds(self) -> float:
        """Return the time to decode and crop it."""

    @property
    def queue_seconds(self) -> float:
        """Return the time in the queue."""

    @property
    def infer_seconds(self) -> float:
        """Return the time of inference."""

    @property
    def batch_size(self) -> int:
        """Return the number of photos in its batch."""


class _Collectors:
    """All metrics of this process; created on first use, since `share` must be called before."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()
        self.registry = CollectorRegistry()
        self.models: set[tuple[str, ...]] = set()
        self.counted: set[str] = set()
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
        self.photos = self._counter("photos", "Photos computed, by the model that answered.", "model")
        self.waiting = self._gauge("photos_waiting", "Photos waiting for their turn.")
        self.in_flight = self._gauge("photos_in_flight", "Photos being decoded or computed.")
        self.upload_bytes = self._gauge("upload_bytes", "Bytes of uploads admitted and not yet answered.")
        self.cache = self._counter("cache_lookups", "Answers by source: hit, miss, shared.", "source")
        self.decode_failures = self._counter("decode_failures", "Photos that could not be read.", "reason")
        self.problems = self._counter("problems", "Requests answered with a problem.", "problem")
        self.solve_seconds = self._histogram("solve_seconds", "Time to solve the head of a project.", STAGE_BUCKETS)
        self.open_graphs = self._gauge("open_models", "Fine-tuned models whose graph is in memory.")
        self.open_seconds = self._histogram(
            "model_open_seconds", "Time to open the graph of a fine-tuned model, preparing it included.", OPEN_BUCKETS
        )
        self.restarts = self._counter("worker_restarts", "Workers started in place of one that ended.")
        self.ready = self._gauge(
            "ready_workers", "Workers whose model has classified the known photo.", mode="livemostrecent"
        )
        self.planned = self._gauge("planned_workers", "Workers that the service should have.", mode="livemostrecent")
        self.model_info = self._gauge("model_info", "The models in use.", *MODEL_LABELS, mode="livemax")
        self._gauge("build_info", "The running version.", "version", mode="livemax").labels(__version__).set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str, mode: str = "livesum") -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, text, labels, registry=self.registry, buckets=buckets)


@functools.cache
def _create_collectors() -> _Collectors:
    return _Collectors()


def _collectors() -> _Collectors:
    with _creation:  # two threads that count at the same time for the first time must not get two objects
        return _create_collectors()


class _Current(Collector):
    """The metrics of another collector, without facts that no longer hold."""

    def __init__(self, source: Collector) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics; of those whose name ends in `_info`, only the label sets with the value 1."""
        for metric in self._source.collect():
            if metric.name.endswith("_info"):
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric


def share(process: str) -> None:
    """Keep this process's numbers in files of PROMETHEUS_MULTIPROC_DIR, named after `process`.

    Call it before anything is counted, and again in each forked process, with another name.
    """
    if not _process["name"]:
        values.ValueClass = values.MultiProcessValue(lambda: _process["name"])
    _process["name"] = process


def forget_process(process: str) -> None:
    """Remove the gauges of a process that has ended; its counters stay."""
    mark_process_dead(process)


def names() -> dict[str, str]:
    """Return the meaning of each metric by its name, as queries write it."""
    return {
        metric.name + ("_total" if metric.type == "counter" else ""): metric.documentation
        for metric in _collectors().registry.collect()
    }


def render(accept: str) -> tuple[bytes, str]:
    """Write all metrics in the format that the header `Accept` asks for; return the bytes and their content type."""
    source: Collector = _collectors().registry
    if _process["name"]:
        source = MultiProcessCollector(None)
    encode, content_type = choose_encoder(accept)
    return encode(_Current(source)), content_type


def request_started() -> None:
    """Count a request as in progress."""
    _collectors().in_progress.inc()


def request_answered(route: str, method: str, status: int, seconds: float) -> None:
    """Count a response; `route` is the matching rule, never the path of the request."""
    collectors = _collectors()
    collectors.requests.labels(route, method if method in METHODS else "other", str(status)).inc()
    collectors.request_seconds.labels(route).observe(seconds)


def request_ended() -> None:
    """Count a request as no longer in progress."""
    _collectors().in_progress.dec()


def photo_computed(stages: Stages, models: Sequence[str] = ()) -> None:
    """Record the times of a photo, and count it for each of the models that answered, by their names.

    Models beyond `MAX_MODELS` names share the label `other`.
    """
    collectors = _collectors()
    for name in models:
        with collectors.model_lock:
            if len(collectors.counted) < MAX_MODELS:
                collectors.counted.add(name)
        collectors.photos.labels(name if name in collectors.counted else "other").inc()
    collectors.stage_seconds.labels("decode").observe(stages.decode_seconds)
    collectors.stage_seconds.labels("queue").observe(stages.queue_seconds)
    collectors.stage_seconds.labels("infer").observe(stages.infer_seconds)
    collectors.batch_photos.observe(stages.batch_size)


def counting_waiting() -> AbstractContextManager[object]:
    """Return a context manager that counts a photo as queued."""
    return _collectors().waiting.track_inprogress()


def counting_in_flight() -> AbstractContextManager[object]:
    """Return a context manager that counts a photo as in flight."""
    return _collectors().in_flight.track_inprogress()


def change_upload_bytes(size: int) -> None:
    """Add `size` to the bytes of uploads in flight; it is negative once they are answered."""
    _collectors().upload_bytes.inc(size)


def count_cache(source: str) -> None:
    """Count an answer by its source."""
    _collectors().cache.labels(source).inc()


def count_decode_failure(reason: str) -> None:
    """Count a photo that could not be read, by the slug of its problem."""
    _collectors().decode_failures.labels(reason).inc()


def count_problem(slug: str) -> None:
    """Count a request that was rejected or failed, by the slug of its problem."""
    _collectors().problems.labels(slug).inc()


def head_solved(seconds: float) -> None:
    """Record how long it took to solve the head of a project."""
    _collectors().solve_seconds.observe(seconds)


def set_open_graphs(count: int) -> None:
    """Record how many fine-tuned models have their graph in memory."""
    _collectors().open_graphs.set(count)


def graph_opened(seconds: float) -> None:
    """Record how long it took to open the graph of a fine-tuned model."""
    _collectors().open_seconds.observe(seconds)


def count_restart() -> None:
    """Count a worker that replaces another."""
    _collectors().restarts.inc()


def set_readiness(ready: int, planned: int) -> None:
    """Record how many workers are ready, and how many are planned."""
    _collectors().ready.set(ready)
    _collectors().planned.set(planned)


def set_models(identities: Iterable[Mapping[str, object]]) -> None:
    """Record which models this process uses, in place of the previous ones."""
    collectors = _collectors()
    current = {tuple(str(identity.get(name, "")) for name in MODEL_LABELS) for identity in identities}
    with collectors.model_lock:
        for labels in collectors.models - current:
            collectors.model_info.labels(*labels).set(0)
        for labels in current:
            collectors.model_info.labels(*labels).set(1)
        collectors.models = current
