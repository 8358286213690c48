"""The engines agree, compute in the precision asked for, and serve without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from references import needs_test_weights

from app.classifier import Classifier
from app.errors import SettingsError, WeightsError
from app.model.artifact import Prepared, ensure_prepared
from app.model.engines import OpenVINOEngine, check_classes, choose_engine, choose_precision
from app.model.engines.torch_engine import TorchEngine
from app.model.weights import Weights, packaged_weights
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def prepared(packaged_settings: Settings) -> Prepared:
    return ensure_prepared(packaged_settings)


@pytest.fixture(scope="module")
def engine(prepared: Prepared) -> OpenVINOEngine:
    return OpenVINOEngine(prepared, precision="fp32", cpus=2, threads_alone=2)


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)


def reference(weights: Weights) -> TorchEngine:
    return TorchEngine(weights, classes=1000, precision="fp32", cpus=1)


@pytest.fixture(scope="module")
def torch_engine() -> TorchEngine:
    """Torch's engine with the packaged model in float32."""
    return reference(packaged_weights(""))


def test_both_engines_give_the_same_logits_and_features(
    engine: OpenVINOEngine, torch_engine: TorchEngine, batch: np.ndarray
) -> None:
    ours, theirs = engine.infer(batch), torch_engine.infer(batch)
    assert np.abs(ours.logits - theirs.logits).max() < TOLERANCE
    assert np.abs(ours.features - theirs.features).max() < TOLERANCE
    assert np.array_equal(engine.head.weight, torch_engine.head.weight)


@needs_test_weights
def test_both_engines_agree_on_resnet18(resnet18_settings: Settings, batch: np.ndarray) -> None:
    prepared = ensure_prepared(resnet18_settings)
    ours = OpenVINOEngine(prepared, precision="fp32", cpus=1, threads_alone=1).infer(batch)
    theirs = reference(prepared.weights).infer(batch)
    assert ours.features.shape == (3, 512, 7, 7)
    assert np.abs(ours.logits - theirs.logits).max() < TOLERANCE
    assert np.abs(ours.features - theirs.features).max() < TOLERANCE


@pytest.mark.parametrize(
    ("asked", "computed"), [("auto", "fp32"), ("fp32", "fp32"), ("tf32", "tf32"), ("bf16", "bf16"), ("fp16", "fp16")]
)
def test_torch_halves_its_precision_only_when_asked(
    torch_engine: TorchEngine, batch: np.ndarray, asked: str, computed: str
) -> None:
    engine = TorchEngine(packaged_weights(""), classes=1000, precision=asked, cpus=1)
    assert (engine.device, engine.precision) == ("cpu", computed)
    found, exact = engine.infer(batch[:1]), torch_engine.infer(batch[:1])
    assert found.logits.dtype == found.features.dtype == np.float32
    error = np.abs(found.logits - exact.logits).max()
    assert (error == 0) == (computed in ("fp32", "tf32"))
    assert error < 0.05 * np.abs(exact.logits).max()


