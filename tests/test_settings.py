"""Settings: each declared once, read once; a bad value stops the start and names its variable."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.errors import SettingsError
from app.settings import SETTINGS, Settings, service_links

HOME = Path.home()
DIGEST = "0123456789abcdef" * 4


def read(**variables: str) -> Settings:
    """Read settings from these variables alone, written without their prefix in lower case."""
    return Settings.from_environment({f"TOPTHREE_{name.upper()}": value for name, value in variables.items()})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "1", 1),
        ("port", "65535", 65535),
        ("port", " 80 ", 80),
        ("port", "", 8000),
        ("max_pixels", "1000000000", 1_000_000_000),
        ("result_cache_bytes", "0", 0),
        ("trusted_proxies", "10", 10),
        ("fallback", "none", "none"),
        ("log_level", "debug", "debug"),
        ("weights", "model.pth", Path("model.pth")),
        ("weights", "~/model.pth", HOME / "model.pth"),
        ("weights", " ", None),
        ("cache", "/srv/cache", Path("/srv/cache")),
        ("weights_url", "https://mirror.example/resnet18.pth", "https://mirror.example/resnet18.pth"),
        ("weights_url", "http://127.0.0.1:8001/w", "http://127.0.0.1:8001/w"),
        ("host", "0.0.0.0", "0.0.0.0"),
        ("host", "photos.example", "photos.example"),
        ("host", "::1", "[::1]"),
        ("host", "[::]", "[::]"),
        ("metrics_address", "127.0.0.1:9100", "127.0.0.1:9100"),
        ("metrics_address", "[::1]:9100", "[::1]:9100"),
        ("traces", "http://collector:4318", "http://collector:4318/v1/traces"),
        ("traces", "https://collector.example/", "https://collector.example/v1/traces"),
        ("traces", "http://collector:4318/other/traces", "http://collector:4318/other/traces"),
    ],
)
def test_good_values_are_read(name: str, text: str, value: object):
    assert getattr(read(**{name: text}), name) == value


def test_a_digest_is_read_in_lower_case():
    assert read(weights="model.pth", weights_sha256=DIGEST.upper()).weights_sha256 == DIGEST


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "0"),
        ("port", "65536"),
        ("port", "-1"),
        ("port", "80a"),
        ("port", "8e3"),
        ("port", "8_000"),
        ("port", "８０"),
        ("port", "9" * 5000),
        ("max_upload_bytes", "0"),
        ("max_upload_bytes", "10MB"),
        ("max_batch_bytes", str(4096 * 1024 * 1024 + 1)),
        ("max_batch_items", "1001"),
        ("max_pixels", "1000000001"),
        ("workers", "0"),
        ("deadline_ms", "0"),
        ("deadline_ms", "600001"),
        ("trusted_proxies", "true"),
        ("fallback", "resnet50"),
        ("fallback", "None"),
        ("log_level", "verbose"),
        ("weights_sha256", DIGEST[:-1]),
        ("weights_sha256", DIGEST[:-1] + "g"),
        ("weights_url", "mirror.example/resnet18.pth"),
        ("weights_url", "ftp://mirror.example/resnet18.pth"),
        ("weights_url", "https://"),
        ("weights", "~nobody-of-this-name/model.pth"),
        ("host", "two words"),
        ("host", "http://127.0.0.1"),
        ("host", "localhost:8000"),
        ("host", "[127.0.0.1"),
        ("metrics_address", "9100"),
        ("metrics_address", "127.0.0.1"),
        ("metrics_address", ":9100"),
        ("metrics_address", "127.0.0.1:0"),
        ("traces", "collector:4318"),
        ("log_format", "xml"),
    ],
)
def test_a_bad_value_names_its_variable(name: str, text: str):
    with pytest.raises(SettingsError, match=f"^TOPTHREE_{name.upper()} is .*; it must be .*[^.]\\.$"):
        read(**{name: text})


@pytest.mark.parametrize("name", ["PROT", "", "port", "WEIGHTS_", "TEST_WEIGHTS"])
def test_a_variable_that_does_not_exist_is_refused(name: str):
    with pytest.raises(SettingsError, match=f"^TOPTHREE_{name} is not a setting; "):
        Settings.from_environment({f"TOPTHREE_{name}": "1"})


def test_a_misspelled_variable_gets_a_suggestion():
    with pytest.raises(SettingsError, match="perhaps TOPTHREE_PORT is meant"):
        Settings.from_environment({"TOPTHREE_PROT": "1"})


def test_a_password_in_a_bad_address_is_not_shown():
    with pytest.raises(SettingsError, match="'ftp://…@counts.example'"):
        read(rate_limit="1/minute", rate_limit_storage="ftp://user:secret@counts.example")


@pytest.mark.parametrize("variable", ["PORT", "topthree_port", "OTHER_TOPTHREE_PORT"])
def test_variables_of_others_are_left_alone(variable: str):
    assert Settings.from_environment({variable: "nonsense"}) == Settings.from_environment({})


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"labels": "names.txt"}, "TOPTHREE_WEIGHTS"),
        ({"weights_sha256": DIGEST}, "TOPTHREE_WEIGHTS"),
        ({"max_batch_bytes": "1000"}, "TOPTHREE_MAX_BATCH_BYTES"),
        ({"max_upload_bytes": "100000000"}, "TOPTHREE_MAX_BATCH_BYTES"),
        ({"max_waiting_bytes": "1000"}, "TOPTHREE_MAX_BATCH_BYTES"),
        ({"max_upload_bytes": "67108864", "max_waiting_bytes": "67108864"}, "base64"),
        ({"engine": "torch", "precision": "int8"}, "TOPTHREE_PRECISION"),
        ({"metrics_address": "127.0.0.1:8000"}, "TOPTHREE_METRICS_ADDRESS"),
    ],
)
def test_impossible_combinations_are_refused(variables: dict[str, str], named: str):
    with pytest.raises(SettingsError, match=named):
        read(**variables)


@pytest.mark.parametrize(
    ("environment", "cache", "torch_hub"),
    [
        ({"XDG_CACHE_HOME": "/c"}, "/c/topthree", "/c/torch/hub/checkpoints"),
        ({"XDG_CACHE_HOME": "/c", "TORCH_HOME": "/t"}, "/c/topthree", "/t/hub/checkpoints"),
        ({"XDG_CACHE_HOME": "/c", "TOPTHREE_CACHE": "/o"}, "/o", "/c/torch/hub/checkpoints"),
        ({"XDG_CACHE_HOME": "/c", "TORCH_HOME": ""}, "/c/topthree", "/c/torch/hub/checkpoints"),
        ({"TORCH_HOME": "~/t"}, str(HOME / ".cache/topthree"), str(HOME / "t/hub/checkpoints")),
    ],
)
def test_caches_lie_where_people_put_them(environment: dict[str, str], cache: str, torch_hub: str):
    settings = Settings.from_environment(environment)
    assert (settings.cache, settings.torch_hub) == (Path(cache), Path(torch_hub))


def test_a_user_without_a_home_learns_what_to_set():
    with pytest.raises(SettingsError, match="set TOPTHREE_CACHE to a folder"):
        Settings.from_environment({"XDG_CACHE_HOME": "~nobody-of-this-name"})


def test_a_user_without_a_home_needs_only_the_cache():
    settings = Settings.from_environment({"XDG_CACHE_HOME": "~nobody-of-this-name", "TOPTHREE_CACHE": "/o"})
    assert (settings.cache, settings.torch_hub) == (Path("/o"), Path("/o/torch/hub/checkpoints"))


UNKNOWN_USER = """
import os
from app.errors import SettingsError
from app.settings import Settings
os.environ.pop("HOME", None)
os.setuid(54321)
print(Settings.from_environment({"TOPTHREE_CACHE": "/o"}).torch_hub)
try:
    Settings.from_environment({})
