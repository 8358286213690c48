"""The formats of exported models, one row each; a format's functions are in `files.py`, which needs torch."""

from __future__ import annotations

from dataclasses import dataclass

from ..facts import KEY


@dataclass(frozen=True)
class Format:
    """One format: the model's file, the package that computes it, and the lines of the example that differ.

    `load` opens the model and reads the facts, and `compute` gives the logits of one crop.
    """

    file: str
    package: str
    load: str
    compute: str


_TORCH = "with torch.inference_mode():\n    logits = model(torch.from_numpy(pixels))[0][0].numpy()"

FORMATS = {
    "onnx": Format(
        "model.onnx",
        "onnxruntime",
        'session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])\n'
        f'facts = json.loads(session.get_modelmeta().custom_metadata_map["{KEY}"])',
        'logits = session.run(["logits"], {"pixels": pixels})[0][0]',
    ),
    "openvino": Format(
        "model.xml",
        "openvino",
        "graph = openvino.Core().read_model(file)\n"
        f'facts = json.loads(graph.get_rt_info("{KEY}").astype(str))\n'
        'model = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        'logits = model([pixels])["logits"][0]',
    ),
    "pt2": Format(
        "model.pt2",
        "torch",
        f'extra = {{"{KEY}": ""}}\nmodel = torch.export.load(file, extra_files=extra).module()\n'
        f'facts = json.loads(extra["{KEY}"])',
        _TORCH,
    ),
    "torchscript": Format(
        "model.pt",
        "torch",
        f'extra = {{"{KEY}": ""}}\nmodel = torch.jit.load(file, _extra_files=extra)\n'
        f'facts = json.loads(extra["{KEY}"])',
        _TORCH,
    ),
}