def test_torch_computes_more_than_a_batch_in_parts(
    torch_engine: TorchEngine, batch: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch_engine.infer(batch)
    monkeypatch.setattr(torch_engine, "max_batch", 2)
    found = torch_engine.infer(batch)
    assert np.abs(found.logits - whole.logits).max() < TOLERANCE
    assert np.abs(found.embeddings - whole.features.mean(axis=(2, 3))).max() < TOLERANCE


@pytest.mark.parametrize("asked", ["tf32", "fp16"])
def test_precisions_of_torch_are_refused_for_openvino(asked: str) -> None:
    with pytest.raises(SettingsError, match=f"{asked} needs a GPU"):
        choose_precision(asked)


def test_a_photo_has_the_same_answer_alone_and_under_load(engine: OpenVINOEngine, batch: np.ndarray) -> None:
    alone, loaded = engine.infer(batch[:1], alone=True), engine.infer(batch[:1])
    assert np.abs(alone.logits - loaded.logits).max() < TOLERANCE


def test_results_are_not_overwritten_by_the_next_inference(engine: OpenVINOEngine, batch: np.ndarray) -> None:
    first = engine.infer(batch[:1])
    before = first.logits.copy()
    engine.infer(batch[1:2])
    assert np.array_equal(first.logits, before)


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_the_precision_said_is_what_openvino_computes_in(
    prepared: Prepared, asked: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = OpenVINOEngine(prepared, precision=asked, cpus=2, threads_alone=2)
    can_bf16 = "avx512" in Path("/proc/cpuinfo").read_text()
    assert engine.precision == ("bf16" if asked == "bf16" and can_bf16 else "fp32")
    assert ("cannot compute in bf16" in caplog.text) == (engine.precision != asked)
    element = {"fp32": "float32", "bf16": "bfloat16"}[engine.precision]
    assert {alone: len(graphs) for alone, graphs in engine.compiled.items()} == {False: 2, True: 1}
    for alone, graphs in engine.compiled.items():
        for graph in graphs:
            assert element in str(graph.get_property("INFERENCE_PRECISION_HINT"))
            assert graph.get_property("ENABLE_CPU_PINNING") is False
            assert graph.get_property("INFERENCE_NUM_THREADS") == (2 if alone else 1)


def test_logits_follow_from_features_and_class_weights(engine: OpenVINOEngine, batch: np.ndarray) -> None:
    inference = engine.infer(batch)
    logits = inference.features.mean(axis=(2, 3)) @ engine.head.weight.T
    bias = inference.logits - logits
    assert np.abs(bias - bias[0]).max() < TOLERANCE


def test_labels_of_another_length_are_refused(prepared: Prepared) -> None:
    check_classes(prepared, 1000)
    with pytest.raises(WeightsError, match="has 1000 classes, but the labels name 12"):
        check_classes(prepared, 12)


@pytest.mark.parametrize(
    ("asked", "gpu", "chosen"),
    [("auto", False, "openvino"), ("auto", True, "torch"), ("torch", False, "torch"), ("openvino", True, "openvino")],
)
def test_auto_takes_torch_on_a_gpu_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str, gpu: bool, chosen: str
) -> None:
    monkeypatch.setattr("app.processes.plan.GPU_DEVICE", tmp_path if gpu else tmp_path / "none")
    assert choose_engine(asked) == chosen


@pytest.mark.parametrize(
    ("asked", "flags", "chosen"),
    [
        ("auto", "flags : fpu avx512_bf16 amx_bf16 amx_tile", "bf16"),
        ("auto", "flags : fpu avx512_bf16", "fp32"),
        ("bf16", "flags : fpu", "bf16"),
        ("int8", "", "int8"),
    ],
)
def test_auto_takes_bf16_where_matrices_are_multiplied_in_it(
    tmp_path: Path, asked: str, flags: str, chosen: str
) -> None:
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text(flags)
    assert choose_precision(asked, cpu_info) == chosen
    assert choose_precision("auto", tmp_path / "missing") == "fp32"


ALL_AT_ONCE = """
import os, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from app.model.engines import OpenVINOEngine
from app.model.artifact import ensure_prepared
from app.settings import Settings
prepared = ensure_prepared(Settings.from_environment(os.environ))
engine = OpenVINOEngine(prepared, precision="fp32", cpus=2, threads_alone=2)
together = threading.Barrier(8)
def infer(number):
    together.wait()
    return engine.infer(np.full((1, 224, 224, 3), number, np.uint8), alone=number % 2 == 0).logits.shape
with ThreadPoolExecutor(8) as pool:
    print(set(pool.map(infer, range(8))))
"""


def test_threads_that_come_first_together_do_not_wait_for_ever(
    prepared: Prepared, packaged_settings: Settings
) -> None:
    command = [sys.executable, "-c", ALL_AT_ONCE]
    environment = os.environ | packaged_settings.as_environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "{(1, 1000)}"


END_WHILE_LOADING = """
import os, threading, time
from app.model.artifact import ensure_prepared
from app.model.engines import OpenVINOEngine, openvino
from app.settings import Settings

prepared = ensure_prepared(Settings.from_environment(os.environ))
compiling, compile_one = threading.Event(), openvino._compile

def compile_slowly(*graph, **threads):
    compiling.set()
    time.sleep(0.2)
    compiled = compile_one(*graph, **threads)
    print("compiled", flush=True)
    return compiled

openvino._compile = compile_slowly
load = lambda: OpenVINOEngine(prepared, precision="fp32", cpus=2, threads_alone=2)
threading.Thread(target=load, daemon=True).start()
compiling.wait()
"""


def test_a_process_that_ends_waits_for_what_is_compiled(prepared: Prepared, packaged_settings: Settings) -> None:
    """Else a service that is stopped while it loads its model is aborted, with a message of C++."""
    command = [sys.executable, "-c", END_WHILE_LOADING]
    environment = os.environ | packaged_settings.as_environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("compiled\n" * 3, "")


SERVE_ONE = """
import json, socket, sys
opened = []
connect = socket.socket.connect
socket.socket.connect = lambda self, address: opened.append(str(address)) or connect(self, address)
from app import create_app
client = create_app().test_client()
answer = client.post("/api/v1/predict", data=open(sys.argv[1], "rb").read(), content_type="image/jpeg")
unwanted = ("torch", "torchvision", "httpx", "nncf", "rich", "openvino_telemetry")
foreign = [name for name in unwanted if sys.modules.get(name)]
print(json.dumps([answer.status_code, answer.json["model"]["engine"], foreign, opened]))
"""


def test_serving_imports_no_torch_and_opens_no_connection(
    packaged_classifier: Classifier, packaged_settings: Settings, real_photos: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "cat.jpg").write_bytes(real_photos["cat"])
    command = [sys.executable, "-c", SERVE_ONE, str(tmp_path / "cat.jpg")]
    environment = os.environ | packaged_settings.as_environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == [200, "openvino", [], []]
