"""The JSON documents of `/api/v1` and the probes, one struct each: it is what is encoded and what OpenAPI shows.

Members come in the order of the fields; those that are UNSET are left out. Within v1 fields are only ever added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ..errors import PROBLEMS
from ..photos.heatmaps import MAX_HEATMAPS

Schema = dict[str, object]

_REFERENCE = "#/components/schemas/{name}"

Count = Annotated[int, Meta(ge=1)]
ClassId = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
SHA256 = "^[0-9a-f]{64}$"
Sha256 = Annotated[str, Meta(pattern=SHA256)]
ProblemType = Annotated[str, Meta(extra_json_schema={"enum": [f"/problems/{problem.slug}" for problem in PROBLEMS]})]
ResultOrProblem = Annotated[
    Any, Meta(extra_json_schema={"anyOf": [{"$ref": _REFERENCE.format(name=name)} for name in ("Result", "Problem")]})
]


class Prediction(Struct, kw_only=True):
    """One class of a photo."""

    rank: Count
    class_id: ClassId
    wnid: Annotated[str | None, Meta(description="WordNet id; null for a model of your own.")]
    label: Annotated[
        str | UnsetType, Meta(description="English name; left out for `labels=zh` if a Chinese one exists.")
    ] = UNSET
    label_zh: Annotated[str | None | UnsetType, Meta(description="Chinese name; left out for `labels=en`.")] = UNSET
    label_gloss: Annotated[
        str | None | UnsetType,
        Meta(description="What the English name means, if it has several meanings; left out with it."),
    ] = UNSET
    confidence: Annotated[float, Meta(ge=0, le=1, description="Softmax over all classes, rounded to 6 digits.")]
    probability: Annotated[
        float | None,
        Meta(
            description="Calibrated probability, rounded to 6 digits; null if the model's temperature is not known.",
            extra_json_schema={"minimum": 0, "maximum": 1},
        ),
    ]
    heatmap: Annotated[
        list[list[Share]] | UnsetType,
        Meta(description=f"Rows from top to bottom; only for `heatmap=1`, and the first {MAX_HEATMAPS} answers."),
    ] = UNSET


class Edges(Struct):
    """A part of a photo, as fractions of its width and height."""

    left: Share
    top: Share
    right: Share
    bottom: Share


class Image(Struct):
    """What is known of the photo itself."""

    width: Annotated[int, Meta(ge=1, description="Of the upright photo, in pixels.")]
    height: Count
    format: str
    sha256: Annotated[str, Meta(pattern=SHA256, description="Of the bytes that were sent.")]
    crop: Annotated[
        Edges | UnsetType, Meta(description="What heat maps cover, as fractions; only for `heatmap=1`.")
    ] = UNSET


class Model(Struct):
    """The model that answered."""

    name: str
    display_name: Annotated[str, Meta(description="The name as people write it.")]
    weights_sha256: Sha256
    engine: str
    precision: str
    fallback: Annotated[bool, Meta(description="Whether the built-in model replaces ResNet-18.")]
    version: Annotated[Count | UnsetType, Meta(description="Of a model of your own.")] = UNSET
    backbone: Annotated[
        str | UnsetType,
        Meta(description="Of a model of your own; `weights_sha256` is its weights', or a fine-tuned model's own."),
    ] = UNSET
    head_sha256: Annotated[Sha256 | UnsetType, Meta(description="Of the head of a model of your own.")] = UNSET


class Group(Struct):
    """The smallest group of classes, a hypernym of WordNet, that is sure where no class is, such as cat."""

    wnid: str
    label: Annotated[str, Meta(description="English name.")]
    label_zh: Annotated[str, Meta(description="Chinese name.")]
    probability: Annotated[float, Meta(ge=0, le=1, description="Sum over the classes of the group.")]


Certainty = Annotated[
    Literal["sure", "group", "unsure", "unlike"] | None,
    Meta(
        description="What the answer is worth. sure: the first class is probable enough; group: only a group of"
        " classes is; unsure: neither is; unlike: the photo is unlike those that the model has learned from. Null if"
        " it was not measured for this model; `/api/v1/model` tells the thresholds."
    ),
]
SureGroup = Annotated[Group | UnsetType, Meta(description="Only if `certainty` is group.")]


class ModelAnswer(Struct):
    """The answer of one of several models to the same photo."""

    model: Model
    predictions: list[Prediction]
    certainty: Certainty
    group: SureGroup = UNSET


class Photo(Struct):
    """The answer to one photo, without the model, which is the same for a whole request."""

    predictions: list[Prediction]
    image: Image
    certainty: Certainty
    group: SureGroup = UNSET
    models: Annotated[
        list[ModelAnswer] | UnsetType,
        Meta(description="The answers of all models, in the order of `model`; only if it names several."),
    ] = UNSET


class Answer(Photo, kw_only=True):
    """The answer to a request for one photo."""

    model: Model


class Result(Photo, kw_only=True):
    """The answer to one photo of a batch; its name comes first."""

    name: Annotated[str | UnsetType, Meta(description="Of the archive's entry; left out for a form.")] = UNSET


class Batch(Struct):
    """The answer to a batch: a result or a problem for each photo."""

    results: list[ResultOrProblem]
    model: Model


class PhotoEmbedding(Struct):
    """The embedding of one photo, without the model."""

    embedding: list[float]
    dimension: Annotated[int, Meta(ge=1, description="512 for resnet18, 1280 for efficientnet_lite0.")]
    normalized: Annotated[bool, Meta(description="Whether its length (L2) was made 1.")]
    image: Image


class Embedding(PhotoEmbedding):
    """The answer to a request for an embedding."""

    model: Model


class FoundPhoto(Struct):
    """A photo of the index that looks like the one that was sent."""

    name: Annotated[str, Meta(description="Of its file, without folders.")]
    similarity: Annotated[float, Meta(ge=-1, le=1, description="Cosine of the embeddings, rounded to 6 digits.")]
    row: Annotated[int, Meta(ge=0, description="Its place in the index.")]
    width: Count
    height: Count
    thumbnail: Annotated[
        str, Meta(description="The address of its thumbnail, relative to that of the search; it needs the same key.")
    ]


class SearchAnswer(Struct):
    """The answer to a search, the most similar photo first."""

    similar: list[FoundPhoto]
    photos: Annotated[int, Meta(ge=0, description="How many photos the index has.")]
    image: Image
    model: Model


class Base64Photo(Struct, forbid_unknown_fields=True, gc=False):
    """A photo in a JSON body; decoding accepts base64 (RFC 4648, section 4) only in its strict form."""

    image: Annotated[
        bytes,
        Meta(
            description="Base64 (RFC 4648, section 4) without line breaks, or a `data:` URL.",
            extra_json_schema={"minLength": 1},
        ),
    ]


class ModelInput(Struct):
    """The size and preprocessing of a model's input."""

    resize: Annotated[int, Meta(ge=1, description="A photo's shorter side after resizing, in pixels.")]
    crop: Annotated[int, Meta(ge=1, description="The side of the central square that the model is given.")]
    interpolation: Literal["bilinear", "bicubic"]


