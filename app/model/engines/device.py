"""The engine of a worker whose model is in the device process, and its connection to that process.

A thread that has a crop takes a free channel, writes the crop into the channel's block and waits for the reply. The
device process computes together all photos, of all workers, that wait when its device is free. If it ends, every photo
that it had fails at once; those that come before the next one is ready fail too, and the client may try again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...errors import DeadlineExceeded, ModelUnavailable, WeightsError
from ...photos.decoder_process import Waiter
from ...photos.device_jpegs import without_metadata
from ...processes.channel import Channel, Disconnected
from ...processes.device import Device
from ..heads import Floats
from .base import Inference, Pixels
from .frames import FLOAT_BYTES, MAX_LOAD_BYTES, REPLY, DeviceOutputs, Facts, Kind, Reply, Request, Status

log = logging.getLogger(__name__)

# Photos of one worker that may be at the device at once; more wait in the worker.
MAX_CHANNELS = 64
# How soon a photo that waits notices that its client has disconnected.
LOOK_SECONDS = 0.05
# How long loading may take: the first start downloads the weights.
MAX_LOAD_SECONDS = 600.0
_RETRY_SECONDS = 1.0
# How long a JPEG waits for the next device process after the one that had it has ended.
MAX_ABSENT_SECONDS = 20.0
_LOST = "The process that owns the device has ended; another is being started."


@dataclass(frozen=True)
class Photo:
    """The input for one photo: the bytes of a crop, or a JPEG that was checked."""

    kind: Kind
    data: bytes | memoryview
    orientation: int = 1


class Deadline(Waiter, Protocol):
    """A waiter that knows when it will give up."""

    @property
    def expires(self) -> float:
        """Return the monotonic time after which the answer is of no use."""


class Undecoded(Exception):
    """The device did not decode a JPEG, or ended while it had it."""


class DeviceClient:
    """A worker's connection to the device process; any thread may use it until `close`."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._changed = threading.Condition()
        self._idle: list[Channel] = []
        self._open = 0
        self._is_closed = False
        self._alive = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_connected(self) -> bool:
        """Return whether a device process with a model lives."""
        return self._alive.is_set()

    @property
    def in_use(self) -> int:
        """Return how many photos of this worker are at the device."""
        with self._changed:
            return self._open - len(self._idle)

    def load(self) -> Facts:
        """Have the model of the settings loaded, unless it is, and return what is known of it.

        Raises WeightsError if no weights can serve, ModelUnavailable if the device process ends or takes too long.
        """
        life, facts = self._connect()
        with self._changed:
            if self._thread is not None:
                life.close()
                return facts
            self._alive.set()
            self._thread = threading.Thread(target=self._stay_connected, args=[life], name="device", daemon=True)
            self._thread.start()
        return facts

    def infer(
        self, facts: Facts, photo: Photo, outputs: DeviceOutputs, waiter: Deadline | None
    ) -> tuple[Channel, Reply]:
        """Have one photo computed; return the channel, which is to be given back, and its reply.

        Raises ModelUnavailable if the device process does not run or has ended, and what the waiter raises.
        """
        if not self.is_connected:
            raise ModelUnavailable(_LOST)
        expires = waiter.expires if waiter else math.inf
        channel = self._take((facts.input_bytes, facts.output_bytes), waiter)
        is_answered = False
        try:
            channel.put(photo.data)
            size = len(photo.data)
            channel.send(Request(photo.kind, outputs, size, facts.number, expires, photo.orientation).pack())
            reply = self._wait(channel, waiter)
            is_answered = True
        except Disconnected as error:
            raise ModelUnavailable(_LOST) from error
        finally:
            if not is_answered:
                self.give_back(channel, is_fit=False)
        return channel, reply

    def wait_until_connected(self, waiter: Waiter | None) -> None:
        """Wait for a device process with a model; raises ModelUnavailable without one, and what the waiter raises."""
        end = time.monotonic() + MAX_ABSENT_SECONDS
        while not self._alive.wait(LOOK_SECONDS):
            if waiter is not None:
                waiter.check()
            if time.monotonic() > end or self._is_closed:
                raise ModelUnavailable(_LOST)

    def give_back(self, channel: Channel, *, is_fit: bool = True) -> None:
        """Give a channel back; one with a reply to come is closed, by which the device process forgets its photo."""
        with self._changed:
            if is_fit and self._alive.is_set() and not self._is_closed:
                self._idle.append(channel)
            else:
                channel.close()
                self._open -= 1
            self._changed.notify()

    def close(self) -> None:
        """Close all channels, and end the thread that looks after the connection."""
        with self._changed:
            self._is_closed = True
            self._forget_idle()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _take(self, sizes: tuple[int, int], waiter: Waiter | None) -> Channel:
        """Take an idle channel, or open one; waits while as many as allowed are in use."""
        with self._changed:
            while not self._idle and self._open >= MAX_CHANNELS:
                self._check(waiter)
                self._changed.wait(LOOK_SECONDS)
            while self._idle:
                channel = self._idle.pop()
                if (channel.input_bytes, len(channel.block)) == (sizes[0], sum(sizes)) and channel.is_quiet():
                    return channel
                self._open -= 1
                channel.close()  # of a model or a process before
            self._open += 1
        try:
            channel = self._device.connect(*sizes)
        except ModelUnavailable:
            with self._changed:
                self._open -= 1
            raise
        channel.socket.settimeout(LOOK_SECONDS)
        return channel

    def _check(self, waiter: Waiter | None) -> None:
        """Raise if the answer is no longer of use, ModelUnavailable if the device process has ended.

        The next process would answer what this one has not yet received, but only seconds later.
        """
        if waiter is not None:
            waiter.check()
        if not self.is_connected:
            raise ModelUnavailable(_LOST)

    def _forget_idle(self) -> None:
        """Close the idle channels; called with the lock."""
        self._open -= len(self._idle)
        while self._idle:
            self._idle.pop().close()

    def _wait(self, channel: Channel, waiter: Waiter | None) -> Reply:
        while True:
            try:
                return Reply.unpack(channel.receive(REPLY))
            except TimeoutError:
                self._check(waiter)

    def _connect(self) -> tuple[Channel, Facts]:
        """Open a channel over which the model is loaded; raises what `load` raises."""
        channel = self._device.connect(0, MAX_LOAD_BYTES)
        try:
            return channel, self._load_over(channel)
        except Disconnected as error:
            channel.close()
            raise ModelUnavailable(_LOST) from error
        except (ModelUnavailable, WeightsError):
            channel.close()
            raise

    def _load_over(self, channel: Channel) -> Facts:
        channel.socket.settimeout(LOOK_SECONDS)
        channel.send(Request(Kind.LOAD).pack())
        reply = self._loaded(channel)
        text = channel.output(0, reply.text_bytes)
        if reply.status != Status.DONE:
            raise WeightsError(text.decode("utf-8", "replace"))
        return Facts.unpack(text, channel.output(reply.text_bytes, reply.head_bytes))

    def _loaded(self, channel: Channel) -> Reply:
        """Wait for the reply to LOAD."""
        end = time.monotonic() + MAX_LOAD_SECONDS
        while not self._is_closed:
            try:
                return Reply.unpack(channel.receive(REPLY))
            except TimeoutError as error:
                if time.monotonic() > end:
                    raise ModelUnavailable("The device process takes too long to load the model.") from error
        raise ModelUnavailable(_LOST)

    def _stay_connected(self, first: Channel) -> None:
        """Hold one channel open, whose end is that of the device process; runs in a thread of its own."""
        life: Channel | None = first
        while life is not None:
            self._wait_for_end(life)
            life = self._reconnect()

    def _wait_for_end(self, life: Channel) -> None:
        while not self._is_closed:
            try:
                life.receive(REPLY)
            except TimeoutError:
                continue
            except Disconnected:
                log.error("The device process has ended; photos are answered 503 until another is ready.")
                break
        with self._changed:
            self._alive.clear()
            self._forget_idle()
        life.close()

    def _reconnect(self) -> Channel | None:
        """Wait for the next device process and its model; return None if this is closed."""
        while not self._is_closed:
            try:
                life, _ = self._connect()
            except (ModelUnavailable, WeightsError) as error:
                with self._changed:
                    if not self._changed.wait_for(lambda: self._is_closed, _RETRY_SECONDS):
                        log.error("The device process has no model: %s", error)
            else:
                self._alive.set()
                return life
        return None


