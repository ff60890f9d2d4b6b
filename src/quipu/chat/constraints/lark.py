"""Lark grammars from users: what the library would accept and not carry out, refused by line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from quipu.chat.constraints.limits import ConstraintLimits
from quipu.chat.constraints.schema import Schema, normalize_schema
from quipu.errors import InvalidRequestError

# `stop` and `max_tokens` cannot be taken back when a draft is refused; a rule's temperature is nowhere applied.
_ATTRIBUTES = re.compile(r"^[ \t]*[?!_a-zA-Z][\w\-]*\[([^\]\n]*)\][ \t]*:", re.MULTILINE)
_REFUSED_ATTRIBUTE = re.compile(r"\b(stop|max_tokens|temperature)[ \t]*=")
# A string, a regular expression or a comment, inside which nothing counts; or the word that begins a schema.
_PIECE = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|#[^\n]*|/(?:\\.|[^/\\\n])+/|%json\s*(?=\{)')


def checked_lark(
    grammar: str, limits: ConstraintLimits, field: str, options_for: Callable[[Schema], dict[str, Any]]
) -> str:
    """The grammar with its schemas in the spelling that is enforced.

    Args:
        grammar: the text.
        limits: bounds on the schemas.
        field: what errors call it.
        options_for: adds the library's options to a schema.

    Raises:
        InvalidRequestError: with the line: an attribute of a rule, or a keyword of a schema after `%json`, is not
            enforced.
    """
    if not grammar.strip():
        raise InvalidRequestError(f"{field} is empty; write a grammar with a rule `start`", field=field)
    for rule in _ATTRIBUTES.finditer(grammar):
        attribute = _REFUSED_ATTRIBUTE.search(rule[1])
        if attribute is not None:
            line = grammar.count("\n", 0, rule.start()) + 1
            raise InvalidRequestError(
                f"{field}: line {line}: the attribute {attribute[1]}= is not supported; use lazy or suffix=",
                field=field,
            )
    parts = []
    position = 0
    while (piece := _PIECE.search(grammar, position)) is not None:
        parts.append(grammar[position : piece.end()])
        position = piece.end()
        if not piece[0].startswith("%json"):
            continue
        line = grammar.count("\n", 0, position) + 1
        try:
            value, position = json.JSONDecoder().raw_decode(grammar, position)
        except (ValueError, RecursionError):
            problem = f"{field}: line {line}: %json is followed by a schema, which is not valid JSON"
            raise InvalidRequestError(problem, field=field) from None
        try:
            schema = normalize_schema(value, limits, field).document()
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{field}: line {line}: %json: {error}", field=field) from None
        parts.append(json.dumps(options_for(schema)))
    return "".join([*parts, grammar[position:]])
