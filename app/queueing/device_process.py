"""The device process: it owns the GPU, and computes the crops of all workers.

It has one thread. All photos that wait when the device is free are the next batch, in the order in which they came,
of all workers. A photo that waits until its deadline, or whose worker has closed its channel, is not computed. If a
batch fails, its photos are computed one by one, so that only the one that is at fault fails. If the device itself has
failed, the process ends, and the master starts another.
"""

from __future__ import annotations

import json
import logging
import logging.config
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from ..errors import TopthreeError
from ..model import KNOWN_PHOTO
from ..model.backbones import find_weights_to_load
from ..model.engines.frames import REQUEST, DeviceOutputs, Facts, Kind, Reply, Request, Status, refusal
from ..model.engines.jpegs import Jpeg, compare, decode_crops, sample_files
from ..model.engines.torch_engine import TorchEngine, exact_logits
from ..model.labels import load_labels
from ..model.weights import Weights
from ..photos.device_jpegs import MAX_BYTES
from ..processes import sandbox
from ..processes.channel import Channel, Disconnected
from ..processes.device import OPEN
from ..processes.memory import words_of
from ..processes.plan import available_cpus
from ..settings import Settings
from ..telemetry import logs

log = logging.getLogger(__name__)

# After a reload requests that have begun end with the model before.
MAX_MODELS = 2
# How long a worker may take to send the rest of a frame.
_FRAME_SECONDS = 1.0


@dataclass(frozen=True)
class Loaded:
    """A model on the device, and the facts about it that workers get."""

    engine: TorchEngine
    facts: Facts


@dataclass(frozen=True)
class Waiting:
    """A photo that waits for the device."""

    channel: Channel
    request: Request