class DeviceEngine:
    """A model that the device process has loaded."""

    name = "torch"
    batches = True

    def __init__(self, client: DeviceClient) -> None:
        self.client = client
        self.is_gone = False  # whether the device process has another model in its place
        self.facts = client.load()
        self.precision, self.grid, self.head = self.facts.precision, self.facts.grid, self.facts.head

    @property
    def decodes(self) -> bool:
        """Return whether the device decodes JPEG files."""
        return self.facts.max_jpeg_bytes > 0

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        """Compute a batch of shape (n, side, side, 3), one photo after the other; raises what `infer_one` raises."""
        found = [self.infer_one(crop, DeviceOutputs.EMBEDDING | DeviceOutputs.FEATURES)[0] for crop in batch]
        return Inference(
            np.concatenate([each.logits for each in found]),
            np.concatenate([each.features for each in found]),
            np.concatenate([each.embeddings for each in found]),
        )

    def infer_one(
        self, crop: Pixels, outputs: DeviceOutputs = DeviceOutputs.LOGITS, waiter: Deadline | None = None
    ) -> tuple[Inference, int]:
        """Compute one crop (side, side, 3); return the result, and how many photos were computed with it.

        Raises ModelUnavailable, DeadlineExceeded if its turn comes too late, RuntimeError if the device fails on
        this photo alone, and what the waiter raises.
        """
        return self._infer(Photo(Kind.CROP, np.ascontiguousarray(crop).data.cast("B")), outputs, waiter)

    def infer_jpeg(
        self, data: bytes, orientation: int, outputs: DeviceOutputs, waiter: Deadline | None
    ) -> tuple[Inference, int]:
        """Have a JPEG decoded and computed, as `infer_one` does with a crop.

        Raises Undecoded too. The file is then to be decoded elsewhere, and not to be sent again: it may be what the
        device failed on. If the device process has ended, this returns only when another is ready.
        """
        try:
            return self._infer(Photo(Kind.JPEG, without_metadata(data), orientation), outputs, waiter)
        except ModelUnavailable as error:
            self.client.wait_until_connected(waiter)
            raise Undecoded from error

    def _infer(self, photo: Photo, outputs: DeviceOutputs, waiter: Deadline | None) -> tuple[Inference, int]:
        channel, reply = self.client.infer(self.facts, photo, outputs, waiter)
        try:
            if reply.status == Status.UNDECODED:
                raise Undecoded
            self.is_gone = reply.status == Status.GONE
            if reply.status != Status.DONE:
                raise _failure(channel, reply)
            return self._result(channel, outputs), reply.batch
        finally:
            self.client.give_back(channel)

    def _result(self, channel: Channel, outputs: DeviceOutputs) -> Inference:
        """Copy a photo's outputs; their sizes follow from the model."""
        facts, at = self.facts, 0

        def read(shape: Sequence[int]) -> Floats:
            nonlocal at
            start, at = at, at + FLOAT_BYTES * math.prod(shape)
            return np.frombuffer(channel.output(start, at - start), np.float32).reshape(1, *shape)

        logits = read([facts.classes])
        pooled = read([facts.channels]) if outputs else None
        no_features = np.empty((1, facts.channels, 0, 0), np.float32)
        features = read([facts.channels, *facts.grid]) if DeviceOutputs.FEATURES in outputs else no_features
        return Inference(logits, features, pooled)


def _failure(channel: Channel, reply: Reply) -> Exception:
    if reply.status == Status.LATE:
        return DeadlineExceeded("The deadline passed before the photo was answered.")
    if reply.status == Status.GONE:
        return ModelUnavailable("The device process has another model now.")
    return RuntimeError(channel.output(0, reply.text_bytes).decode("utf-8", "replace"))
