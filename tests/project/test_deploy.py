"""What deploys the service: files that fit their schemas, the application and each other."""

from __future__ import annotations

import io
import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from fakes import colour_png

from app.commands import cli
from app.errors import PROBLEMS
from app.settings import MEBI, SETTINGS, Settings
from app.web.keys import parse_keys

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
NGINX = (DEPLOY / "nginx" / "nginx.conf").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
# Applied by hand, where there are keys.
EXAMPLE = "keys.example.yaml"
# Applied by hand, for a collection.
BATCH = "batch.yaml"
MANIFESTS = {
    name: yaml.safe_load((KUBERNETES / name).read_text("utf-8"))
    for name in [*KUSTOMIZATION["resources"], EXAMPLE, BATCH]
}
# The oldest Kubernetes that has all that is used, and the newest whose schemas we have.
OLDEST, NEWEST = "1.32", "newest"
POD = MANIFESTS["deployment.yaml"]["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
DEFAULTS = Settings.from_environment({"XDG_CACHE_HOME": "/nowhere"})
UNITS = {"k": 1024, "m": MEBI, "g": 1024 * MEBI, "Mi": MEBI, "Gi": 1024 * MEBI}


def variables_of(path: Path) -> dict[str, str]:
    """Read a file of NAME=value lines."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")]
    return dict(line.split("=", 1) for line in lines)


def as_bytes(size: str) -> int:
    """Read a size such as 65m or 1536Mi."""
    number, unit = re.fullmatch(r"(\d+)(\w+)", size).groups()
    return int(number) * UNITS[unit]


def nginx_value(name: str) -> str:
    """Return what nginx.conf sets a directive to, which it must set exactly once."""
    (value,) = re.findall(rf"^\s*{name}\s+([^;]+);", NGINX, re.MULTILINE)
    return value


def seconds(value: str) -> int:
    """Read a time such as 90s."""
    return int(value.removesuffix("s"))


@pytest.fixture(scope="module")
def gunicorn() -> dict[str, object]:
    """What gunicorn.conf.py sets with the default settings."""
    return runpy.run_path(str(ROOT / "gunicorn.conf.py"))


def assert_fits(document: object, release: str) -> None:
    """Assert that a document fits the schemas of a release of Kubernetes."""
    import kubernetes_validate  # which takes more than a second, not to be spent by every process

    version = kubernetes_validate.latest_version().rpartition(".")[0] if release == NEWEST else release
    assert kubernetes_validate.validate(document, version, strict=True) == version


def test_compose_fits_the_compose_specification() -> None:
    import check_jsonschema
    import jsonschema

    vendored = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.Draft202012Validator(json.loads(vendored.read_text(encoding="utf-8"))).validate(COMPOSE)


@pytest.mark.parametrize("release", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_fit_the_schemas_of_kubernetes(name: str, release: str) -> None:
    assert_fits(MANIFESTS[name], release)


def test_a_misspelt_field_would_be_noticed() -> None:
    wrong = json.loads(json.dumps(MANIFESTS["deployment.yaml"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(Exception, match="readynessProbe"):
        assert_fits(wrong, OLDEST)


def test_every_manifest_is_applied() -> None:
    others = {"kustomization.yaml", EXAMPLE, BATCH}
    assert {path.name for path in KUBERNETES.glob("*.yaml")} == {*KUSTOMIZATION["resources"], *others}


def test_teaching_has_a_volume_and_one_pod() -> None:
    component = yaml.safe_load((KUBERNETES / "teaching" / "kustomization.yaml").read_text("utf-8"))
    claim = yaml.safe_load((KUBERNETES / "teaching" / component["resources"][0]).read_text("utf-8"))
    for release in (OLDEST, NEWEST):
        assert_fits(claim, release)
    deployment, autoscaler = (yaml.safe_load(patch["patch"]) for patch in component["patches"])
    assert (autoscaler["spec"]["minReplicas"], autoscaler["spec"]["maxReplicas"]) == (1, 1)
    assert deployment["metadata"]["name"] == MANIFESTS["deployment.yaml"]["metadata"]["name"]
    pod = deployment["spec"]["template"]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    assert container["name"] == CONTAINER["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mount,) = container["volumeMounts"]
    assert mount["name"] == volume["name"]
    settings = Settings.from_environment({row["name"]: row["value"] for row in container["env"]})
    assert settings.teach == "on"
    assert {settings.projects.parent, settings.models.parent} == {Path(mount["mountPath"])}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl, which builds without a cluster")
def test_kustomize_builds_what_a_cluster_would_get() -> None:
    done = subprocess.run(["kubectl", "kustomize", KUBERNETES], capture_output=True, text=True, check=True)
    made = {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}
    for document in made.values():
        assert_fits(document, NEWEST)
    container = made["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"][0]["configMapRef"]["name"] == made["ConfigMap"]["metadata"]["name"]
    assert container["image"].startswith("registry.example.com/topthree:")


def test_every_variable_named_is_a_setting() -> None:
    files = [path for path in [ROOT / "compose.yaml", *DEPLOY.rglob("*")] if path.is_file()]
    named = {name for path in files for name in re.findall(r"\bTOPTHREE_[A-Z0-9_]+", path.read_text("utf-8"))}
    assert named <= {row.variable for row in SETTINGS}
    assert "TOPTHREE_TRUSTED_PROXIES" in named


def test_settings_given_are_accepted() -> None:
    base = {"XDG_CACHE_HOME": "/nowhere"}
    settings = Settings.from_environment(base | variables_of(KUBERNETES / "settings.env"))
    assert settings.trusted_proxies == 1
    given = {name: str(value) for name, value in COMPOSE["services"]["app"]["environment"].items()}
    assert Settings.from_environment(base | given).trusted_proxies == 1


def test_the_service_s_own_variables_are_not_taken_for_settings() -> None:
    assert POD["enableServiceLinks"] is False


def test_the_health_check_is_the_image_s_own() -> None:
    assert "test" not in COMPOSE["services"]["app"]["healthcheck"]
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_ask_what_the_application_answers(app, probe: str) -> None:
    request = CONTAINER[probe]["httpGet"]
    assert app.url_map.bind("localhost").match(request["path"], "GET")
    assert request["port"] in PORTS


def test_ports_are_those_of_the_image() -> None:
    exposed = int(re.search(r"^EXPOSE (\d+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)[1])
    assert {"http": exposed, "metrics": 9100} == PORTS
    assert f"server app:{exposed};" in NGINX
    published = COMPOSE["services"]["nginx"]["ports"][0].rpartition(":")[2]
    assert f"listen {published};" in NGINX


def test_pod_runs_as_the_image_s_user_and_writes_only_to_memory() -> None:
    user = re.search(r"^USER (\d+):(\d+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert (POD["securityContext"]["runAsUser"], POD["securityContext"]["runAsGroup"]) == tuple(
        map(int, user.groups())
    )
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [volume["emptyDir"]["medium"] for volume in POD["volumes"] if "emptyDir" in volume] == ["Memory"]


def test_prometheus_asks_where_the_metrics_are() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["app:9100"]
    address = "0.0.0.0:9100"
    assert COMPOSE["services"]["app"]["environment"]["TOPTHREE_METRICS_ADDRESS"] == address
    assert variables_of(KUBERNETES / "settings.env")["TOPTHREE_METRICS_ADDRESS"] == address
    annotations = MANIFESTS["deployment.yaml"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(PORTS["metrics"])


def test_only_monitoring_reaches_metrics_and_nothing_goes_out() -> None:
    policy = MANIFESTS["network.yaml"]["spec"]
    callers = {
        rule["ports"][0]["port"]: rule["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in policy["ingress"]
    }
    assert callers == {"http": "ingress-nginx", "metrics": "monitoring"}
    assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [])
    assert COMPOSE["services"]["app"]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"]["internal"] is True


def test_the_example_of_keys_enables_no_key() -> None:
    secret = MANIFESTS[EXAMPLE]
    (volume,) = [volume["secret"] for volume in POD["volumes"] if "secret" in volume]
    assert (volume["secretName"], volume["optional"]) == (secret["metadata"]["name"], True)
    ((name, text),) = secret["stringData"].items()
    assert [key.enabled for key in parse_keys(text, Path(name)).keys] == [False]
    (mount,) = [mount["mountPath"] for mount in CONTAINER["volumeMounts"] if mount["name"] == "keys"]
    assert f"TOPTHREE_API_KEYS_FILE={mount}/{name} " in (KUBERNETES / EXAMPLE).read_text(encoding="utf-8")


def test_grafana_finds_the_dashboard_and_its_data() -> None:
    grafana, folder = COMPOSE["services"]["grafana"], DEPLOY / "grafana" / "provisioning"
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text("utf-8"))["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "topthree.yml").read_text("utf-8"))["providers"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounts["./deploy/grafana/topthree.json"] == home == f"{provider['options']['path']}/topthree.json"
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert source["url"].removeprefix("http://").partition(":")[0] in COMPOSE["services"]


def test_lines_of_a_batch_ask_nginx_not_to_keep_them(client) -> None:
    data = {"file": (io.BytesIO(colour_png(1)), "red.png")}
    answer = client.post("/api/v1/predict/batch", data=data, headers={"Accept": "application/x-ndjson"})
    assert answer.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_container_is_confined(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "mem_limit", "pids_limit"} <= service.keys()


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_images_are_named_by_a_version(name: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+", COMPOSE["services"][name]["image"])


def test_ports_are_published_to_this_machine_only_by_default() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not re.match(r"\$\{ADDRESS:-127\.0\.0\.1\}:|127\.0\.0\.1:", port)] == []


def test_nginx_takes_whole_batches_and_holds_them_in_memory() -> None:
    assert as_bytes(nginx_value("client_max_body_size")) >= DEFAULTS.max_batch_bytes + 64 * 1024
    assert {nginx_value(name) for name in ("pid", "client_body_temp_path", "proxy_temp_path")} == {
        "/tmp/nginx.pid",
        "/tmp/body",
        "/tmp/proxy",
    }
    (memory,) = COMPOSE["services"]["nginx"]["tmpfs"]
    assert as_bytes(re.search(r"size=(\w+)", memory)[1]) < as_bytes(COMPOSE["services"]["nginx"]["mem_limit"])


def test_nginx_waits_longer_and_closes_idle_connections_first(gunicorn) -> None:
    assert seconds(nginx_value("proxy_read_timeout")) > DEFAULTS.deadline_ms / 1000
    upstream = re.search(r"upstream topthree \{(.*?)\}", NGINX, re.DOTALL)[1]
    assert int(re.search(r"keepalive_timeout (\d+)s;", upstream)[1]) < gunicorn["keepalive"]


def test_there_is_time_to_answer_what_is_in_flight(gunicorn) -> None:
    graceful = gunicorn["graceful_timeout"]
    program, *arguments = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    command = cli.commands[arguments[0]].make_context("drain", arguments[1:])
    assert (program, arguments[0]) == ("topthree", "drain")
    assert 5 <= command.params["seconds"] <= command.params["at_most"]
    assert command.params["at_most"] + graceful < POD["terminationGracePeriodSeconds"]
    assert graceful < seconds(COMPOSE["services"]["app"]["stop_grace_period"])


def test_nginx_refuses_with_the_service_s_own_problems() -> None:
    documents = [json.loads(text) for text in re.findall(r"^\s+\d+ '(\{.*\})';", NGINX, re.MULTILINE)]
    ours = {(f"/problems/{problem.slug}", problem.title, problem.status) for problem in PROBLEMS}
    assert len(documents) == 4
    assert {(document["type"], document["title"], document["status"]) for document in documents} <= ours


def test_one_client_takes_at_most_half_of_nginx_s_memory() -> None:
    most = {zone: int(number) for zone, number in re.findall(r"limit_conn\s+(\w+)\s+(\d+);", NGINX)}
    assert "http2 on" not in NGINX.replace('with "http2 on"', "")
    assert '"~^[0-9]{8}" $client;' in NGINX
    answer, small = as_bytes(nginx_value("proxy_max_temp_file_size")), 10**7
    large = as_bytes(nginx_value("client_max_body_size"))
    taken = most["large_bodies"] * (large + answer) + (most["clients"] - most["large_bodies"]) * (small + answer)
    (memory,) = COMPOSE["services"]["nginx"]["tmpfs"]
    assert taken <= as_bytes(re.search(r"size=(\w+)", memory)[1]) / 2


def test_nginx_is_a_version_without_the_known_flaws() -> None:
    version = re.fullmatch(
        r"nginx:(\d+)\.(\d+)\.(\d+)-alpine(@sha256:[0-9a-f]{64})?", COMPOSE["services"]["nginx"]["image"]
    )
    assert tuple(map(int, version.groups()[:3])) >= (1, 30, 7)
