"""How the code is built: small functions in small files, and a start that loads no model."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import create_app

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.relative_to(ROOT / "app").as_posix(): path for path in (ROOT / "app").rglob("*.py")}

MAY_HOLD_AN_INTERFACE = {
    "__init__.py",
    *(f"{name}/__init__.py" for name in ("commands", "model", "model/backbones", "model/engines")),
}
MAY_READ_THE_ENVIRONMENT = {"commands/__init__.py", "settings.py", "web/application.py"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Parse all files."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def nodes(kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[tuple[str, ast.AST]]:
    """Yield all nodes of a kind with the file that holds them."""
    for name, tree in trees().items():
        yield from ((name, node) for node in ast.walk(tree) if isinstance(node, kind))


@functools.cache
def functions() -> list[tuple[str, Function]]:
    """List all functions with the file that holds each."""
    return [(name, node) for name, node in nodes(Function) if isinstance(node, Function)]


def outside_imports(name: str) -> set[str]:
    """List the modules of others that a file imports anywhere in it, with what it takes from them."""
    found = set()
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def code_lines(function: Function, source: list[str]) -> int:
    """Count the lines of a function that hold code: no docstring, comment or blank line."""
    documented = ast.get_docstring(function) is not None
    skipped = range(function.body[0].lineno, function.body[0].end_lineno + 1) if documented else range(0)
    lines = (number for number in range(function.lineno, function.end_lineno + 1) if number not in skipped)
    return sum(bool(re.match(r"\s*[^\s#]", source[number - 1])) for number in lines)


def test_our_own_modules_are_imported_relatively():
    assert [name for name in FILES for module in outside_imports(name) if module.split(".")[0] == "app"] == []


def test_package_files_are_empty_unless_they_hold_an_interface():
    filled = {name for name, path in FILES.items() if path.name == "__init__.py" and path.stat().st_size}
    assert filled <= MAY_HOLD_AN_INTERFACE


def test_functions_are_small():
    lines = {name: path.read_text(encoding="utf-8").splitlines() for name, path in FILES.items()}
    sizes = {f"{name}:{function.name}": code_lines(function, lines[name]) for name, function in functions()}
    assert {name: size for name, size in sizes.items() if size > 50} == {}
    assert sum(size <= 20 for size in sizes.values()) >= 0.8 * len(sizes)


@pytest.mark.parametrize("folder", ["app", "tests", "scripts"])
def test_files_are_short(folder: str):
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}


def test_at_most_five_parameters_are_positional():
    counts = {
        f"{name}:{function.name}": len([*function.args.posonlyargs, *function.args.args])
        for name, function in functions()
    }
    methods = {
        f"{name}:{child.name}"
        for name, node in nodes(ast.ClassDef)
        for child in node.body
        if isinstance(child, Function)
    }
    assert {name: count for name, count in counts.items() if count - (name in methods) > 5} == {}


def test_every_function_is_annotated():
    bare = []
    for name, function in functions():
        every = function.args
        parameters = [*every.posonlyargs, *every.args, *every.kwonlyargs, *filter(None, [every.vararg, every.kwarg])]
        named = [parameter for parameter in parameters if parameter.arg not in ("self", "cls")]
        if function.returns is None or not all(parameter.annotation for parameter in named):
            bare.append(f"{name}:{function.name}")
    assert bare == []


def test_only_commands_print():
    printing = {name for name, call in nodes(ast.Call) if isinstance(call.func, ast.Name) and call.func.id == "print"}
    assert {name for name in printing if not name.startswith("commands/")} == set()


def test_nothing_is_global():
    assert [name for name, _ in nodes(ast.Global)] == []


def test_assertions_only_tell_the_type_checker_what_is_so():
    allowed = r"isinstance\(.*\)|\S+ is not None"
    said = [(name, ast.unparse(node.test)) for name, node in nodes(ast.Assert)]
    assert [(name, test) for name, test in said if not re.fullmatch(allowed, test)] == []


def test_failures_are_caught_by_name():
    broad = [
        name
        for name, handler in nodes(ast.ExceptHandler)
        if handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
    ]
    assert len(broad) <= 3, broad


def test_the_environment_is_read_in_one_place():
    sources = {name: ast.unparse(tree) for name, tree in trees().items()}
    readers = {name for name, source in sources.items() if re.search(r"\bos\.(environ|getenv)", source)}
    assert readers <= MAY_READ_THE_ENVIRONMENT


@pytest.mark.parametrize("start", ["import app.commands.serve", "from app import create_app; create_app()"])
def test_a_start_imports_only_what_every_start_needs(start: str):
    code = f"{start}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    loaded = {module.split(".")[0] for module in json.loads(done.stdout)}
    assert loaded & {"torch", "torchvision", "openvino", "nncf", "httpx", "filelock"} == set()


@pytest.mark.parametrize("module", ["app.commands", "app.photos.decoder", "app.processes.forkserver"])
def test_the_command_line_and_the_decoders_do_without_flask(module: str):
    code = f"import {module}, sys\nprint('flask' in sys.modules, 'werkzeug' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"False"]


def test_templates_and_static_files_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    client = create_app().test_client()
    page = client.get("/")
    assert page.status_code == 200
    style = re.search(r'href="([^"]+\.css)"', page.text)
    assert client.get("/" + style[1].removeprefix("./")).status_code == 200
