"""All errors of the service and its commands, one class each; a `Problem` is the error of an HTTP response.

Problems stand in the order of their statuses, as docs/api.md lists them.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TopthreeError(Exception):
    """The base of all our errors; its text is a sentence for a person, `exit_status` that of a command.

    The text may name files and hosts of this machine. `public` is the text for clients, if such an error keeps the
    service from answering.
    """

    exit_status: ClassVar[int] = 1
    public: ClassVar[str] = "The model could not be loaded. The service's log has the reason."


class SettingsError(TopthreeError):
    """A setting has a value that cannot be used; the message names its variable."""

    exit_status = 2


class KeysError(TopthreeError):
    """A file of API keys is missing, malformed or cannot be written; the message never quotes a line."""


class PlanError(TopthreeError):
    """The machine, or the share that the service may use, is too small."""


class LabelsError(TopthreeError):
    """A labels file is missing, malformed or of the wrong length."""

    public = "The names of the model's classes cannot be used. The service's log has the reason."


class WeightsError(TopthreeError):
    """A weights file is missing, damaged, of another shape, or cannot be downloaded."""

    public = "The model's weights cannot be downloaded or used. The service's log has the reason."


class BundleError(TopthreeError):
    """A bundle is missing, damaged, not for this installation, or cannot be unpacked."""

    public = "The bundle that holds the model cannot be used. The service's log has the reason."


class OwnModelError(TopthreeError):
    """A model of one's own is missing, damaged, of another backbone or of a newer format, or cannot be written."""

    public = "The model that should answer cannot be used. The service's log has the reason."


class BatchError(TopthreeError):
    """The sources or the output folder of a batch cannot be used, or not with these settings."""


class BatchStopped(TopthreeError):
    """A batch ended before all its photos were classified; the same command goes on."""

    exit_status = 3


class IndexProblem(TopthreeError):
    """An index of photos is missing, damaged, of a newer format or of another model, or cannot be written."""

    public = "The index of photos cannot be used. The service's log has the reason."


