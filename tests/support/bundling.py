"""Small bundles, whole and forged, for the tests of what reads them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from app.model.artifact import FILES, Manifest, Prepared, read_files, write_manifest
from app.model.bundle import END, MEMBERS, SUMS, padding, tar_header, write_sums
from app.model.bundle_writer import write_bundle
from app.model.digests import bytes_sha256
from app.model.labels import Label
from app.model.records import RECORDS
from app.model.weights import Weights

RESNET18 = RECORDS["resnet18"]

LABELS = tuple(Label(index, None, name, None) for index, name in enumerate(("cat", 'dog, "big"', "杯")))


def small_bundle(folder: Path) -> Path:
    """Write a bundle of three classes whose model is a few bytes."""
    artifact = folder / "artifact"
    artifact.mkdir()
    for name in FILES:
        (artifact / name).write_text(f"this is {name}")
    files = {name: bytes_sha256((artifact / name).read_bytes()) for name in FILES}
    manifest = Manifest("resnet18", "5" * 64, "fp32", 3, {}, {"openvino": "1"}, files, None)
    write_manifest(artifact, manifest)
    weights = Weights(artifact, "5" * 64, RESNET18, "cache")
    prepared = Prepared(artifact, manifest, weights, read_files(artifact))
    return write_bundle(prepared, LABELS, folder / "small.tar").path


def rewrite(bundle: Path, changes: dict[str, Any]) -> None:
    """Forge a bundle: bytes replace a member, a mapping changes fields of its JSON, None leaves it out.

    Unless they are forged too, the sums are made right again.
    """
    with tarfile.open(bundle) as archive:
        content = {name: archive.extractfile(name).read() for name in MEMBERS}
    for name, change in changes.items():
        content[name] = json.dumps(json.loads(content[name]) | change).encode() if isinstance(change, dict) else change
    kept = {name: data for name, data in content.items() if data is not None}
    if SUMS in kept and SUMS not in changes:
        kept[SUMS] = write_sums({name: bytes_sha256(data) for name, data in kept.items() if name != SUMS})
    parts = (tar_header(name, len(data)) + data + bytes(padding(len(data))) for name, data in kept.items())
    bundle.write_bytes(b"".join(parts) + END)
