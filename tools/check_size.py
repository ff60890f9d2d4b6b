"""Point at Python files over 500 lines and functions over 60 lines. A guide, not a limit: it warns and succeeds.

python tools/check_size.py
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
FOLDERS = ("src", "tools", "benchmarks", "examples")


def find_long(path: Path) -> Iterator[str]:
    """Warnings about one file."""
    text = path.read_text(encoding="utf-8")
    num_lines = text.count("\n")
    if num_lines > MAX_FILE_LINES:
        yield f"{path}: {num_lines} lines"
    for node in ast.walk(ast.parse(text, filename=str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            num_lines = node.end_lineno - node.lineno + 1
            if num_lines > MAX_FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {num_lines} lines"


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    paths = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    warnings = [warning for path in paths for warning in find_long(path)]
    for warning in warnings:
        print(f"warning: {warning}")
    print(f"check_size: {len(warnings)} warning(s) about {len(paths)} files")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
