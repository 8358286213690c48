"""Writing a bundle, whole or not at all."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import BundleError
from ..version import __version__
from ..writing import replacing
from .artifact import FILES, MANIFEST, PREPARE_VERSION, Prepared
from .bundle import (
    COPY_BYTES,
    DESCRIPTION,
    END,
    FORMAT,
    FORMAT_TUNED,
    FORMAT_WITH_OWN,
    LABELS,
    MEMBERS,
    MODEL,
    OWN,
    OWN_MEMBERS,
    SUMS,
    Bundle,
    Description,
    openvino_version,
    padding,
    read_bundle,
    tar_header,
    write_sums,
)
from .digests import bytes_sha256, file_sha256
from .engines import check_classes
from .labels import Label, write_labels
from .own_format import OwnModel, files_of
from .records import as_json


def write_bundle(prepared: Prepared, labels: tuple[Label, ...], target: Path, own: OwnModel | None = None) -> Bundle:
    """Write a bundle, whole or not at all, and read it back; the same model and labels make the same bytes.

    `own` is a model of one's own to put in, whose head must be on these weights.
    """
    check_classes(prepared, len(labels))
    description = dataclasses.replace(_describe(prepared), format=_format_of(own))
    described = (json.dumps(dataclasses.asdict(description), indent=1, ensure_ascii=False) + "\n").encode()
    texts = {DESCRIPTION: described, LABELS: write_labels(labels)}
    if own is not None:
        texts |= {f"{OWN}/{name}": data for name, data in files_of(own, own.name, own.version).items()}
    files = {f"{MODEL}/{name}": prepared.folder / name for name in (MANIFEST, *FILES)}
    digests = {name: bytes_sha256(text) for name, text in texts.items()}
    digests |= {name: file_sha256(path) for name, path in files.items()}
    members = (*MEMBERS, *OWN_MEMBERS) if own else MEMBERS
    texts[SUMS] = write_sums({name: digests[name] for name in members if name != SUMS})
    try:
        with replacing(target, 0o644) as out:
            _write_members(out, members, texts, files)
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error.strerror or error}.") from error
    return read_bundle(target)


def _format_of(own: OwnModel | None) -> int:
    if own is None:
        return FORMAT
    return FORMAT_WITH_OWN if own.trunk is None else FORMAT_TUNED


def _describe(prepared: Prepared) -> Description:
    manifest, weights = prepared.manifest, prepared.weights
    return Description(
        format=FORMAT,
        model=as_json(weights.record),
        weights_sha256=weights.sha256,
        fallback=weights.is_fallback,
        precision=manifest.precision,
        classes=manifest.classes,
        accuracy=manifest.accuracy,
        topthree=__version__,
        openvino=openvino_version(),
        prepare_version=PREPARE_VERSION,
    )


def _write_members(out: Any, members: tuple[str, ...], texts: dict[str, bytes], files: dict[str, Path]) -> None:
    for name in members:
        if name in texts:
            _write_member(out, name, io.BytesIO(texts[name]), len(texts[name]))
        else:
            with files[name].open("rb") as file:
                _write_member(out, name, file, files[name].stat().st_size)
    out.write(END)
    out.flush()
    os.fsync(out.fileno())


def _write_member(out: Any, name: str, content: BinaryIO, size: int) -> None:
    out.write(tar_header(name, size))
    shutil.copyfileobj(content, out, COPY_BYTES)
    out.write(bytes(padding(size)))
