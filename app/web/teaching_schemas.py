"""The JSON documents of `/api/v1/projects`, one struct each, as those of `schemas.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from .schemas import Count, Schema, Sha256, Share, make_schemas

Natural = Annotated[int, Meta(ge=0)]
Revision = Annotated[int, Meta(ge=1, description="It rises with each change.")]
Published = Annotated[int | None, Meta(description="The version that was published last; null if none is left.")]
Label = Annotated[str, Meta(description="Its name; `~none` is the class of photos that show none of the others.")]
Near = Annotated[
    str | None,
    Meta(description="The first of its near-duplicates, which count once; null for the first itself."),
]
# More would not fit into a small request.
MAX_EDIT = 500


class ListedProject(Struct):
    """A project in the list of all."""

    name: str
    classes: Natural
    photos: Natural
    published: Published
    changed: Annotated[str, Meta(description="UTC, ISO 8601.")]
    problem: Annotated[
        Any,
        Meta(
            description="Why the project cannot be read; the other members but its name say nothing then.",
            extra_json_schema={"$ref": "#/components/schemas/Problem"},
        ),
    ] = UNSET


class ProjectList(Struct):
    """All projects, and the bytes that they take and may take together."""

    projects: list[ListedProject]
    bytes: Natural
    max_bytes: Count


class ProjectClass(Struct):
    """A class of a project."""

    label: Label
    label_zh: Annotated[str, Meta(description="Its Chinese name; may be empty.")]
    photos: Natural


class Project(Struct):
    """A project with its classes, in the order in which they were made, `~none` last."""

    name: str
    keep_photos: Annotated[bool, Meta(description="Whether the photos themselves are kept.")]
    revision: Revision
    classes: list[ProjectClass]
    photos: Natural
    max_photos: Count
    max_classes: Count
    bytes: Natural
    max_bytes: Count
    backbone: str
    stale: Annotated[int, Meta(ge=0, description="Photos that are left out: their embedding is of another backbone.")]
    published: Published
    created: Annotated[str, Meta(description="UTC, ISO 8601.")]
    folder: Annotated[
        str | UnsetType,
        Meta(description="Where projects are kept; only if the service listens on loopback."),
    ] = UNSET


class ProjectOptions(Struct, forbid_unknown_fields=True):
    """What may be chosen for a project."""

    keep_photos: Annotated[bool, Meta(description="Whether the photos themselves are kept.")] = False


class ClassNames(Struct, forbid_unknown_fields=True):
    """The new names of a class; what is left out stays as it is."""

    label: Annotated[str | None, Meta(description="Its name.")] = None
    label_zh: Annotated[str | None, Meta(description="Its Chinese name.")] = None


class AddedPhoto(Struct):
    """What became of one file that was sent: a photo, or a problem."""

    file: Annotated[str | None, Meta(description="The file's name, if it was sent.")]
    sha256: Sha256 | UnsetType = UNSET
    state: Literal["added", "present", "moved"] | UnsetType = UNSET
    near: Near | UnsetType = UNSET
    moved_from: Annotated[str | UnsetType, Meta(description="The class of a moved photo before.")] = field(
        default=UNSET, name="from"
    )
    problem: Annotated[
        Any, Meta(description="Why it is not used.", extra_json_schema={"$ref": "#/components/schemas/Problem"})
    ] = UNSET


class AddedPhotos(Struct):
    """What became of the files that were sent, in their order."""

    revision: Revision
    photos: list[AddedPhoto]


class ProjectPhoto(Struct):
    """A photo of a project."""

    sha256: Sha256
    label: Label
    file: str | None
    near: Near
    probability: Annotated[
        float | None,
        Meta(
            description="Of its own class, by a head without it; null if that is not known yet, or says nothing.",
            extra_json_schema={"minimum": 0, "maximum": 1},
        ),
    ]


class ProjectPhotos(Struct):
    """Some photos of a project, the newest first; `total` counts all that were asked for."""

    revision: Revision
    total: Natural
    photos: list[ProjectPhoto]


Digests = Annotated[list[Sha256], Meta(max_length=MAX_EDIT)]


class MovePhotos(Struct, forbid_unknown_fields=True):
    """Photos, and the class that they get."""

    photos: Digests
    label: Label


class DeletePhotos(Struct, forbid_unknown_fields=True):
    """Photos to delete."""

    photos: Digests


class MovedPhotos(Struct):
    """How many photos had another class before."""

    revision: Revision
    moved: Natural


class DeletedPhotos(Struct):
    """How many photos were deleted."""

    revision: Revision
    deleted: Natural


class LeftOutAccuracy(Struct):
    """The share of photos that were right when left out, with its 95% interval; near-duplicates count once."""

    value: Share
    low: Share
    high: Share
    of: Annotated[int, Meta(ge=1, description="How many photos it is a share of.")]


class DoubtedPhoto(Struct):
    """A photo that speaks against its label: its probability, and the class that is likelier if that is another."""

    sha256: Sha256
    label: Label
    probability: Share
    answer: str
    answer_zh: str


class ReportedClass(Struct):
    """What the head is worth for a class, and the two photos of it that it doubts most."""

    label: Label
    label_zh: str
    photos: Natural
    accuracy: Annotated[
        LeftOutAccuracy | None, Meta(description="Null with fewer than two photos that are not near-duplicates.")
    ]
    doubted: list[DoubtedPhoto]


class ProjectReport(Struct):
    """What the head of a revision is worth, by predictions for photos that were left out of it."""

    revision: Revision
    ready: Annotated[bool, Meta(description="Whether at least two classes have photos, so that it can answer.")]
    accuracy: LeftOutAccuracy | None
    photos: Natural
    groups: Annotated[int, Meta(ge=0, description="Photos, near-duplicates counted once.")]
    stale: Natural
    seconds: Annotated[float, Meta(ge=0, description="How long it took to solve the head.")]
    classes: list[ReportedClass]


class PublishedVersion(Struct):
    """The version of a model that answers to `?model=NAME` from about a second later on."""

    name: str
    version: Count


_SHA256 = "e8605ae6bcce9bdd52ee3ce9a2a2db4b0f4a7d8e4ac0a4cc5bd2c9c4fa39e0f2"
_ACCURACY = LeftOutAccuracy(0.95, 0.7639, 0.9911, 20)
_TIME = "2026-01-02T03:04:05+00:00"
SCHEMAS: dict[str, Schema] = make_schemas(
    {
        ProjectList: ProjectList([ListedProject("dishes", 3, 24, 1, _TIME)], 98304, 2**30),
        Project: Project(
            "dishes",
            False,
            27,
            [ProjectClass("mug", "马克杯", 12), ProjectClass("~none", "", 0)],
            *(12, 20_000, 1_000, 98304, 2**30, "resnet18", 0, 1, _TIME),
        ),
        ProjectOptions: ProjectOptions(True),
        ClassNames: ClassNames("mug", "马克杯"),
        AddedPhotos: AddedPhotos(28, [AddedPhoto("mug.jpg", _SHA256, "added", None)]),
        ProjectPhotos: ProjectPhotos(28, 1, [ProjectPhoto(_SHA256, "mug", "mug.jpg", None, 0.913525)]),
        MovePhotos: MovePhotos([_SHA256], "mug"),
        DeletePhotos: DeletePhotos([_SHA256]),
        MovedPhotos: MovedPhotos(29, 1),
        DeletedPhotos: DeletedPhotos(30, 1),
        ProjectReport: ProjectReport(
            *(28, True, _ACCURACY, 24, 20, 0, 0.0213),
            [ReportedClass("mug", "马克杯", 12, _ACCURACY, [DoubtedPhoto(_SHA256, "mug", 0.31, "glass", "玻璃杯")])],
        ),
        PublishedVersion: PublishedVersion("dishes", 2),
    }
)
