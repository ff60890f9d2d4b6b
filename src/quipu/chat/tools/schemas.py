"""Argument schemas as grammars need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quipu.chat.tools.definitions import resolve

_OPENS = ("additionalProperties", "patternProperties", "unevaluatedProperties", "anyOf", "oneOf", "allOf", "$ref")
_DEFINITIONS = ("$defs", "definitions")
_TYPES = frozenset(("string", "number", "integer", "boolean", "null", "array", "object"))
_BOUNDS = ("minimum", "maximum", "minItems", "maxItems")
_LARGEST_BOUND = 2**31
_MAX_DEPTH = 24  # what lies deeper may be anything


def closed(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of an object without properties that it does not name, unless it says that others are welcome."""
    if any(keyword in parameters for keyword in _OPENS) or "properties" not in parameters:
        return {"type": "object", **parameters}
    return {"type": "object", **parameters, "additionalProperties": False}


def softened(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without what a grammar may not be able to enforce: a call that keeps to the rest is still a call.

    Left are types, properties, items, listed values, choices between schemas, references, and bounds of numbers and
    lists.
    """
    return {**_softened(parameters, _MAX_DEPTH), "type": "object"}


def _softened(schema: Any, depth: int) -> dict[str, Any]:
    if not isinstance(schema, Mapping) or depth == 0:
        return {}
    soft: dict[str, Any] = {}
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else list(kinds) if isinstance(kinds, list | tuple) else []
    kinds = [kind.lower() for kind in kinds if isinstance(kind, str) and kind.lower() in _TYPES]
    if kinds and schema.get("nullable") is True:
        kinds.append("null")
    if kinds:
        soft["type"] = kinds[0] if len(kinds) == 1 else list(dict.fromkeys(kinds))
    for keyword in ("properties", *_DEFINITIONS):
        if isinstance(schema.get(keyword), Mapping):
            soft[keyword] = {name: _softened(part, depth - 1) for name, part in schema[keyword].items()}
    if isinstance(schema.get("required"), list | tuple):
        soft["required"] = [name for name in schema["required"] if name in soft.get("properties", ())]
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), Mapping):
            soft[keyword] = _softened(schema[keyword], depth - 1)
    if schema.get("additionalProperties") is False:
        soft["additionalProperties"] = False
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list | tuple) and schema[keyword]:
            soft["anyOf"] = [_softened(part, depth - 1) for part in schema[keyword]]
    if isinstance(schema.get("enum"), list | tuple) and schema["enum"]:
        soft["enum"] = list(schema["enum"])
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith(tuple(f"#/{key}/" for key in _DEFINITIONS)):
        soft["$ref"] = reference
    for keyword in _BOUNDS:
        value = schema.get(keyword)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_BOUND:
            soft[keyword] = value
    return soft | ({"const": schema["const"]} if "const" in schema else {})


def properties_of(parameters: Mapping[str, Any]) -> dict[str, tuple[Mapping[str, Any], bool]]:
    """The properties of an object: name -> (schema that stands for itself, whether it must be there)."""
    properties = parameters.get("properties")
    required = parameters.get("required")
    names = frozenset(required) if isinstance(required, list | tuple) else frozenset()
    if not isinstance(properties, Mapping):
        return {}
    return {
        name: (_with_definitions(schema if isinstance(schema, Mapping) else {}, parameters), name in names)
        for name, schema in properties.items()
    }


def strings_of(schema: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts that a schema lists; none where it allows any."""
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target = resolve(reference, root)
        schema = target if isinstance(target, Mapping) else schema
    if isinstance(schema.get("const"), str):
        return (schema["const"],)
    listed = schema.get("enum")
    return tuple(value for value in listed if isinstance(value, str)) if isinstance(listed, list | tuple) else ()


def _with_definitions(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part of a schema with the definitions that it may refer to."""
    return {**{key: root[key] for key in _DEFINITIONS if key in root}, **schema}