class Problem(TopthreeError):
    """A failed request with an HTTP status; `slug` is stable and makes the problem's `type`.

    The first line of a subclass's docstring is public: it is the meaning in the OpenAPI document and in docs/api.md.
    """

    status: ClassVar[int]
    slug: ClassVar[str]
    title: ClassVar[str]
    retry_after_seconds: int | None = None
    challenge: str | None = None
    accept_encoding: str | None = None

    def __init__(self, detail: str, retry_after_seconds: int | None = None, *, challenge: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_seconds = self.retry_after_seconds if retry_after_seconds is None else retry_after_seconds
        self.challenge = challenge or self.challenge

    def as_dict(self) -> dict[str, Any]:
        """Build the members of an `application/problem+json` document (RFC 9457, section 3)."""
        return {
            "type": f"/problems/{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }


class NoPhoto(Problem):
    """The request has no part named `file`, or its photo is empty (0 bytes)."""

    status, slug, title = 400, "no-photo", "No photo in the request"


class TooManyPhotos(Problem):
    """The request for one photo has several parts named `file`; send them to `/api/v1/predict/batch`."""

    status, slug, title = 400, "too-many-photos", "More than one photo"


class BadParameter(Problem):
    """A query parameter is unknown, given twice, or out of range."""

    status, slug, title = 400, "bad-parameter", "Parameter not understood"


class BadRequest(Problem):
    """The request is malformed: a form that ends early, for example, or JSON without base64."""

    status, slug, title = 400, "bad-request", "Request not understood"


class Unauthorized(Problem):
    """The API key is missing or unknown; the header `WWW-Authenticate` says which."""

    status, slug, title = 401, "unauthorized", "A key is needed"
    challenge = "Bearer"


class Forbidden(Problem):
    """The API key is disabled."""

    status, slug, title = 403, "forbidden", "The key is disabled"
    challenge = "Bearer"


class NoRight(Problem):
    """The API key does not have the right to teach."""

    status, slug, title = 403, "no-right", "The key has no right to this"
    challenge = "Bearer"


class ForeignOrigin(Problem):
    """The request comes from a page of another site, or is for a host name that is not listed in `TOPTHREE_HOSTS`."""

    status, slug, title = 403, "foreign-origin", "Not from this site"


class NotFound(Problem):
    """Nothing is served at this path."""

    status, slug, title = 404, "not-found", "Not found"


class UnknownModel(Problem):
    """No model of this name answers here; `GET /api/v1/models` lists those that do."""

    status, slug, title = 404, "unknown-model", "No model of this name"


class UnknownProject(Problem):
    """There is no project of this name; it may have been deleted."""

    status, slug, title = 404, "unknown-project", "No project of this name"


class TeachingOff(Problem):
    """Teaching is turned off here; `TOPTHREE_TEACH=on` or `topthree teach` turns it on."""

    status, slug, title = 404, "teaching-off", "Teaching is off"


class NoIndex(Problem):
    """There is no index of photos to search; `TOPTHREE_INDEX` names one."""

    status, slug, title = 404, "no-index", "No index of photos"


class MethodNotAllowed(Problem):
    """The path does not support this method; the header `Allow` lists the methods that it supports."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"


class RequestTimeout(Problem):
    """The request arrived too slowly: see `TOPTHREE_STALL_SECONDS` and `TOPTHREE_MIN_BYTES_PER_SECOND`."""

    status, slug, title = 408, "request-timeout", "Request too slow"


class NotTaught(Problem):
    """The project needs photos of at least two classes before it can answer."""

    status, slug, title = 409, "not-taught", "Too few classes with photos"


class NameTaken(Problem):
    """Another project or another class has this name already."""

    status, slug, title = 409, "name-taken", "The name is taken"


class TooLarge(Problem):
    """The photo is larger than `TOPTHREE_MAX_UPLOAD_BYTES`, or the batch is over its limits."""

    status, slug, title = 413, "too-large", "Too large"


class AddressTooLong(Problem):
    """The first line of the request is longer than 4,094 bytes."""

    status, slug, title = 414, "address-too-long", "Address too long"


class UnsupportedContentType(Problem):
    """The Content-Type cannot carry a photo, or the body has a Content-Encoding."""

    status, slug, title = 415, "unsupported-content-type", "Content type not supported"

    def __init__(self, detail: str, *, accept_encoding: str | None = None) -> None:
        super().__init__(detail)
        self.accept_encoding = accept_encoding


class UnsupportedImage(Problem):
    """The file is not a photo of a supported kind: text, PDF, ZIP, a raw file or a 12-bit JPEG, for example."""

    status, slug, title = 415, "unsupported-image", "Not a photo of a known kind"


class BrokenImage(Problem):
    """The file has a supported format, but is damaged or incomplete."""

    status, slug, title = 422, "broken-image", "Photo is damaged"


class UnreadableArchive(Problem):
    """The ZIP archive or one of its entries is damaged, encrypted, or compressed in an unsupported way."""

    status, slug, title = 422, "unreadable-archive", "Archive cannot be read"


class TooManyPixels(Problem):
    """The photo's width times height, as its header gives them, is over `TOPTHREE_MAX_PIXELS`."""

    status, slug, title = 422, "too-many-pixels", "Too many pixels"


class TooCostly(Problem):
    """Decoding would take, or took, more processor time or memory than one photo may use."""

    status, slug, title = 422, "too-costly", "Too costly to decode"


class NoHeatMap(Problem):
    """The model that answers has no heat maps, since its classes cannot be traced back to places of the photo."""

    status, slug, title = 422, "no-heat-map", "No heat map"


class NoEmbedding(Problem):
    """The model that answers gives no embedding: it was exported with its logits alone."""

    status, slug, title = 422, "no-embedding", "No embedding"


class BadProjectFile(Problem):
    """The file is not a project, is damaged, or was written by a newer version."""

    status, slug, title = 422, "bad-project-file", "Not a usable project file"


class RateLimited(Problem):
    """The key or the address has used up its rate limit; `Retry-After` says when it is renewed."""

    status, slug, title = 429, "rate-limited", "Too many requests"
    retry_after_seconds = 1


class HeaderTooLarge(Problem):
    """The request has more than 64 header fields, or one that is too long."""

    status, slug, title = 431, "header-too-large", "Header too large"


class ClientClosedRequest(Problem):
    """The client disconnected before its request was processed; mostly seen in logs and metrics."""

    status, slug, title = 499, "client-closed-request", "Client closed request"


class InternalError(Problem):
    """The service failed; the cause is in its log."""

    status, slug, title = 500, "internal-error", "Internal error"


class Overloaded(Problem):
    """Too many requests, bytes or large photos wait, or the model is being loaded; `Retry-After` says how long."""

    status, slug, title = 503, "overloaded", "Overloaded"
    retry_after_seconds = 1


class ModelUnavailable(Problem):
    """No model is ready to answer, or none can be loaded; `Retry-After` says when to try again.

    `detail` is for the response. The text of the error is `reason`, for the log and for commands, and may name files
    and hosts; it is `detail` if no reason is given.
    """

    status, slug, title = 503, "model-unavailable", "No model is ready"
    retry_after_seconds = 5

    def __init__(self, detail: str, reason: str = "") -> None:
        super().__init__(detail)
        self.reason = reason or detail

    def __str__(self) -> str:
        return self.reason


class Draining(Problem):
    """Only from `/readyz`: the service still answers, but is about to stop; `in_flight` counts its requests."""

    status, slug, title = 503, "draining", "Draining"
    retry_after_seconds = 5

    def __init__(self, detail: str, in_flight: int | None = None) -> None:
        super().__init__(detail)
        self.in_flight = in_flight

    def as_dict(self) -> dict[str, Any]:
        """Build the document, with a member `in_flight` if it is known."""
        return super().as_dict() | ({} if self.in_flight is None else {"in_flight": self.in_flight})


class ProjectsUnavailable(Problem):
    """The projects cannot be read or written now; `Retry-After` says when to try again."""

    status, slug, title = 503, "projects-unavailable", "Projects are not available"
    retry_after_seconds = 5


class IndexUnavailable(Problem):
    """The index of photos cannot be read now, or is of another model; `Retry-After` says when to try again."""

    status, slug, title = 503, "index-unavailable", "The index cannot be searched"
    retry_after_seconds = 30


class DeadlineExceeded(Problem):
    """Waiting or decoding took longer than `TOPTHREE_DEADLINE_MS` or `X-Request-Timeout-Ms` allows."""

    status, slug, title = 504, "deadline-exceeded", "Deadline exceeded"


class ProjectFull(Problem):
    """A limit of photos, classes or bytes of the projects is reached, or the disk is full."""

    status, slug, title = 507, "project-full", "No room in the project"


PROBLEMS: tuple[type[Problem], ...] = tuple(Problem.__subclasses__())
