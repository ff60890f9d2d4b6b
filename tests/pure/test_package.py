"""The package as a whole: what an import loads, the public names, and the rules the source tree keeps."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import quipu

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "quipu"

# Statements that may stand at the top of a module: nothing happens at import but definitions.
_DEFINITIONS = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
    ast.TypeAlias if sys.version_info >= (3, 12) else ast.Assign,
)


def modules_after(statement: str) -> set[str]:
    """The names in sys.modules after `statement` in a fresh interpreter, less what a bare one holds."""
    code = (
        "import json, sys\nbefore = set(sys.modules)\n"
        f"{statement}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


def test_import_loads_nothing_else() -> None:
    loaded = modules_after("import quipu")
    assert {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names} == {"quipu"}
    assert not loaded & {"asyncio", "ctypes", "dataclasses", "inspect", "json", "logging", "pathlib", "subprocess"}


def test_llm_does_not_load_what_only_other_jobs_need() -> None:
    """Text, templates and the terminal are loaded by the first call that needs them, or by the command line."""
    loaded = {name.partition(".")[0] for name in modules_after("from quipu import LLM")}
    assert not loaded & {"typer", "rich", "click", "prompt_toolkit", "transformers", "torch", "requests", "hypothesis"}
    submodules = modules_after("from quipu import LLM")
    assert not {name for name in submodules if name.startswith(("quipu.cli", "quipu.bench"))}


def test_public_names_resolve() -> None:
    for name in quipu.__all__:
        value = getattr(quipu, name)
        home = getattr(value, "__module__", "quipu")
        assert home.partition(".")[0] in ("quipu", "builtins"), name
    assert dir(quipu) == sorted(quipu.__all__)
    assert len(quipu.__all__) <= 13  # a dozen names and the version


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = quipu.nonsense
    with pytest.raises(ImportError):
        importlib.import_module("quipu.nonsense")


def _is_definition(node: ast.stmt) -> bool:
    if isinstance(node, _DEFINITIONS):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)  # a docstring
    if isinstance(node, ast.If):  # TYPE_CHECKING, a platform, or `python -m`
        condition = ast.unparse(node.test)
        return "__name__" in condition or all(_is_definition(child) for child in node.body + node.orelse)
    return isinstance(node, ast.Assert | ast.Delete)  # a table's own consistency; a helper name dropped


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_modules_only_define(path: Path) -> None:
    if path.name == "__main__.py":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    offending = [f"line {node.lineno}: {ast.unparse(node)[:80]}" for node in tree.body if not _is_definition(node)]
    assert not offending


def test_exported_names_exist() -> None:
    """Every `__all__` in the package names things its module has, once each."""
    for path in sorted(SOURCE.rglob("*.py")):
        if "__all__" not in path.read_text(encoding="utf-8"):
            continue
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        assert len(set(module.__all__)) == len(module.__all__), module.__name__
        missing = [name for name in module.__all__ if not hasattr(module, name)]
        assert not missing, f"{module.__name__}: {missing}"


def test_import_rules_hold() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_imports.py")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout


def test_version_has_one_home() -> None:
    assert f"## {quipu.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert "version" in project["project"]["dynamic"]


def test_build_group_repeats_the_build_requirements() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["build-system"]["requires"]) <= set(project["dependency-groups"]["build"])
