"""Each family of networks is loaded and served as its own package computes it: real architectures, random weights."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torchvision.models

from app.model.artifact import FILES, Manifest, Prepared
from app.model.backbones import Backbone, load_backbone
from app.model.backbones.converting import save_graph
from app.model.backbones.families import FAMILIES
from app.model.backbones.head_reading import read_head_of
from app.model.backbones.untrained import untrained_backbone
from app.model.digests import file_sha256
from app.model.engines import OpenVINOEngine
from app.model.records import RECORDS
from app.model.weights import Weights

# Of the standard deviation of the logits, which is 3.
TOLERANCE = 1e-3


@pytest.fixture(scope="module", params=["mobilenet_v3_small"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Backbone]]:
    """A network of a family, saved as its package would, and loaded as ours."""
    record = RECORDS[request.param]
    path = tmp_path_factory.mktemp("family") / record.file_name
    torch.save(untrained_backbone(record).network.state_dict(), path)
    yield request.param, load_backbone(Weights(path, file_sha256(path), record, "TOPTHREE_WEIGHTS"), 1000)
    path.unlink()


@pytest.fixture(scope="module")
def asked() -> list[object]:
    """The hosts that converting asked for."""
    return []


@pytest.fixture(scope="module")
def served(
    loaded: tuple[str, Backbone], asked: list[object], tmp_path_factory: pytest.TempPathFactory
) -> OpenVINOEngine:
    name, backbone = loaded
    record, folder = RECORDS[name], tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda self, address: asked.append(address))
        patch.setattr(socket, "getaddrinfo", lambda *host, **more: asked.append(host))
        save_graph(backbone, record.geometry.crop, folder)
    content = {file: (folder / file).read_bytes() for file in FILES}
    weights = Weights(folder, "", record, "a test")
    prepared = Prepared(folder, Manifest(name, "", "fp32", 1000, {}, {}, {}), weights, content)
    return OpenVINOEngine(prepared, precision="fp32", cpus=1, threads_alone=1)


def crops(side: int, count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_served_logits_are_torchs_own(loaded: tuple[str, Backbone], served: OpenVINOEngine) -> None:
    name, backbone = loaded
    pixels = crops(RECORDS[name].geometry.crop)
    with torch.inference_mode():
        expected = backbone.network(backbone.normalise(pixels)).numpy()
    assert expected.std() > 1
    logits = np.stack([served.infer(pixels[index : index + 1].numpy()).logits[0] for index in range(len(pixels))])
    assert np.abs(logits - expected).max() <= TOLERANCE * expected.std()


@pytest.mark.usefixtures("served")
def test_converting_asks_no_host(asked: list[object]) -> None:
    assert asked == []


def test_heat_maps_come_from_the_head_itself(loaded: tuple[str, Backbone], served: OpenVINOEngine) -> None:
    name, backbone = loaded
    pixels = crops(RECORDS[name].geometry.crop, 1)
    with torch.inference_mode():
        _, features = backbone(pixels)
        cells = features.flatten(2).transpose(0, 2).transpose(1, 2).unsqueeze(-1).transpose(1, 2)
        last = backbone.network.get_submodule(FAMILIES[RECORDS[name].family].classifier)
        each = backbone.head(cells.reshape(-1, features.shape[1], 1, 1)) - last.bias
    found = served.infer(pixels.numpy()).features[0]
    assert served.head is not None
    grids = np.tensordot(served.head.weight, served.head.cells(found), axes=1)
    assert served.grid == grids.shape[1:]
    assert np.abs(grids.reshape(1000, -1).T - each.numpy()).max() <= 1e-2


PARTED = [("mobilenet_v2", True), ("regnet_x_400mf", True), ("densenet121", True), ("convnext_tiny", False)]


@pytest.mark.parametrize(("name", "has_maps"), PARTED)
def test_parts_make_the_whole_and_have_a_map_or_none(name: str, has_maps: bool) -> None:
    record = RECORDS[name]
    network = FAMILIES[record.family].build(record.architecture, 7).eval()
    parts = FAMILIES[record.family].split(network)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        features = parts.features(pixels)
        torch.testing.assert_close(parts.head(features), network(pixels), rtol=1e-4, atol=1e-6)
    assert (read_head_of(parts.head, features) is not None) == has_maps


def test_names_of_older_densenet_files_are_todays() -> None:
    old = "features.denseblock1.denselayer6.norm.1.running_mean"
    assert FAMILIES["densenet"].rename(old) == "features.denseblock1.denselayer6.norm1.running_mean"


def test_every_row_has_a_family_and_a_digest() -> None:
    assert {record.family for record in RECORDS.values()} == set(FAMILIES)
    assert all(f"-{record.sha256[:8]}.pth" in record.file_name for record in RECORDS.values())
    assert {len(record.sha256) for record in RECORDS.values()} == {8, 64}


@pytest.mark.parametrize("name", [name for name, record in RECORDS.items() if record.package is None])
def test_rows_are_what_torchvision_says(name: str) -> None:
    record = RECORDS[name]
    kind = "IMAGENET1K_V2" if name.endswith(".v2") else "IMAGENET1K_V1"
    published = torchvision.models.get_model_weights(record.architecture)[kind]
    transform, accuracy = published.transforms(), published.meta["_metrics"]["ImageNet-1K"]
    assert (record.source, record.parameters) == (published.url, published.meta["num_params"])
    assert abs(record.size_bytes - published.meta["_file_size"] * 2**20) <= 525
    assert (record.geometry.resize, record.geometry.crop) == (transform.resize_size[0], transform.crop_size[0])
    assert record.geometry.interpolation == transform.interpolation.value
    assert np.allclose(record.mean, np.array(transform.mean) * 255)
    assert np.allclose(record.std, np.array(transform.std) * 255)
    assert (record.top1, record.top5) == (accuracy["acc@1"], accuracy["acc@5"])