class PublishedAccuracy(Struct):
    """The published accuracy on ImageNet's validation photos, in percent."""

    top1: float | None
    top5: float | None


class HeatmapSize(Struct):
    """How many numbers a heat map has."""

    rows: Count
    columns: Count


class Calibration(Struct):
    """The measured numbers behind `probability` and `certainty`; null was not measured."""

    temperature: Annotated[float | None, Meta(description="Logits are divided by it before the softmax.")]
    sure_at: Annotated[float | None, Meta(description="The least probability of a sure class or group.")]
    unlike_below: Annotated[
        float | None, Meta(description="A photo whose rejection score is lower is unlike the known ones.")
    ]
    source: Annotated[str, Meta(description="Where the numbers come from.")]
    photos: Annotated[int | None, Meta(description="How many photos they were measured on, if that is known.")]
    intervals: Annotated[dict[str, list[float]], Meta(description="95% confidence intervals by the number's name.")]


class ModelDescription(Model, kw_only=True):
    """What is known of the model that answers."""

    source: str
    fallback_reason: str | None
    classes: Count
    input: ModelInput
    published_accuracy: PublishedAccuracy | None
    licence: str | None
    measured_accuracy: Annotated[
        dict[str, Any] | None,
        Meta(description="Of a model of your own its `ModelAccuracy`; of an int8 model how it compares with fp32."),
    ]
    heatmap: Annotated[HeatmapSize | None, Meta(description="The size of heat maps; null for a model that has none.")]
    calibration: Calibration | None


class ModelAccuracy(Struct):
    """The share of photos whose class came first, in percent, with its 95% interval if that is known."""

    top1: float
    low: float | None
    high: float | None


class ListedModel(Struct):
    """One of the models that answer."""

    name: str
    version: Annotated[Count | None, Meta(description="Of a model of your own; null for a published one.")]
    default: Annotated[bool, Meta(description="Whether it answers if the request names no model.")]
    classes: Count
    backbone: Annotated[str, Meta(description="Whose features it uses; a published model names itself.")]
    accuracy: Annotated[
        ModelAccuracy | None,
        Meta(description="On photos that were left out of training; of a published model, on ImageNet's."),
    ]
    created: Annotated[str | None, Meta(description="UTC, ISO 8601; null for a published model.")]