class DeviceProcess:
    """Serve the channels that come over `control` until its other end closes.

    `load` loads the model of the settings, or returns the one it is given if that is still it. `began` is a word that
    holds the nanoseconds of monotonic time at which a batch began, 0 between batches.
    """

    def __init__(self, control: socket.socket, began: memoryview, load: Callable[[Loaded | None], Loaded]) -> None:
        self._control = control
        self._began = began
        self._load = load
        self._models: deque[Loaded] = deque(maxlen=MAX_MODELS)
        self._waiting: deque[Waiting] = deque()
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)
        control.setblocking(False)

    def run(self) -> None:
        """Receive and compute until the service has ended."""
        while self._receive(None if not self._waiting else 0):
            self._compute_next()

    def _receive(self, timeout: float | None) -> bool:
        """Take all that has come; return False when the service has ended."""
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                if not self._accept():
                    return False
            else:
                self._read(key.data)
        return True

    def _accept(self) -> bool:
        """Take the channels that workers have opened; return False when there is no worker or master any more."""
        while True:
            try:
                data, files, _, _ = socket.recv_fds(self._control, OPEN.size, 2)
            except BlockingIOError:
                return True
            if len(data) < OPEN.size or len(files) < 2:
                return False
            (input_bytes,) = OPEN.unpack(data)
            channel = Channel(socket.socket(fileno=files[0]), files[1], input_bytes)
            os.close(files[1])
            channel.socket.settimeout(_FRAME_SECONDS)
            self._selector.register(channel.socket, selectors.EVENT_READ, channel)

    def _read(self, channel: Channel) -> None:
        """Take a request, or forget a channel that its worker has closed."""
        try:
            request = Request.unpack(channel.receive(REQUEST))
        except (Disconnected, TimeoutError):
            self._forget(channel)
            return
        if request.kind == Kind.LOAD:
            self._reply(channel, self._load_for(channel))
        else:
            self._waiting.append(Waiting(channel, request))

    def _forget(self, channel: Channel) -> None:
        self._selector.unregister(channel.socket)
        channel.close()
        self._waiting = deque(each for each in self._waiting if each.channel is not channel)

    def _reply(self, channel: Channel, reply: Reply) -> None:
        try:
            channel.send(reply.pack())
        except Disconnected:
            self._forget(channel)

    def _load_for(self, channel: Channel) -> Reply:
        """Load the model of the settings, unless it is there, and describe it in the channel's block."""
        try:
            loaded = self._load(self._models[-1] if self._models else None)
        except TopthreeError as error:
            return refusal(channel, Status.REFUSED, str(error))
        except (RuntimeError, OSError, ValueError, ImportError) as error:  # of torch
            log.exception("The model could not be loaded.")
            return refusal(channel, Status.REFUSED, str(error))
        if not self._models or loaded is not self._models[-1]:
            self._models.append(loaded)
            log.info(
                "%s is on %s in %s.", loaded.facts.weights.record.name, loaded.facts.device, loaded.facts.precision
            )
        text, head = loaded.facts.pack()
        at = channel.input_bytes
        channel.block[at : at + len(text) + len(head)] = text + head
        return Reply(Status.DONE, text_bytes=len(text), head_bytes=len(head))

    def _compute_next(self) -> None:
        """Compute the photos that wait for the same model as the first, as many as fit into a batch."""
        if not self._waiting:
            return
        number = self._waiting[0].request.model
        loaded = next((each for each in self._models if each.facts.number == number), None)
        batch: list[Waiting] = []
        others: deque[Waiting] = deque()
        limit = loaded.engine.max_batch if loaded else len(self._waiting)
        while self._waiting:
            each = self._waiting.popleft()
            (batch if each.request.model == number and len(batch) < limit else others).append(each)
        self._waiting = others
        if loaded is None:
            for each in batch:
                self._reply(each.channel, Reply(Status.GONE))
            return
        self._compute(loaded, [each for each in batch if self._is_due(each, loaded.facts)])

    def _decode(self, loaded: Loaded, batch: Sequence[Waiting]) -> tuple[list[Waiting], int]:
        """Decode the JPEG files of a batch into their places behind its crops; return it, and how many are crops.

        If one fails, all are to be decoded elsewhere, and are no part of the batch any more.
        """
        crops = [each for each in batch if each.request.kind == Kind.CROP]
        files = [each for each in batch if each.request.kind == Kind.JPEG]
        if not files:
            return crops, len(crops)
        jpegs = [Jpeg(each.channel.block[: each.request.size], each.request.orientation) for each in files]
        geometry = loaded.facts.weights.record.geometry
        try:
            loaded.engine.put(len(crops), decode_crops(jpegs, geometry, loaded.engine.device))
        except RuntimeError as error:
            log.warning("%d photos are decoded by the processors instead: %s", len(files), _first_line(error))
            if not loaded.engine.is_usable():
                raise SystemExit("The device has failed.") from error
            for each in files:
                self._reply(each.channel, Reply(Status.UNDECODED))
            return crops, len(crops)
        return crops + files, len(crops)

    def _is_due(self, waiting: Waiting, facts: Facts) -> bool:
        """Return whether a photo must still be computed, and can be; if not, it has been answered."""
        if not waiting.channel.is_quiet():  # a worker that waits sends nothing, so this one has closed the channel
            self._forget(waiting.channel)
            return False
        if waiting.request.expires <= time.monotonic():
            self._reply(waiting.channel, Reply(Status.LATE))
            return False
        is_jpeg = waiting.request.kind == Kind.JPEG
        fits = (
            0 < waiting.request.size <= facts.max_jpeg_bytes if is_jpeg else waiting.request.size == facts.crop_bytes
        )
        if not fits or waiting.channel.input_bytes != facts.input_bytes or not 1 <= waiting.request.orientation <= 8:
            detail = f"A request of {waiting.request.size} bytes does not fit the model."
            self._reply(waiting.channel, refusal(waiting.channel, Status.FAILED, detail))
            return False
        return True

    def _compute(self, loaded: Loaded, batch: Sequence[Waiting]) -> None:
        """Compute a batch; if that fails, compute its photos one by one, so that only the bad one fails."""
        self._began[0] = time.monotonic_ns()
        try:
            batch, staged = self._decode(loaded, batch)
            replies = _results(loaded, batch, staged) if batch else []
        except (RuntimeError, ValueError) as error:
            if not loaded.engine.is_usable():
                raise SystemExit("The device has failed.") from error
            if len(batch) > 1:
                for each in batch:
                    self._compute(loaded, [each])
                return
            log.exception("The device failed on one photo.")
            replies = [refusal(batch[0].channel, Status.FAILED, "The device failed on this photo.")]
        finally:
            self._began[0] = 0
        for each, reply in zip(batch, replies, strict=True):
            self._reply(each.channel, reply)


