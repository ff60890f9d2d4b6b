"""Check that links between the project's Markdown files lead somewhere, and that code fences are closed.

    python tools/check_docs.py

Links to other sites are not followed. Commands in the documents are run by tests/model/test_docs.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```+)(.*)$")


def strip_code(text: str) -> tuple[list[tuple[int, str]], bool]:
    """The lines outside code fences with their numbers, and whether every fence is closed."""
    lines = []
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if match and not fence:
            fence = match[1]
        elif match and match[1] == fence and not match[2]:
            fence = ""
        elif not fence:
            lines.append((number, line))
    return lines, not fence


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, in the form that Markdown hosts give them."""
    headings = [line.lstrip("#").strip() for _, line in strip_code(text)[0] if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check(path: Path) -> Iterator[str]:
    """Complaints about one document."""
    lines, is_closed = strip_code(path.read_text(encoding="utf-8"))
    if not is_closed:
        yield f"{path}: a code fence is not closed"
    for number, line in lines:
        for link in _LINK.findall(line):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists():
                yield f"{path}:{number}: {link} does not exist"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
                yield f"{path}:{number}: {link} has no such heading"


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    paths = [*sorted(root.glob("*.md")), *sorted(root.glob("docs/**/*.md"))]
    complaints = [complaint for path in paths for complaint in check(path)]
    for complaint in complaints:
        print(complaint)
    print(f"check_docs: {len(complaints)} complaint(s) about {len(paths)} documents")
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
