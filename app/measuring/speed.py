"""How many photos a second each backbone computes on this machine, measured once and cached."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..model.artifact import FILES, Manifest, Prepared
from ..model.bundle import openvino_version
from ..model.digests import bytes_sha256
from ..model.engines import CPU_INFO, OpenVINOEngine
from ..model.records import ModelRecord
from ..model.weights import Weights
from ..writing import replacing

SECONDS = 2.0


def photos_per_second(
    record: ModelRecord, cache: Path, cpus: int, *, again: bool, note: Callable[[str], None]
) -> float:
    """Return how many crops a second a backbone computes in float32 with one thread on each of `cpus` processors.

    Random weights take as long as trained ones. Earlier measurements on this processor with this OpenVINO are read
    from the cache unless it is to be measured `again`; `note` is called with the model's name before a measurement.
    """
    file = cache / "speeds.json"
    key = f"{record.name} {_machine(cpus)}"
    known = _read(file)
    if again or key not in known:
        note(record.name)
        known = _read(file) | {key: round(_measure(record, cpus), 1)}
        with suppress(OSError):  # without a cache it is measured each time
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file, 0o644) as out:
                out.write(json.dumps(known, indent=1).encode())
    return known[key]


def _machine(cpus: int) -> str:
    model = next((line for line in _cpu_lines() if line.startswith("model name")), "")
    return f"{bytes_sha256(model.encode())[:8]} x{cpus} openvino{openvino_version()}"


def _cpu_lines() -> list[str]:
    return CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines() if CPU_INFO.exists() else []


def _read(file: Path) -> dict[str, float]:
    try:
        return {str(key): float(value) for key, value in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # not there, or not what we write
        return {}


def _measure(record: ModelRecord, cpus: int) -> float:
    engine = OpenVINOEngine(_untrained(record), precision="fp32", cpus=cpus, threads_alone=cpus)
    crop = np.random.default_rng(0).integers(0, 256, (1, *(2 * [record.geometry.crop]), 3), np.uint8)
    counts = [0] * cpus
    begin = time.monotonic()

    def work(index: int) -> None:
        while time.monotonic() - begin < SECONDS:
            engine.infer(crop)
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(cpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - begin)


def _untrained(record: ModelRecord) -> Prepared:
    from ..model.backbones.converting import save_graph
    from ..model.backbones.untrained import untrained_backbone

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_graph(untrained_backbone(record), record.geometry.crop, folder)
        content = {file: (folder / file).read_bytes() for file in FILES}
    manifest = Manifest(record.name, "", "fp32", 1000, {}, {}, {})
    return Prepared(folder, manifest, Weights(folder, "", record, "untrained"), content)
