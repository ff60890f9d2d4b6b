"""Grammars in llguidance's variant of Lark (its docs/syntax.md, MIT), piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


class Lark:
    """Collects the rules of a grammar.

    Args:
        token_ids: control tokens by their text: where such a text is to be written, the token must be.
    """

    def __init__(self, token_ids: Mapping[str, int] | None = None) -> None:
        self._token_ids = dict(token_ids or {})
        texts = sorted((text for text in self._token_ids if text), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, texts))) if texts else None
        self._rules: dict[str, str] = {}

    def source(self, start: str) -> str:
        """The grammar, which begins with the expression `start`."""
        return "".join(f"{name}: {body}\n" for name, body in {"start": start, **self._rules}.items())

    def rule(self, name: str, body: str) -> str:
        """Add a rule (in capitals: a terminal) and return its name, with a number where another has it already."""
        plain = name.partition("[")[0]
        unique, number = plain, 1
        while any(other.partition("[")[0] == unique for other in self._rules):
            number += 1
            unique = f"{plain}_{number}"
        self._rules[unique + name[len(plain) :]] = body
        return unique

    def shared(self, name: str, body: str) -> str:
        """Add a rule that may be there already."""
        self._rules[name] = body
        return name.partition("[")[0]

    def text(self, text: str) -> str:
        """Exactly this text."""
        pieces = []
        place = 0
        for found in self._control.finditer(text) if self._control else ():
            if found.start() > place:
                pieces.append(_quoted(text[place : found.start()]))
            pieces.append(f"<[{self._token_ids[found.group()]}]>")
            place = found.end()
        if place < len(text) or not text:
            pieces.append(_quoted(text[place:]))
        return " ".join(pieces)

    def json(self, schema: Mapping[str, Any]) -> str:
        """JSON that fits a schema."""
        return f"%json {json.dumps(schema, ensure_ascii=False)}"

    def space(self) -> str:
        """White space, or none. A text beside it must not begin or end with any: the lexer does not go back."""
        return self.shared("SPACE", r"/[ \n\t]{1,20}/") + "?"

    def up_to(self, end: str) -> str:
        """Any text up to and with `end`. Where `end` holds a control token, what it has before that is not bound."""
        if self._control is not None and (found := self._control.search(end)) is not None:
            return f"{self.any_text()} {self.text(end[found.start() :])}"
        return self.rule(f"text_up_to[suffix={_quoted(end)}]", "/(?s:.*)/")

    def is_one_kind(self, text: str) -> bool:
        """Whether a text is one control token, or holds none: others cannot be triggers."""
        return self._control is None or text in self._token_ids or self._control.search(text) is None

    def any_text(self) -> str:
        """Any text, also none."""
        return self.shared("ANY_TEXT", "/(?s:.*)/")

    @staticmethod
    def any_of(*options: str) -> str:
        """One of these expressions."""
        return options[0] if len(options) == 1 else f"({' | '.join(options)})"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
