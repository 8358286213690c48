"""The shapes of requests and answers, as JSON Schema for the interface's document, each with an example."""

from __future__ import annotations

from ..errors import PROBLEMS

Schema = dict[str, object]

# One grey pixel, small enough to be read in an example and real enough to be answered.
PIXEL_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
_DIGEST = "e8605ae6bcce9bdd52ee3ce9a2a2db4b0f4a7d8e4ac0a4cc5bd2c9c4fa39e0f2"
_MODEL = {
    "name": "resnet18",
    "weights_sha256": "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    "engine": "openvino",
    "precision": "fp32",
    "fallback": False,
}
_PREDICTION = {
    "rank": 1,
    "class_id": 282,
    "wnid": "n02123159",
    "label": "tiger cat",
    "label_zh": "条纹猫",
    "label_gloss": None,
    "confidence": 0.374709,
}
_IMAGE = {"width": 451, "height": 300, "format": "JPEG", "sha256": _DIGEST}
_LABEL = {"class_id": 282, "wnid": "n02123159", "label": "tiger cat", "label_zh": "条纹猫", "label_gloss": None}
_LABELS: Schema = {
    "type": "string",
    "description": "English name; left out for `labels=zh` where a Chinese one exists.",
}

_GLOSS: Schema = {
    "type": ["string", "null"],
    "description": "What the English name means, where it is a riddle alone; left out with it.",
}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 1}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_NAME_OR_NULL: Schema = {"type": ["string", "null"]}
_SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_CLASS_ID: Schema = {"type": "integer", "minimum": 0}


def reference(name: str) -> Schema:
    """Point to a schema of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def shape(properties: dict[str, Schema], optional: str = "", **more: object) -> Schema:
    """Describe an object whose members are all there but the `optional` ones; others may be added within v1."""
    required = [name for name in properties if name not in optional.split()]
    return {"type": "object", "required": required, "properties": properties} | more


def listing(items: Schema) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": items}


_GRID = listing(listing(_SHARE)) | {
    "description": "Rows from top to bottom; only for `heatmap=1`, the first ten, and models that have heat maps."
}
_EDGES = shape(dict.fromkeys(("left", "top", "right", "bottom"), _SHARE))
_ANSWER: dict[str, Schema] = {"predictions": listing(reference("Prediction")), "image": reference("Image")}
_RESULT: Schema = {"anyOf": [reference("Result"), reference("Problem")]}

SCHEMAS: dict[str, Schema] = {
    "Prediction": shape(
        {
            "rank": _COUNT,
            "class_id": _CLASS_ID,
            "wnid": _NAME_OR_NULL | {"description": "WordNet id; null for a model of your own."},
            "label": _LABELS,
            "label_zh": _NAME_OR_NULL | {"description": "Chinese name; left out for `labels=en`."},
            "label_gloss": _GLOSS,
            "confidence": _SHARE | {"description": "Softmax over all classes, rounded to 6 digits."},
            "heatmap": _GRID,
        },
        optional="label label_zh label_gloss heatmap",
        examples=[_PREDICTION],
    ),
    "Image": shape(
        {
            "width": _COUNT | {"description": "Of the upright photo, in pixels."},
            "height": _COUNT,
            "format": _TEXT,
            "sha256": _SHA256 | {"description": "Of the bytes that were sent."},
            "crop": _EDGES | {"description": "What heat maps cover, as fractions; only for `heatmap=1`."},
        },
        optional="crop",
        examples=[_IMAGE],
    ),
    "Model": shape(
        {
            "name": _TEXT,
            "weights_sha256": _SHA256,
            "engine": _TEXT,
            "precision": _TEXT,
            "fallback": {"type": "boolean", "description": "Whether the packaged model stands in for ResNet-18."},
        },
        examples=[_MODEL],
    ),
    "Answer": shape(
        _ANSWER | {"model": reference("Model")},
        examples=[{"predictions": [_PREDICTION], "image": _IMAGE, "model": _MODEL}],
    ),
    "Result": shape(
        {"name": _TEXT | {"description": "Of the archive's entry; left out for a form."}} | _ANSWER, optional="name"
    ),
    "Batch": shape(
        {"results": listing(_RESULT), "model": reference("Model")},
        examples=[{"results": [{"predictions": [_PREDICTION], "image": _IMAGE}], "model": _MODEL}],
    ),
    "Embedding": shape(
        {
            "embedding": listing({"type": "number"}),
            "dimension": _COUNT | {"description": "512 for resnet18, 1280 for efficientnet_lite0."},
            "normalized": {"type": "boolean", "description": "Whether its length (L2) was made 1."},
            "image": reference("Image"),
            "model": reference("Model"),
        },
        examples=[
            {"embedding": [0.6, 0.8], "dimension": 2, "normalized": True, "image": _IMAGE, "model": _MODEL},
        ],
    ),
    "Base64Photo": shape(
        {
            "image": {
                "type": "string",
                "contentEncoding": "base64",
                "minLength": 1,
                "description": "Base64 (RFC 4648, section 4) without line breaks, or a `data:` URL.",
            }
        },
        additionalProperties=False,
        examples=[{"image": PIXEL_PNG}],
    ),
    "ModelDescription": {
        "allOf": [
            reference("Model"),
            shape(
                {
                    "source": _TEXT,
                    "fallback_reason": _NAME_OR_NULL,
                    "classes": _COUNT,
                    "input": {"type": "object", "description": "Size and preprocessing of what the model is given."},
                    "published_accuracy": {"type": ["object", "null"]},
                    "licence": _NAME_OR_NULL,
                    "measured_accuracy": {"type": ["object", "null"]},
                    "heatmap": {
                        "type": ["object", "null"],
                        "description": "Rows and columns of heat maps; null for a model that has none.",
                    },
                }
            ),
        ],
        "examples": [
            _MODEL
            | {
                "source": "cache",
                "fallback_reason": None,
                "classes": 1000,
                "input": {"crop": 224},
                "published_accuracy": {"top1": 69.758, "top5": 89.078},
                "licence": "BSD-3-Clause",
                "measured_accuracy": None,
                "heatmap": {"rows": 7, "columns": 7},
            }
        ],
    },
    "Labels": shape(
        {
            "labels": listing(
                shape(
                    {
                        "class_id": _CLASS_ID,
                        "wnid": _NAME_OR_NULL,
                        "label": _TEXT,
                        "label_zh": _NAME_OR_NULL,
                        "label_gloss": _GLOSS,
                    }
                )
            )
        },
        examples=[{"labels": [_LABEL]}],
    ),
    "Alive": shape({"status": {"const": "alive"}}, examples=[{"status": "alive"}]),
    "Ready": shape(
        {"status": {"const": "ready"}, "workers": _COUNT, "model": reference("Model")},
        examples=[{"status": "ready", "workers": 1, "model": _MODEL}],
    ),
    "Problem": shape(
        {
            "type": {"enum": [f"/problems/{problem.slug}" for problem in PROBLEMS]},
            "title": _TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": _TEXT | {"description": "A sentence for a person; decide by `type`."},
            "instance": _TEXT
            | {"description": "A name of this request, at whose end is its id, as in the header `X-Request-ID`."},
        },
        optional="instance",  # a problem within a batch has none
        description="RFC 9457, problem details for HTTP.",
    ),
}
