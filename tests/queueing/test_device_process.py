"""The device process with torch's engine on the CPU: batches across workers, and what happens when it fails."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from waiting import wait_until

from app.classifier import Classifier
from app.errors import DeadlineExceeded, ModelUnavailable, WeightsError
from app.model.engines import DeviceClient, DeviceEngine, Inference, Pixels
from app.model.engines.device import Undecoded
from app.model.engines.frames import REPLY, DeviceOutputs, Kind, Reply, Request, Status
from app.model.engines.torch_engine import TorchEngine
from app.model.weights import packaged_weights
from app.photos.decoding import decode
from app.processes.channel import Channel
from app.processes.device import Device
from app.queueing.scheduling import Deadline
from app.settings import Settings

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
EVERYTHING = DeviceOutputs.EMBEDDING | DeviceOutputs.FEATURES


class Service:
    """A device process, and the engine of a worker that is connected to it."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.client = DeviceClient(device)
        self.engine = DeviceEngine(self.client)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the process, so that all that is sent within the block is there when it goes on."""
        stop(self.device.pid)
        try:
            yield
        finally:
            os.kill(self.device.pid, signal.SIGCONT)

    def close(self) -> None:
        """Disconnect, and end the process."""
        self.client.close()
        self.device.close()

    def send(self, crop: Pixels, size: int | None = None, **request: object) -> Channel:
        """Send a photo over a channel of its own, as a worker does."""
        facts = self.engine.facts
        channel = self.device.connect(facts.input_bytes, facts.output_bytes)
        channel.put(crop.tobytes())
        channel.send(dataclasses.replace(Request(Kind.CROP, 0, size or crop.nbytes, facts.number), **request).pack())
        return channel


@pytest.fixture(scope="module")
def settings(packaged_settings: Settings) -> Settings:
    return dataclasses.replace(packaged_settings, engine="torch")


@pytest.fixture(scope="module")
def shared(settings: Settings) -> Iterator[Service]:
    """One device process, which decodes JPEG files too, for the tests that do not end it."""
    service = Service(started(dataclasses.replace(settings, decode="gpu")))
    yield service
    service.close()


@pytest.fixture(scope="module")
def expected(crops: Pixels) -> Inference:
    """What the same engine computes in this process."""
    return TorchEngine(packaged_weights(""), classes=1000, precision="fp32", cpus=1).infer(crops)


@pytest.fixture(scope="module")
def crops() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), dtype=np.uint8)


def started(settings: Settings) -> Device:
    """Start a device process on one processor: on two that are busy elsewhere, its threads wait for each other."""
    device = Device(os.environ, settings)
    device.start()
    os.sched_setaffinity(device.pid, {max(os.sched_getaffinity(0))})
    return device


def stop(pid: int) -> None:
    """Stop a process, and wait until it stands still: a signal may arrive after what is sent next."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


def replies(channels: list[Channel]) -> list[Reply]:
    """Wait for the replies of photos, and close their channels."""
    found = [Reply.unpack(channel.receive(REPLY)) for channel in channels]
    for channel in channels:
        channel.close()
    return found


def test_the_device_process_computes_what_the_engine_computes(
    shared: Service, crops: Pixels, expected: Inference
) -> None:
    found = shared.engine.infer(crops)
    assert np.abs(found.logits - expected.logits).max() < TOLERANCE
    assert np.abs(found.features - expected.features).max() < TOLERANCE
    assert np.abs(found.embeddings - expected.features.mean(axis=(2, 3))).max() < TOLERANCE
    assert shared.engine.grid == expected.features.shape[2:]


@pytest.mark.parametrize(
    ("outputs", "pooled", "cells"),
    [(DeviceOutputs.LOGITS, False, 0), (DeviceOutputs.EMBEDDING, True, 0), (EVERYTHING, True, 7 * 7)],
)
def test_only_the_outputs_that_were_asked_for_come_back(
    shared: Service, crops: Pixels, outputs: DeviceOutputs, pooled: bool, cells: int
) -> None:
    found, batch = shared.engine.infer_one(crops[0], outputs)
    assert (found.pooled is not None, found.features[0, 0].size, batch) == (pooled, cells, 1)


def test_what_waits_for_the_device_is_one_batch_across_workers(
    shared: Service, crops: Pixels, expected: Inference
) -> None:
    other = Service(shared.device)
    with shared.paused():
        channels = [(shared, other)[place % 2].send(crop) for place, crop in enumerate(crops)]
    found = [Reply.unpack(channel.receive(REPLY)) for channel in channels]
    logits = [np.frombuffer(channel.output(0, 4 * 1000), np.float32) for channel in channels]
    for channel in channels:
        channel.close()
    other.client.close()
    assert [(reply.status, reply.batch) for reply in found] == [(Status.DONE, len(crops))] * len(crops)
    assert np.abs(np.stack(logits) - expected.logits).max() < TOLERANCE


def test_a_photo_past_its_deadline_is_not_computed(shared: Service, crops: Pixels) -> None:
    with shared.paused():
        late = shared.send(crops[0], expires=time.monotonic() - 1)
        channels = [late, shared.send(crops[1])]
    assert [(reply.status, reply.batch) for reply in replies(channels)] == [(Status.LATE, 0), (Status.DONE, 1)]


