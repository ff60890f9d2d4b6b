"""Which schemas some finite value satisfies.

A schema that demands itself inside itself has none, and a model would open brackets until it runs out of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quipu.chat.constraints.schema import DEFINITION, NormalSchema, Schema, parts_of


def endless_path(schema: NormalSchema) -> str | None:
    """Where `schema` demands itself without end, as a JSON pointer; None where it does not.

    The least fixed point: a definition is finite once all that it demands is. Each is looked at again only when one
    that it mentions has turned out finite.
    """
    users: dict[str, set[str]] = {name: set() for name in schema.definitions}
    for name, definition in schema.definitions.items():
        for target in _mentioned(definition):
            users[target].add(name)
    finite: set[str] = set()
    pending = list(schema.definitions)
    while pending:
        name = pending.pop()
        if name not in finite and _is_finite(schema.definitions[name], finite):
            finite.add(name)
            pending.extend(users[name])
    if _is_finite(schema.root, finite):
        return None
    return schema.paths.get(id(schema.root), "#")


def _mentioned(schema: Schema) -> Iterator[str]:
    pending = [schema]
    while pending:
        part = pending.pop()
        if not isinstance(part, bool) and "$ref" in part:
            yield part["$ref"].removeprefix(DEFINITION)
        pending += parts_of(part)


def _is_finite(schema: Schema, finite: set[str]) -> bool:
    if isinstance(schema, bool):
        return True  # `false` has no values at all, which the library tells by itself
    if "$ref" in schema and schema["$ref"].removeprefix(DEFINITION) not in finite:
        return False
    if not all(_is_finite(part, finite) for part in schema.get("allOf", ())):
        return False
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema and not any(_is_finite(part, finite) for part in schema[keyword]):
            return False
    if "const" in schema or "enum" in schema:
        return True
    types = schema.get("type", "null")
    types = types if isinstance(types, list) else [types]
    return any(_has_finite_value(schema, name, finite) for name in types)


def _has_finite_value(schema: dict[str, Any], type_name: str, finite: set[str]) -> bool:
    if type_name == "array":
        fewest = schema.get("minItems", 0)
        first = schema.get("prefixItems", [])[:fewest]
        rest = [schema.get("items", True)] if fewest > len(first) else []
        return all(_is_finite(item, finite) for item in [*first, *rest])
    if type_name == "object":
        known = schema.get("properties", {})
        other = schema.get("additionalProperties", True)
        return all(_is_finite(known.get(name, other), finite) for name in schema.get("required", ()))
    return True
