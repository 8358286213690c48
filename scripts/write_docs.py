"""Write the generated parts of the documents, which are the lines between their markers.

`make docs` runs it. A part begins with the line `<!-- make docs: NAME -->` and ends with `<!-- end -->`; `PARTS` has
a function for each name, which reads the facts from the code that uses them.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from app import create_app
from app.errors import PROBLEMS, UnsupportedImage
from app.model.records import RECORDS, ModelRecord
from app.photos.formats import FORMATS, SUPPORTED, format_of
from app.settings import SETTINGS, Settings
from app.telemetry import metrics

ROOT = Path(__file__).resolve().parent.parent
PART = re.compile(r"(?<=^<!-- make docs: )([a-z-]+)( -->\n)(.*?)(?=^<!-- end -->$)", re.DOTALL | re.MULTILINE)


def documents() -> list[Path]:
    """List the documents that may have generated parts."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def filled(text: str) -> str:
    """Return the text of a document with its generated parts written again."""
    return PART.sub(lambda part: f"{part[1]}{part[2]}{PARTS[part[1]]()}\n", text)


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    rule = "|" + "---|" * len(head)
    return "\n".join([f"| {' | '.join(lines[0])} |", rule, *(f"| {' | '.join(cells)} |" for cells in lines[1:])])


def code(text: str) -> str:
    """Return text as inline code."""
    return f"`{text}`"


def settings() -> str:
    """List the settings in the order of their declaration."""
    rows = ((code(row.variable), code(row.default) if row.default else "not set", row.help) for row in SETTINGS)
    return table(["Variable", "Default", "Meaning"], rows)


def problems() -> str:
    """List the problems by status; the first line of a class's docstring says what it means."""
    rows = ((str(p.status), code(p.slug), (p.__doc__ or "").splitlines()[0]) for p in PROBLEMS)
    return table(["Status", "Slug", "Meaning"], rows)


def problem() -> str:
    """Show the answer to a file that is no photo."""
    try:
        format_of(b"This is text.")
    except UnsupportedImage as error:
        members = ",\n ".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in error.as_dict().items())
    return f"```json\n{{{members}}}\n```"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of each route in the OpenAPI document."""
    app = create_app(Settings.from_environment({}))
    document = app.test_client().get("/api/v1/openapi.json").get_json()
    for path, methods in document["paths"].items():
        yield from ((method.upper(), path, operation) for method, operation in methods.items())


def parameters_of(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the query parameters of an operation."""
    return [given for given in operation.get("parameters", []) if given["in"] == "query"]


def routes() -> str:
    """List the routes of the OpenAPI document with what each answers and its query parameters."""
    rows = (
        (
            code(f"{method} {path}"),
            f"{operation['summary']}. {operation.get('description', '')}".strip(),
            ", ".join(code(given["name"]) for given in parameters_of(operation)),
        )
        for method, path, operation in operations()
    )
    return table(["Route", "Answer", "Query"], rows)


def parameters() -> str:
    """List the query parameters of all routes, each once."""
    found = {given["name"]: given for _, _, operation in operations() for given in parameters_of(operation)}
    rows = (
        (code(name), values_of(given["schema"]), default_of(given["schema"]), given["description"])
        for name, given in found.items()
    )
    return table(["Parameter", "Values", "Default", "Meaning"], rows)


def values_of(schema: dict[str, Any]) -> str:
    """Say which values a schema allows."""
    if "enum" in schema:
        return ", ".join(code(str(value)) for value in schema["enum"])
    if schema["type"] == "string":
        return "names, such as " + " or ".join(code(example) for example in schema["examples"])
    return f"{schema['minimum']} to {schema['maximum']}"


def default_of(schema: dict[str, Any]) -> str:
    """Return the default of a schema, if it has one."""
    return code(str(schema["default"])) if "default" in schema else "not set"


def command_line() -> click.Context:
    """Return the command `topthree`, which pyproject.toml names, in a context of its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cli = pkgutil.resolve_name(project["scripts"]["topthree"])
    # With its settings: a command keeps the help option that it was first asked for.
    return click.Context(cli, info_name="topthree", **cli.context_settings)


def inner_commands(context: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command of a group, in alphabetical order; nothing for a command without any."""
    group = context.command
    if isinstance(group, click.Group):
        for name in sorted(group.list_commands(context)):
            command = group.get_command(context, name)
            assert command is not None
            yield click.Context(command, info_name=name, parent=context)