def test_a_photo_whose_worker_has_gone_is_not_computed(shared: Service, crops: Pixels) -> None:
    with shared.paused():
        gone, left = shared.send(crops[0]), shared.send(crops[1])
        gone.close()
    assert [reply.batch for reply in replies([left])] == [1]


def test_a_request_that_makes_no_sense_fails_alone(shared: Service, crops: Pixels) -> None:
    with shared.paused():
        channels = [shared.send(crops[0]), shared.send(crops[1], size=7), shared.send(crops[2], model=1)]
    assert [reply.status for reply in replies(channels)] == [Status.DONE, Status.FAILED, Status.GONE]


def test_a_waiting_photo_gives_up_at_its_deadline(shared: Service, crops: Pixels) -> None:
    with shared.paused(), pytest.raises(DeadlineExceeded):
        shared.engine.infer_one(crops[0], waiter=Deadline(time.monotonic() + 0.2))
    assert shared.engine.infer_one(crops[0])[1] == 1


def test_photos_beyond_the_channels_of_a_worker_wait_in_it(
    shared: Service, crops: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.model.engines.device.MAX_CHANNELS", 2)
    worker = Service(shared.device)
    sizes: list[int] = []
    threads = [threading.Thread(target=lambda: sizes.append(worker.engine.infer_one(crops[0])[1])) for _ in range(5)]
    with shared.paused():
        for thread in threads:
            thread.start()
        with pytest.raises(DeadlineExceeded):
            worker.engine.infer_one(crops[0], waiter=Deadline(time.monotonic() + 0.2))
    for thread in threads:
        thread.join()
    worker.client.close()
    assert len(sizes) == 5
    assert max(sizes) <= 2


def test_weights_that_cannot_serve_are_refused_with_the_reason(settings: Settings, tmp_path: Path) -> None:
    weights = tmp_path / "own.pth"
    weights.write_bytes(b"nothing")
    device = started(dataclasses.replace(settings, weights=weights))
    with pytest.raises(WeightsError, match="own\\.pth"):
        DeviceClient(device).load()
    device.close()


def test_a_killed_device_process_fails_its_photos_and_is_replaced(settings: Settings, crops: Pixels) -> None:
    device = started(settings)
    service = Service(device)
    before = service.engine.infer_one(crops[0])[0]
    failures: list[ModelUnavailable] = []

    def ask() -> None:
        with pytest.raises(ModelUnavailable) as caught:
            service.engine.infer_one(crops[0])
        failures.append(caught.value)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    first = device.pid
    stop(first)
    for thread in threads:
        thread.start()
    wait_until(lambda: service.client.in_use == len(threads))
    os.kill(first, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert [failure.retry_after_seconds for failure in failures] == [5] * len(threads)
    wait_until(lambda: not service.client.is_connected)
    with pytest.raises(ModelUnavailable):
        service.engine.infer_one(crops[0])
    wait_until(lambda: device.look() or device.pid not in (first, None))
    wait_until(lambda: service.client.is_connected)
    assert np.abs(service.engine.infer_one(crops[0])[0].logits - before.logits).max() < TOLERANCE
    second = device.pid
    service.close()
    assert not Path(f"/proc/{second}").exists()
    device.look()
    assert device.pid is None


def test_a_device_process_that_hangs_is_replaced(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    device = Device(os.environ, settings, module="stuck_device")
    device.start()
    first = device.pid
    wait_until(lambda: device.look() or device.pid != first)
    assert "has computed one batch for 20 s" in caplog.text
    device.close()


def test_one_that_ends_at_once_is_started_again_after_a_pause(settings: Settings) -> None:
    device = Device(os.environ, settings, module="brief_device")
    device.start()
    wait_until(lambda: device.look() or device.pid is None)
    device.look()
    assert device.pid is None
    wait_until(lambda: device.look() or device.pid is not None)
    device.close()


def test_a_damaged_jpeg_sends_its_batch_to_the_processors(shared: Service, real_photos: dict[str, bytes]) -> None:
    photo = real_photos["cat"]
    crop = decode(photo, max_pixels=10**7).crop(shared.engine.facts.weights.record.geometry)
    expected = shared.engine.infer(crop[None]).logits
    assert shared.engine.decodes
    found, _ = shared.engine.infer_jpeg(photo, 1, DeviceOutputs.LOGITS, None)
    assert np.abs(found.logits - expected).max() < 0.2
    with pytest.raises(Undecoded):
        shared.engine.infer_jpeg(photo[:600] + b"\xff\xd9", 1, DeviceOutputs.LOGITS, None)
    assert shared.engine.infer_one(crop)[1] == 1


def test_a_worker_takes_the_model_of_the_device_process(
    shared: Service, settings: Settings, real_photos: dict[str, bytes]
) -> None:
    classifier = Classifier.from_settings(settings)
    classifier.connect(shared.device)
    engine = classifier.load_model().engine
    assert isinstance(engine, DeviceEngine)
    engine.facts = dataclasses.replace(engine.facts, number=1)  # as if the process had been replaced, and the weights
    with pytest.raises(ModelUnavailable, match="another model"):
        classifier.classify(real_photos["cat"], max_pixels=10**7)
    classifier.refresh()
    assert classifier.classify(real_photos["cat"], max_pixels=10**7).predictions[0].label == "tiger cat"
    classifier.close()
