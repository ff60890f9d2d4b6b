"""From a constraint to the text that the library compiles."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from quipu.chat.constraints.conjunction import circular_path, most_patterns
from quipu.chat.constraints.culprit import find_culprit
from quipu.chat.constraints.finiteness import endless_path
from quipu.chat.constraints.gbnf import gbnf_to_lark
from quipu.chat.constraints.lark import checked_lark
from quipu.chat.constraints.limits import ConstraintLimits
from quipu.chat.constraints.regex import check_regex, escaped
from quipu.chat.constraints.schema import NormalSchema, Schema, normalize_schema
from quipu.chat.constraints.schema_text import parse_json
from quipu.errors import InvalidRequestError
from quipu.types import ConstraintKind, ConstraintSpec, Whitespace

_LEADING_WHITESPACE = r"/[\x20\x0A\x0D\x09]{0,8}/ "

# Escapes with \u would let the model write one key in several ways, and so pass by the schema of a property.
_ESCAPES = 'nrbtf\\"'


def grammar_source(spec: ConstraintSpec, limits: ConstraintLimits, problem_of: Callable[[str], str]) -> str:
    """The library's form of `spec`: JSON with one or two grammars.

    Args:
        spec: the constraint.
        limits: bounds on it.
        problem_of: compiles a grammar and says what is wrong with it, or "".

    Raises:
        InvalidRequestError: the constraint is malformed, too large, or cannot be enforced.
    """
    num_bytes = len(spec.source.encode("utf-8", "surrogatepass"))
    if num_bytes > limits.source_bytes:
        raise InvalidRequestError(
            f"{spec.field} has {num_bytes} bytes but may have {limits.source_bytes}; make it smaller", field=spec.field
        )
    try:
        spec.source.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(
            f"{spec.field} is not valid Unicode: it has half a character", field=spec.field
        ) from None
    body = _body(spec, limits, problem_of)
    head = json.dumps(spec.prefix) + " " if spec.prefix else ""
    if spec.leading_whitespace:
        head += _LEADING_WHITESPACE
    if not head:
        return json.dumps({"grammars": [body]})
    return json.dumps({"grammars": [{"lark_grammar": f"start: {head}@body"}, {**body, "name": "body"}]})


def _body(spec: ConstraintSpec, limits: ConstraintLimits, problem_of: Callable[[str], str]) -> dict[str, Any]:
    """One grammar."""
    if spec.kind is ConstraintKind.JSON_OBJECT:
        return _json_grammar({"type": "object"}, spec, limits)
    if spec.kind is ConstraintKind.JSON_SCHEMA:
        return _schema_grammar(spec, limits, problem_of)
    if spec.kind is ConstraintKind.CHOICE:
        return _expression(_choices(spec, limits))
    if spec.kind is ConstraintKind.REGEX:
        return _expression(check_regex(spec.source, limits, spec.field))
    if spec.kind is ConstraintKind.LARK:
        grammar = checked_lark(spec.source, limits, spec.field, lambda part: _with_options(part, spec, limits))
        return {"lark_grammar": grammar}
    return {"lark_grammar": gbnf_to_lark(spec.source, limits, spec.field)}


def _json_grammar(schema: Schema, spec: ConstraintSpec, limits: ConstraintLimits) -> dict[str, Any]:
    return {"json_schema": _with_options(schema, spec, limits)}


def _with_options(schema: Schema, spec: ConstraintSpec, limits: ConstraintLimits) -> dict[str, Any]:
    """The schema with what it says to the library about spaces and escapes."""
    options: dict[str, Any] = {"json_allowed_escapes": _ESCAPES, "whitespace_flexible": False}
    if spec.whitespace is Whitespace.FLEXIBLE:
        options["whitespace_pattern"] = f" |\\r?\\n[ \\t]{{0,{limits.indentation}}}"
    elif spec.whitespace is Whitespace.LINE:
        options |= {"item_separator": ", ?", "key_separator": ": ?"}
    if isinstance(schema, bool):
        schema = {} if schema else {"allOf": [False]}
    return {**schema, "x-guidance": options}


def _schema_grammar(spec: ConstraintSpec, limits: ConstraintLimits, problem_of: Callable[[str], str]) -> dict[str, Any]:
    schema = normalize_schema(parse_json(spec.source, spec.field), limits, spec.field)
    problem = _structural_problem(schema, limits)
    if problem:
        raise InvalidRequestError(f"{spec.field}: {problem}", field=spec.field)

    def problem_of_schema(part: Schema) -> str:
        return problem_of(json.dumps({"grammars": [_json_grammar(part, spec, limits)]}))

    if problem_of_schema(schema.document()):
        path, problem = find_culprit(schema, problem_of_schema)
        raise InvalidRequestError(f"{spec.field}: at {path}: {problem}", field=spec.field)
    return _json_grammar(schema.document(), spec, limits)


def _structural_problem(schema: NormalSchema, limits: ConstraintLimits) -> str:
    """What the library would follow without end, or nearly so; "" if there is nothing."""
    path = circular_path(schema)
    if path is not None:
        return f"at {path}: the schema refers to itself for the same value; refer to it for a property or an item"
    path = endless_path(schema)
    if path is not None:
        return (
            f"at {path}: the schema demands itself inside itself, so no value of finite size fits it; make one of the "
            "properties on the way optional"
        )
    num_patterns, path = most_patterns(schema)
    if num_patterns > limits.patterns:
        return (
            f"at {path}: one string has {num_patterns} patterns and formats to match at once but may have "
            f"{limits.patterns}; join them into fewer"
        )
    return ""


def _choices(spec: ConstraintSpec, limits: ConstraintLimits) -> str:
    choices = parse_json(spec.source, spec.field)
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
        raise InvalidRequestError(f"{spec.field} must be a list of one or more strings", field=spec.field)
    if len(choices) > limits.enum_values:
        raise InvalidRequestError(
            f"{spec.field} has {len(choices)} choices but may have {limits.enum_values}; use fewer", field=spec.field
        )
    if "" in choices:
        raise InvalidRequestError(f"{spec.field} has an empty choice; leave it out", field=spec.field)
    return "|".join(map(escaped, dict.fromkeys(choices)))


def _expression(expression: str) -> dict[str, Any]:
    """A grammar of one regular expression, which is one lexeme: what it matches is decided exactly."""
    written = expression.replace("\n", "\\n")
    written = _escape_slashes(written)
    return {"lark_grammar": f"start: /{written}/"}


def _escape_slashes(expression: str) -> str:
    """The expression between slashes: those inside it escaped, unless they are already."""
    parts = []
    is_escaped = False
    for character in expression:
        parts.append("\\/" if character == "/" and not is_escaped else character)
        is_escaped = character == "\\" and not is_escaped
    return "".join(parts)