def _results(loaded: Loaded, batch: Sequence[Waiting], staged: int) -> list[Reply]:
    """Compute a batch, and write each photo's outputs into its block; the first `staged` are crops in their blocks."""
    engine, facts = loaded.engine, loaded.facts
    for place, each in zip(engine.stage, batch[:staged], strict=False):
        place.reshape(-1)[:] = np.frombuffer(each.channel.block, np.uint8, facts.crop_bytes)
    wants_features = any(DeviceOutputs.FEATURES in DeviceOutputs(each.request.outputs) for each in batch)
    found = engine.run(len(batch), staged=staged, features=wants_features)
    for place, each in enumerate(batch):
        outputs = DeviceOutputs(each.request.outputs)
        parts = [found.logits[place]]
        parts += [found.embeddings[place]] if outputs else []
        parts += [found.features[place].reshape(-1)] if DeviceOutputs.FEATURES in outputs else []
        at = each.channel.input_bytes
        for part in parts:
            each.channel.block[at : at + part.nbytes] = np.ascontiguousarray(part).data.cast("B")
            at += part.nbytes
    return [Reply(Status.DONE, batch=len(batch))] * len(batch)


def loader(settings: Settings) -> Callable[[Loaded | None], Loaded]:
    """Return a function that loads the model of the settings unless it is the one that it is given."""

    def load(before: Loaded | None) -> Loaded:
        weights = find_weights_to_load(settings)
        labels = load_labels(settings.labels)
        if before and (before.facts.weights, before.facts.classes) == (weights, len(labels)):
            return before
        engine = TorchEngine(weights, classes=len(labels), precision=settings.precision, cpus=available_cpus())
        decodes = settings.decode == "gpu" and _may_decode(engine, weights, len(labels))
        digest = sha256(f"{weights.sha256} {weights.record.name} {engine.precision}".encode()).digest()
        facts = Facts(
            number=int.from_bytes(digest[:8], "little"),
            weights=weights,
            precision=engine.precision,
            classes=len(labels),
            channels=engine.channels,
            grid=engine.grid,
            head=engine.head,
            device=engine.device_name,
            max_jpeg_bytes=MAX_BYTES if decodes else 0,
        )
        return Loaded(engine, facts)

    return load


def _may_decode(engine: TorchEngine, weights: Weights, classes: int) -> bool:
    """Return whether answers from crops that the device decodes are as good as the processor's; log the test.

    Both are computed in float32, since the rounding of bf16 alone moves probabilities by more than the test allows.
    """
    files, geometry = sample_files(KNOWN_PHOTO.read_bytes()), weights.record.geometry
    try:
        found = compare(files, geometry, engine.device, exact_logits(weights, classes, engine.device))
    except (RuntimeError, OSError, AttributeError) as error:  # a torchvision without decoders has no such attribute
        log.error("The processors decode all photos, since the device decodes none: %s", _first_line(error))
        return False
    result = f"{found.equal:.1%} of {found.photos} first classes equal, probabilities {found.difference:.4f} apart"
    if found.is_enough:
        log.info("JPEG files are decoded on %s; the test: %s.", engine.device_name, result)
    else:
        log.error("The processors decode all photos, since the device decodes them too differently: %s.", result)
    return found.is_enough


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def serve(control: int, words: int) -> None:
    """Run the device process; the settings come through standard input."""
    sandbox.die_with_parent()
    # Systems that end a service send SIGTERM to each of its processes; the photos in flight are still computed.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
    settings = Settings.from_environment(json.load(sys.stdin))
    logging.config.dictConfig(logs.configuration(settings))
    with socket.socket(fileno=control) as sock:
        DeviceProcess(sock, words_of(words), loader(settings)).run()
