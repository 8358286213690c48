"""Templates rendered as pages in the reader's language."""

from __future__ import annotations

import flask
from markupsafe import Markup

from ..classifier import Classifier, Prediction
from ..photos import formats
from ..photos.decoding import Geometry
from ..settings import Settings
from .assets import page_assets
from .language import CLASS_NAMES, Language, languages_of_app, reader_language

# Their views call `remember_language`.
_PAGES_WITH_SWITCH = ("form.index", "openapi.docs", "pages.problem_page")


def render_page(template: str, **values: object) -> flask.Response:
    """Render a template in the reader's language.

    The template gets `t(key, …)` for words, `word(key, …)` for the same in an element that the page's script finds
    again to change the language, `names(prediction)` for a class's names and their languages, the reader's first,
    `root`, the relative path to the first page, so that any prefix in front of the service works, `asset(name)`, the
    relative path of a static file, and `switch`, the page that the language switch leads to, or None.
    """
    languages, code = languages_of_app(), reader_language()
    root = "../" * (flask.request.path.count("/") - 1) or "./"
    settings: Settings = flask.current_app.config["TOPTHREE"]
    classifier: Classifier = flask.current_app.extensions["topthree"]
    page = flask.render_template(
        template,
        language=languages[code],
        languages=languages,
        root=root,
        switch=_switch_address(root, has_page=settings.page == "on"),
        asset=lambda name: root + page_assets().path(name),
        has_page=settings.page == "on",
        needs_key=settings.api_keys_file is not None,
        limit_bytes=settings.max_upload_bytes,
        suffixes=" ".join(sorted(formats.SUFFIXES)),
        accept=formats.ACCEPT,
        formats=[(row.name, row.signature, row.mime_type) for row in formats.FORMATS],
        head_bytes=formats.HEAD_BYTES,
        resized=_resized(classifier),
        modules=page_assets().names("js/", ".js"),
        **_words(languages[code], settings),
        **({"model": classifier.loaded_model} | values),
    )
    response = flask.make_response(page)
    response.headers["Content-Language"] = code
    response.headers["Vary"] = "Accept-Language, Cookie"
    return response


def _resized(classifier: Classifier) -> int:
    """Return what the loaded model has a photo's shorter side resized to, or what most models have."""
    model = classifier.loaded_model
    return (model.weights.record.geometry if model else Geometry()).resize


def _words(language: Language, settings: Settings) -> dict[str, object]:
    """Return what a template writes in the reader's language."""
    known = {
        "limit": f"{settings.max_upload_bytes / 1024 / 1024:g}",
        "kinds": language.any_of(formats.NAMES),
    }

    def t(key: str, **values: object) -> str:
        return language.text(key, **known, **values)

    def word(key: str, **values: object) -> Markup:
        return Markup('<span data-word="{}">{}</span>').format(key, t(key, **values))

    def names(prediction: Prediction) -> list[tuple[str, str]]:
        found = [(getattr(prediction, name), CLASS_NAMES[name]) for name in language.names]
        return [(name, tag) for name, tag in found if name]

    return {"t": t, "word": word, "names": names, "script_words": language.for_script(**known)}


def _switch_address(root: str, *, has_page: bool) -> str | None:
    """Return the page to show in another language: this one if a GET can ask for it again, else the first page."""
    if flask.request.method == "GET" and flask.request.endpoint in _PAGES_WITH_SWITCH:
        return root + flask.request.path[1:]
    return root if has_page else None