class ModelList(Struct):
    """All models that answer, the default one first."""

    models: list[ListedModel]


class Label(Struct):
    """One class of the model."""

    class_id: ClassId
    wnid: str | None
    label: str
    label_zh: str | None
    label_gloss: str | None


class Labels(Struct):
    """All classes of the model."""

    labels: list[Label]


class Alive(Struct):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Ready(Struct):
    """Every worker has a model that answers."""

    status: Literal["ready"]
    workers: Count
    model: Model


class Problem(Struct, kw_only=True):
    """RFC 9457, problem details for HTTP."""

    type: ProblemType
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: Annotated[str, Meta(description="A sentence for a person; decide by `type`.")]
    in_flight: Annotated[int | UnsetType, Meta(description="Requests in flight, while the service is draining.")] = (
        UNSET
    )
    instance: Annotated[
        str | UnsetType,
        Meta(description="A name of this request that ends with its id, as in the header `X-Request-ID`."),
    ] = UNSET


# One grey pixel, small enough to be read in an example and real enough to be answered.
PIXEL_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
_LABEL = Label(282, "n02123159", "tiger cat", "条纹猫", None)
_PREDICTION = Prediction(rank=1, **msgspec.structs.asdict(_LABEL), confidence=0.374709, probability=0.351602)
_IMAGE = Image(451, 300, "JPEG", "e8605ae6bcce9bdd52ee3ce9a2a2db4b0f4a7d8e4ac0a4cc5bd2c9c4fa39e0f2")
_GROUP = Group("n02121808", "cat", "猫", 0.932041)
_IDENTITY = (
    *("resnet18", "ResNet-18", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"),
    *("openvino", "fp32", False),
)
_MODEL = Model(*_IDENTITY)
_EXAMPLES: dict[type[Struct], Struct | dict[str, str] | None] = {
    Prediction: _PREDICTION,
    Image: _IMAGE,
    Model: _MODEL,
    ModelAnswer: ModelAnswer(_MODEL, [_PREDICTION], "group", _GROUP),
    Answer: Answer([_PREDICTION], _IMAGE, "group", _GROUP, model=_MODEL),
    Result: None,
    Batch: Batch([Photo([_PREDICTION], _IMAGE, "group", _GROUP)], _MODEL),
    Embedding: Embedding([0.6, 0.8], 2, True, _IMAGE, _MODEL),
    SearchAnswer: SearchAnswer(
        [FoundPhoto("beach.jpg", 0.912345, 7, 4032, 3024, "search/thumbnails/7?version=1")],
        *(1000, _IMAGE, _MODEL),
    ),
    Base64Photo: {"image": PIXEL_PNG},
    ModelDescription: ModelDescription(
        *_IDENTITY,
        source="cache",
        fallback_reason=None,
        classes=1000,
        input=ModelInput(256, 224, "bilinear"),
        published_accuracy=PublishedAccuracy(69.758, 89.078),
        licence="BSD-3-Clause",
        measured_accuracy=None,
        heatmap=HeatmapSize(7, 7),
        calibration=Calibration(1.1, 0.85, None, "The temperature was published.", None, {}),
    ),
    ModelList: ModelList(
        [
            ListedModel("resnet18", None, True, 1000, "resnet18", ModelAccuracy(69.758, None, None), None),
            ListedModel("pets", 3, False, 5, "resnet18", ModelAccuracy(93.2, 90.8, 95.1), "2026-01-02T03:04:05Z"),
        ]
    ),
    Labels: Labels([_LABEL]),
    Alive: Alive(),
    Ready: Ready("ready", 1, _MODEL),
    Problem: None,
}


def reference(document: type[Struct]) -> Schema:
    """Return a JSON Schema that refers to a document's own."""
    return {"$ref": _REFERENCE.format(name=document.__name__)}


def make_schemas(examples: Mapping[type[Struct], Struct | dict[str, str] | None]) -> dict[str, Schema]:
    """Return the JSON Schema of each document by its name, and of those inside, with an example if there is one."""
    schemas = msgspec.json.schema_components(examples, ref_template=_REFERENCE)[1]
    for document, example in examples.items():
        if example is not None:
            schemas[document.__name__]["examples"] = [msgspec.to_builtins(example)]
    return schemas


SCHEMAS = make_schemas(_EXAMPLES)
