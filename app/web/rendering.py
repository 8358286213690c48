"""Templates rendered as pages in the reader's language, and how that is chosen."""

from __future__ import annotations

from urllib.parse import urlencode

import flask
from markupsafe import Markup

from ..classifier import Answer, Classifier
from ..model import labels, own_format
from ..model.verdicts import GroupPrediction, Prediction
from ..photos import formats, heatmaps
from ..photos.decoding import Geometry
from ..settings import Settings
from ..teaching.contents import NONE_LABEL
from ..teaching.database import NONE
from .keys import MAX_TOKEN
from .language import CLASS_NAMES, DEFAULT, Language
from .service import service
from .teaching_schemas import MAX_EDIT

COOKIE_SECONDS = 365 * 24 * 3600
# What the script of the page of teaching must know as the server does.
_TEACHING = {"name": own_format.NAME.pattern, "none": NONE, "noneLabel": NONE_LABEL, "maxEdit": MAX_EDIT}
# How many characters a person may type.
_MAX_LENGTH = {"key": MAX_TOKEN, "project": own_format.MAX_NAME, "label": labels.MAX_NAME}
# Their views call `remember_language`.
_PAGES_WITH_SWITCH = ("form.index", "teach.teach", "openapi.docs", "pages.problem_page")


def render_page(template: str, **values: object) -> flask.Response:
    """Render a template in the reader's language.

    The template gets `t(key, …)` for words, `word(key, …)` for the same in an element that the page's script finds
    again to change the language, `names(prediction)` for a class's names and their languages, the reader's first,
    `root`, the relative path to the first page, so that any prefix in front of the service works, `asset(name)`, the
    relative path of a static file, `switch`, the page that the language switch leads to, or None, and `parameters`,
    what its address has besides the language.
    """
    ours, code = service(), reader_language()
    root = "../" * (flask.request.path.count("/") - 1) or "./"
    settings, assets, language = ours.settings, ours.assets, ours.languages[code]
    page = flask.render_template(
        template,
        language=language,
        languages=ours.languages,
        root=root,
        switch=_switch_address(root, has_page=settings.page == "on"),
        parameters=_other_parameters(),
        asset=lambda name: root + assets.path(name),
        has_page=settings.page == "on",
        has_teaching=settings.page == "on" and settings.teach == "on",
        has_index=ours.index is not None,
        teaching=_TEACHING,
        max_length=_MAX_LENGTH,
        needs_key=settings.api_keys_file is not None,
        limit_bytes=settings.max_upload_bytes,
        suffixes=" ".join(sorted(formats.SUFFIXES)),
        accept=formats.ACCEPT,
        formats=[(row.name, row.signature, row.mime_type) for row in formats.FORMATS],
        head_bytes=formats.HEAD_BYTES,
        heatmap=heatmaps.FACTS,
        opacity=round(100 * heatmaps.OPACITY),
        resized=_resized(ours.classifier),
        modules=[name for name in assets.names("js/", ".js") if not name.startswith("js/later/")],
        **_words(language, settings, has_index=ours.index is not None),
        models=ours.classifier.loaded_models,
        **({"model": ours.classifier.loaded_model} | values),
    )
    response = flask.make_response(page)
    response.headers["Content-Language"] = code
    response.headers["Vary"] = "Accept-Language, Cookie"
    return response


def write_verdict(answer: Answer) -> str:
    """Say in a sentence what an answer is worth, in the reader's language; the page's script says the same.

    Beside the name of its group a class needs no gloss.
    """
    language = service().languages[reader_language()]
    best = answer.predictions[0]
    name = _first_name(language, best)
    if best.label_gloss and name == best.label and not answer.group:
        name = f"{name} ({best.label_gloss})"
    if answer.certainty == "sure":
        return language.text("js.verdict", name=name)
    group = ""
    if answer.group:
        article = "js.an" if answer.group.label[0].lower() in "aeiou" else "js.a"
        group = language.text(article, name=_first_name(language, answer.group))
    return language.text(f"js.verdict.{answer.certainty or 'unmeasured'}", name=name, group=group)


def _first_name(language: Language, named: Prediction | GroupPrediction) -> str:
    found = [getattr(named, member) for member in language.names]
    return next(str(name) for name in found if name)


def reader_language() -> str:
    """Return the code of the reader's language: the switch's cookie, else what the browser prefers, else English."""
    codes = service().languages
    chosen = flask.request.cookies.get("lang")
    return chosen if chosen and chosen in codes else flask.request.accept_languages.best_match(codes, default=DEFAULT)


def remember_language() -> flask.Response | None:
    """Store the language of `?lang=` in a cookie and redirect back; return None if it names no language."""
    code = flask.request.args.get("lang")
    if code is None or code not in service().languages:
        return None
    others = _other_parameters()
    address = "./" + flask.request.path.rpartition("/")[2] + (f"?{others}" if others else "")
    response = flask.make_response(flask.redirect(address, code=303))
    response.set_cookie("lang", code, max_age=COOKIE_SECONDS, samesite="Lax", httponly=True)
    return response


def _other_parameters() -> str:
    """Return the parameters of the address besides the language, such as the project of the page of teaching."""
    return urlencode([pair for pair in flask.request.args.items(multi=True) if pair[0] != "lang"])


def _resized(classifier: Classifier) -> int:
    """Return the shorter side to which the loaded model, or most models, have a photo resized."""
    model = classifier.loaded_model
    return (model.weights.record.geometry if model else Geometry()).resize


def _words(language: Language, settings: Settings, *, has_index: bool) -> dict[str, object]:
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

    def script_words(*, is_teaching: bool = False) -> dict[str, object]:
        return language.for_script(is_teaching=is_teaching, has_index=has_index, **known)

    return {"t": t, "word": word, "names": names, "script_words": script_words}


def _switch_address(root: str, *, has_page: bool) -> str | None:
    """Return the page to show in another language: this one if a GET can ask for it again, else the first page."""
    if flask.request.method == "GET" and flask.request.endpoint in _PAGES_WITH_SWITCH:
        return root + flask.request.path[1:]
    return root if has_page else None
