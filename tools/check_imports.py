"""Check the import rules of `src/quipu`: one direction, no cycles, nothing hidden inside functions.

    python tools/check_imports.py [package folder]

A package may import only from the packages above it in `ROWS`; annotation-only imports (`if TYPE_CHECKING:`) count too.
Modules must not import each other in a circle. Imports of quipu modules inside functions are refused, because they are
how a cycle is hidden, except where `LATE_IMPORTS` allows them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# In the order of docs/architecture.md: a row may import what stands above it, but not its own neighbours.
ROWS: tuple[tuple[str, ...], ...] = (
    ("errors", "_native"),
    ("types",),
    ("gguf",),
    ("quant",),
    ("backends",),
    ("tokenizer",),
    ("chat",),
    ("models",),
    ("engine",),
    ("convert", "store"),
    ("api_options",),
    ("api_vectors",),
    ("api",),
    ("evaluate", "bench"),
    ("server", "compat", "cluster"),
    ("cli",),
)

# Modules whose functions may import: public names that resolve on first use, and the way to the command line's verbs.
LATE_IMPORTS = ("quipu", "quipu.cli.verbs", "quipu.cli.app", "quipu.cli.help")

_ROW_OF = {package: row for row, packages in enumerate(ROWS) for package in packages}


@dataclass(frozen=True)
class Import:
    """One import of a quipu module by another."""

    source: str  # dotted name of the importing module
    target: str  # dotted name of the imported module
    line: int
    is_late: bool  # inside a function


def find_modules(root: Path) -> dict[str, Path]:
    """Dotted module name -> file, for every Python file of the package folder `root`."""
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def find_imports(source: str, path: Path, modules: Mapping[str, Path]) -> Iterator[Import]:
    """The imports of quipu modules in one file, in order of appearance."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = source if path.name == "__init__.py" else source.rpartition(".")[0]
    pending: list[tuple[ast.AST, bool]] = [(tree, False)]
    while pending:
        node, is_late = pending.pop()
        for target in _targets(node, package, modules):
            yield Import(source, target, getattr(node, "lineno", 0), is_late)
        is_late = is_late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        pending.extend((child, is_late) for child in reversed(list(ast.iter_child_nodes(node))))


def _targets(node: ast.AST, package: str, modules: Mapping[str, Path]) -> list[str]:
    """The quipu modules that `node` imports; a name that is itself a module counts as that module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if _is_ours(alias.name)]
    if isinstance(node, ast.ImportFrom):
        parents = package.split(".")
        base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
        name = ".".join(part for part in (base, node.module) if part)
        if not _is_ours(name):
            return []
        if name == "quipu" and [alias.name for alias in node.names] == ["__version__"]:
            return []
        members = [f"{name}.{alias.name}" for alias in node.names]
        return [
            member if member in modules or member.startswith("quipu._native") else name
            for member in dict.fromkeys(members)
        ]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function = ast.unparse(node.func)
        value = node.args[0].value
        if function in ("importlib.import_module", "import_module", "__import__") and isinstance(value, str):
            return [value] if _is_ours(value) else []
    return []


def _is_ours(name: str) -> bool:
    return name == "quipu" or name.startswith("quipu.")


def package_of(module: str) -> str:
    """`quipu.gguf.reader` -> `gguf`; the top package itself -> the empty string."""
    return module.split(".")[1] if "." in module else ""


def check_direction(imports: list[Import]) -> Iterator[str]:
    """Complaints about packages that import a package beside or after them."""
    for item in imports:
        source, target = package_of(item.source), package_of(item.target)
        if source in ("", "__main__"):
            continue  # the top package re-exports from anywhere
        where = f"{item.source}:{item.line}"
        if target == "":
            yield f"{where}: import the defining module instead of the top package quipu"
        elif source not in _ROW_OF or target not in _ROW_OF:
            unknown = source if source not in _ROW_OF else target
            yield f"{where}: package {unknown!r} has no row; add it to ROWS in tools/check_imports.py"
        elif source != target and _ROW_OF[target] >= _ROW_OF[source]:
            yield f"{where}: {source} must not import {item.target}: {target} does not stand above it"


def check_late(imports: list[Import]) -> Iterator[str]:
    """Complaints about imports inside functions."""
    for item in imports:
        if item.is_late and item.source not in LATE_IMPORTS:
            yield f"{item.source}:{item.line}: move the import of {item.target} to the top of the file"


def find_cycle(imports: list[Import]) -> list[str]:
    """The modules of one import circle, the first repeated at the end; empty when there is none."""
    edges: dict[str, list[str]] = {}
    for item in imports:
        is_allowed_late = item.is_late and item.source in LATE_IMPORTS
        if item.source not in (item.target, "quipu") and not is_allowed_late:
            edges.setdefault(item.source, []).append(item.target)
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        cycle = _walk(start, edges, done, path)
        if cycle:
            return cycle
    return []


def _walk(module: str, edges: Mapping[str, list[str]], done: set[str], path: list[str]) -> list[str]:
    if module in path:
        return [*path[path.index(module) :], module]
    if module in done:
        return []
    path.append(module)
    for target in edges.get(module, ()):
        cycle = _walk(target, edges, done, path)
        if cycle:
            return cycle
    path.pop()
    done.add(module)
    return []


def check(root: Path) -> list[str]:
    """All complaints about the package folder `root`, one line each."""
    modules = find_modules(root)
    imports = [item for source, path in modules.items() for item in find_imports(source, path, modules)]
    complaints = [*check_direction(imports), *check_late(imports)]
    cycle = find_cycle(imports)
    if cycle:
        complaints.append(f"import cycle: {' -> '.join(cycle)}")
    return complaints


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "src" / "quipu"
    complaints = check(root)
    for complaint in complaints:
        print(complaint)
    print(f"check_imports: {len(complaints)} complaint(s) about {len(find_modules(root))} modules")
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