def all_commands() -> list[click.Context]:
    """List a context for each command of `topthree`; a group is replaced by its commands."""
    return [inner for outer in inner_commands(command_line()) for inner in ([*inner_commands(outer)] or [outer])]


def command_list() -> str:
    """List the commands, each with the first line of its help and a link to its section."""
    rows = (
        (f"[{path}](#{path.replace(' ', '-')})", unwrapped(context.command.help or "").splitlines()[0])
        for context, path in ((context, context.command_path) for context in all_commands())
    )
    return table(["Command", "What it does"], rows)


def commands() -> str:
    """Describe each command with its usage, help and options."""
    return "\n\n".join(described(context) for context in all_commands())


def described(context: click.Context) -> str:
    """Return a section of Markdown about one command."""
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    records = (option.get_help_record(context) for option in command.params if isinstance(option, click.Option))
    options = [(code(names), unwrapped(meaning)) for names, meaning in filter(None, records)]
    parts = [f"### {context.command_path}", f"```\n{usage}\n```", unwrapped(command.help or "")]
    return "\n\n".join([*parts, *([table(["Option", "Meaning"], iter(options))] if options else [])])


def unwrapped(text: str) -> str:
    """Join the lines of each paragraph; one that click does not wrap either is a heading and lines of code."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(code_block(each) if each.startswith("\b") else " ".join(each.split()) for each in paragraphs)


def code_block(paragraph: str) -> str:
    """Return a paragraph of a command's help that begins with the mark for click, a line and then code."""
    _, heading, *lines = paragraph.splitlines()
    return "\n".join([heading, "", "```sh", *(line.strip() for line in lines), "```"])


def listed_metrics() -> str:
    """List the metrics as they are queried."""
    return table(["Metric", "Meaning"], ((code(name), meaning) for name, meaning in metrics.names().items()))


def formats() -> str:
    """Say which formats are supported."""
    return f"A photo may be {SUPPORTED}. The content decides, not the file name, and photos are turned upright."


def format_list() -> str:
    """List the formats with their media types and the suffixes of their files."""
    rows = ((row.name, code(row.mime_type), ", ".join(map(code, row.suffixes))) for row in FORMATS)
    return table(["Format", "Media type", "File names"], rows)


def percentage(value: float | None) -> str:
    """Return a percentage with one decimal; nothing if it is not known."""
    return "" if value is None else f"{value:.1f}%"


def targets() -> str:
    """List the targets of the Makefile that have a help text."""
    found = re.findall(r"^([a-z-]+):.* ## (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return table(["Command", "What it does"], ((code(f"make {name}"), meaning) for name, meaning in found))


def backbones() -> str:
    """List the models of `TOPTHREE_MODEL`."""
    head = ["Name", "Size", "Parameters", "Side", "Top-1", "Top-5", "Licence", "Weights"]
    return table(head, (backbone_row(record) for record in RECORDS.values()))


def backbone_row(record: ModelRecord) -> list[str]:
    """Return a model's row; it ends with the package of the weights, or how their SHA-256 begins."""
    accuracy = [percentage(record.top1), percentage(record.top5)]
    sizes = [f"{record.size_bytes / 1e6:.1f} MB", f"{record.parameters / 1e6:.1f} million", str(record.geometry.crop)]
    place = code(record.package.replace("_", "-")) if record.package else code(record.sha256[:8])
    return [code(record.name), *sizes, *accuracy, record.licence, place]


PARTS: dict[str, Callable[[], str]] = {
    "backbones": backbones,
    "command-list": command_list,
    "commands": commands,
    "format-list": format_list,
    "formats": formats,
    "metrics": listed_metrics,
    "parameters": parameters,
    "problem": problem,
    "problems": problems,
    "routes": routes,
    "settings": settings,
    "targets": targets,
}


def main() -> None:
    """Write all documents again, and say which of them changed."""
    for path in documents():
        text = path.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} is written again.")


if __name__ == "__main__":
    main()
