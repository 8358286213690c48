"""The page's words in English and Chinese, and the rendering of a template in the reader's language."""

from __future__ import annotations

import flask

from .classifier import Classifier, Prediction

LANGUAGES = ("en", "zh")

WORDS: dict[str, tuple[str, str]] = {
    "title": ("What is in the photo?", "照片里是什么？"),
    "lead": (
        "Give it a photo and read the three most likely answers, in English and Chinese.",
        "选一张照片，看看最可能的三个答案，中英文对照。",
    ),
    "choose": ("Choose a photo", "选择照片"),
    "kinds": (
        "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC, up to {limit} MiB.",
        "支持 JPEG、PNG、WebP、GIF、BMP、TIFF、AVIF、HEIC，最大 {limit} MiB。",
    ),
    "submit": ("Classify", "识别"),
    "another": ("Try another photo", "换一张照片"),
    "knows": (
        "It knows 1000 things: animals, plants, food, vehicles, tools, buildings. It does not recognise people.",
        "它认识 1000 种事物：动物、植物、食物、交通工具、器具、建筑等；它不识别人物。",
    ),
    "private": (
        "Your photo is looked at once, in memory, and not stored.",
        "照片只在内存中识别一次，不会被保存。",
    ),
    "answers": ("Most likely", "最可能的答案"),
    "your_photo": ("Your photo", "你的照片"),
    "confidence": ("Confidence {percent}", "置信度 {percent}"),
    "photo_facts": ("{width} × {height} pixels, {format}", "{width} × {height} 像素，{format}"),
    "answered_by": ("Answered by {name}, {precision}.", "由 {name}（{precision}）识别。"),
    "fallback": (
        "The usual model, ResNet-18, could not be downloaded, so a packaged one answers: EfficientNet-Lite0.",
        "默认模型 ResNet-18 未能下载，现由自带模型 EfficientNet-Lite0 识别。",
    ),
    "loading": (
        "The model is still loading; the first answer may take a few seconds.",
        "模型正在加载，第一次识别可能需要几秒钟。",
    ),
    "scripts": ("For scripts", "供脚本调用"),
    "language": ("Language", "语言"),
    "problem.no-photo": ("There was no photo in that.", "没有收到照片。"),
    "advice.no-photo": ("Choose a photo first, then press the button.", "请先选择一张照片，再点按钮。"),
    "problem.too-many-photos": ("That was more than one photo.", "一次只能识别一张照片。"),
    "advice.too-many-photos": ("Choose a single photo.", "请只选择一张照片。"),
    "problem.bad-parameter": ("A parameter was not understood.", "参数有误。"),
    "advice.bad-parameter": ("Check the address, or begin again.", "请检查网址，或重新开始。"),
    "problem.bad-request": ("The request was not understood.", "无法理解这个请求。"),
    "advice.bad-request": ("Sending the photo again usually helps.", "请重新发送照片试试。"),
    "problem.not-found": ("There is nothing at this address.", "这里什么也没有。"),
    "advice.not-found": ("The photo form is one step away.", "请回到首页选择照片。"),
    "problem.method-not-allowed": ("This address does not work that way.", "此网址不支持这种操作。"),
    "advice.method-not-allowed": ("The photo form is one step away.", "请回到首页选择照片。"),
    "problem.too-large": ("The photo is too large.", "照片太大了。"),
    "advice.too-large": (
        "The limit is {limit} MiB. Save a smaller copy, or send a screenshot of it.",
        "上限为 {limit} MiB。请缩小照片，或发送它的截图。",
    ),
    "problem.unsupported-content-type": ("That form was not understood.", "表单格式有误。"),
    "advice.unsupported-content-type": ("Use the form on the first page.", "请使用首页的表单。"),
    "problem.unsupported-image": ("That is not a photo we can read.", "这不是可以识别的照片文件。"),
    "advice.unsupported-image": (
        "Choose a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC file. Documents, drawings and videos do not work.",
        "请选择 JPEG、PNG、WebP、GIF、BMP、TIFF、AVIF 或 HEIC 文件；文档、矢量图和视频不行。",
    ),
    "problem.broken-image": ("The photo is damaged.", "照片文件已损坏。"),
    "advice.broken-image": (
        "It may have been cut short on its way. Open it, save it again, and send the copy.",
        "文件可能不完整。请打开后重新保存，再发送新的副本。",
    ),
    "problem.too-many-pixels": ("The photo has too many pixels.", "照片的像素太多了。"),
    "advice.too-many-pixels": ("Save a smaller copy and send that.", "请缩小照片尺寸后再发送。"),
    "problem.internal-error": ("Something went wrong on our side.", "服务器出了点问题。"),
    "advice.internal-error": (
        "Try again; if it stays so, tell whoever runs this.",
        "请再试一次；如仍不行，请联系管理员。",
    ),
    "problem.overloaded": ("Too many photos are waiting.", "排队的照片太多了。"),
    "advice.overloaded": ("Try again in a moment.", "请稍后再试。"),
    "problem.model-unavailable": ("No model is ready yet.", "模型还没有准备好。"),
    "advice.model-unavailable": (
        "Try again in a few seconds; if it stays so, tell whoever runs this.",
        "请过几秒再试；如仍不行，请联系管理员。",
    ),
    "problem.deadline-exceeded": ("The answer took too long.", "识别超时。"),
    "advice.deadline-exceeded": ("Try again in a moment.", "请稍后再试。"),
}


def reader_language() -> str:
    """Choose the language: the cookie of the switch, else what the browser prefers, else English."""
    chosen = flask.request.cookies.get("lang")
    if chosen in LANGUAGES:
        return chosen
    return flask.request.accept_languages.best_match(LANGUAGES, default="en")


def render_page(template: str, **values: object) -> flask.Response:
    """Render a template in the reader's language.

    The template gets `t(key, …)` for words, `names(label)` for a class's two names, the reader's first, and
    `root`, the relative path to the first page, so that any prefix in front of the service works.
    """
    language = reader_language()

    def t(key: str, **parameters: object) -> str:
        return WORDS[key][LANGUAGES.index(language)].format(**parameters)

    def names(label: Prediction) -> tuple[str, str | None]:
        if language == "zh" and label.label_zh:
            return label.label_zh, label.label
        return label.label, label.label_zh

    limit_bytes: int = flask.current_app.config["TOPTHREE"].max_upload_bytes
    classifier: Classifier = flask.current_app.extensions["topthree"]
    page = flask.render_template(
        template,
        t=t,
        names=names,
        language=language,
        root="../" * (flask.request.path.count("/") - 1) or "./",
        model=classifier.loaded_model,
        limit=f"{limit_bytes / 1024 / 1024:g}",
        **values,
    )
    response = flask.make_response(page)
    response.headers["Content-Language"] = language
    response.headers["Vary"] = "Accept-Language, Cookie"
    return response
