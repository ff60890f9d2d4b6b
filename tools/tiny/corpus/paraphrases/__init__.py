"""Further wordings of the questions, in text files: a line with a key, then its wordings, each on a line of its own."""

from __future__ import annotations

from functools import cache
from pathlib import Path


def more(key: str) -> list[str]:
    """The further training templates of a question.

    Args:
        key: "ANSWER: " and the answer for what always gets the same answer; "KEY: module.NAME.language" for a topic.
    """
    return _read().get(key, [])


@cache
def _read() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(Path(__file__).parent.glob("*.txt")):
        key = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):
                found[key].append(line.strip().replace(r"\n", "\n"))
            elif line:
                key = line
                found.setdefault(key, [])
    return found
