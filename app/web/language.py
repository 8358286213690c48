"""The language of a reader, and the rendering of a template in it."""

from __future__ import annotations

import flask
from markupsafe import Markup

from ..classifier import Classifier, Prediction
from ..photos.formats import ACCEPT, FORMATS, HEAD_BYTES, listed
from ..settings import Settings
from .assets import page_assets
from .words import FORMATS_LISTED, LANGUAGES, SCRIPT_PREFIXES, WORDS

__all__ = ["LANGUAGES", "WORDS", "reader_language", "remember_language", "render_page"]

COOKIE_SECONDS = 365 * 24 * 3600
# Their views call `remember_language`.
_PAGES_WITH_SWITCH = ("form.index", "openapi.docs", "pages.problem_page")


def reader_language() -> str:
    """Choose the language: the cookie of the switch, else what the browser prefers, else English."""
    chosen = flask.request.cookies.get("lang")
    if chosen in LANGUAGES:
        return chosen
    return flask.request.accept_languages.best_match(LANGUAGES, default="en")


def remember_language() -> flask.Response | None:
    """Keep the language that `?lang=` asks for in a cookie, and lead back to the page; None where it asks for none."""
    language = flask.request.args.get("lang")
    if language not in LANGUAGES:
        return None
    response = flask.make_response(flask.redirect("./" + flask.request.path.rpartition("/")[2], code=303))
    response.set_cookie("lang", language, max_age=COOKIE_SECONDS, samesite="Lax", httponly=True)
    return response


def script_words(language: str) -> dict[str, str]:
    """Return the words that the page's script writes, in one language."""
    index, formats = LANGUAGES.index(language), formats_listed(language)
    return {
        key: pair[index].replace("{formats}", formats)
        for key, pair in WORDS.items()
        if key.startswith(SCRIPT_PREFIXES)
    }


def formats_listed(language: str) -> str:
    """Name the supported formats of photos in one phrase."""
    separator, last_separator = FORMATS_LISTED[language]
    return listed(last_separator, separator)


def render_page(template: str, **values: object) -> flask.Response:
    """Render a template in the reader's language.

    The template gets `t(key, …)` for words, `word(key, …)` for the same in an element that the page's script finds
    again to change the language, `names(label)` for a class's two names, the reader's first, `root`, the relative
    path to the first page, so that any prefix in front of the service works, `asset(name)`, the relative path of a
    static file, and `switch`, the page that the language switch leads to, or None.
    """
    language = reader_language()
    root = "../" * (flask.request.path.count("/") - 1) or "./"

    def t(key: str, **parameters: object) -> str:
        return WORDS[key][LANGUAGES.index(language)].format(formats=formats_listed(language), **parameters)

    def word(key: str, **parameters: object) -> Markup:
        return Markup('<span data-word="{}">{}</span>').format(key, t(key, **parameters))

    def names(label: Prediction) -> tuple[str, str | None]:
        if language == "zh" and label.label_zh:
            return label.label_zh, label.label
        return label.label, label.label_zh

    def asset(name: str) -> str:
        return root + page_assets().path(name)

    settings: Settings = flask.current_app.config["TOPTHREE"]
    limit_bytes = settings.max_upload_bytes
    classifier: Classifier = flask.current_app.extensions["topthree"]
    page = flask.render_template(
        template,
        t=t,
        word=word,
        names=names,
        asset=asset,
        language=language,
        root=root,
        switch=_switch_address(root, has_page=settings.page == "on"),
        limit=f"{limit_bytes / 1024 / 1024:g}",
        limit_bytes=limit_bytes,
        accept=ACCEPT,
        formats=[(row.name, row.signature, row.mime_type) for row in FORMATS],
        head_bytes=HEAD_BYTES,
        has_page=settings.page == "on",
        needs_key=settings.api_keys_file is not None,
        script_words=script_words(language),
        modules=page_assets().names("js/", ".js"),
        **({"model": classifier.loaded_model} | values),
    )
    response = flask.make_response(page)
    response.headers["Content-Language"] = language
    response.headers["Vary"] = "Accept-Language, Cookie"
    return response


def _switch_address(root: str, *, has_page: bool) -> str | None:
    """Find the page to show in the other language: this one where it can be asked for again, else the first."""
    if flask.request.method == "GET" and flask.request.endpoint in _PAGES_WITH_SWITCH:
        return root + flask.request.path[1:]
    return root if has_page else None
