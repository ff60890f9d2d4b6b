"""Argument schemas as grammars need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quipu.chat.tools.definitions import resolve

_OPENS = ("additionalProperties", "patternProperties", "unevaluatedProperties", "anyOf", "oneOf", "allOf", "$ref")
_DEFINITIONS = ("$defs", "definitions")


def closed(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of an object without properties that it does not name, unless it says that others are welcome."""
    if any(keyword in parameters for keyword in _OPENS) or "properties" not in parameters:
        return {"type": "object", **parameters}
    return {"type": "object", **parameters, "additionalProperties": False}


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