except SettingsError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_unknown_user_id_needs_only_the_cache():
    done = subprocess.run([sys.executable, "-c", UNKNOWN_USER], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "/o/torch/hub/checkpoints",
        "The home folder cannot be found; set TOPTHREE_CACHE to a folder that can be written.",
    ]


# As Kubernetes sets them for a service `topthree` with two ports, and for one named `topthree-metrics`.
LINKS = {
    "TOPTHREE_SERVICE_HOST": "10.0.0.11",
    "TOPTHREE_SERVICE_PORT": "80",
    "TOPTHREE_SERVICE_PORT_HTTP": "80",
    "TOPTHREE_PORT": "tcp://10.0.0.11:80",
    "TOPTHREE_PORT_80_TCP": "tcp://10.0.0.11:80",
    "TOPTHREE_PORT_80_TCP_PROTO": "tcp",
    "TOPTHREE_PORT_80_TCP_PORT": "80",
    "TOPTHREE_PORT_80_TCP_ADDR": "10.0.0.11",
    "TOPTHREE_PORT_53_UDP": "udp://10.0.0.11:53",
    "TOPTHREE_METRICS_SERVICE_HOST": "10.0.0.12",
    "TOPTHREE_METRICS_PORT": "tcp://10.0.0.12:9100",
    "TOPTHREE_METRICS_PORT_9100_TCP": "tcp://10.0.0.12:9100",
}


def test_what_kubernetes_sets_for_a_service_is_ignored():
    assert Settings.from_environment(LINKS) == Settings.from_environment({})
    assert service_links(LINKS | {"TOPTHREE_HOST": "0.0.0.0", "OTHER_SERVICE_HOST": "10.0.0.1"}) == sorted(LINKS)


def test_a_child_process_knows_all_that_kubernetes_sets(monkeypatch: pytest.MonkeyPatch):
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment(os.environ)
    assert service_links(settings.for_child()) == sorted(LINKS)
    assert Settings.from_environment(settings.for_child(port=81)).port == 81


@pytest.mark.parametrize(
    ("variable", "value"), [("PORT", "tcp:/10.0.0.1"), ("PORT", "http://a"), ("SERVICE", "1"), ("PORT_80", "tcp://a")]
)
def test_what_is_like_kubernetes_variables_is_refused(variable: str, value: str):
    with pytest.raises(SettingsError, match=f"^TOPTHREE_{variable} is "):
        Settings.from_environment({f"TOPTHREE_{variable}": value})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("127.photos.example", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, loopback: bool):
    assert read(host=host).is_loopback is loopback


def test_a_child_process_reads_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    settings = read(weights="model.pth", cache="cache", host="::1", port="81", log_level="error")
    child = Settings.from_environment(settings.as_environment())
    changed = {"weights": tmp_path / "model.pth", "cache": tmp_path / "cache"}
    assert child == dataclasses.replace(settings, **changed)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_default_is_a_value_that_may_be_given(setting):
    assert read(**{setting.name: setting.default}) == read()
