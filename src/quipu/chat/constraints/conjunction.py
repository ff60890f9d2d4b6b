"""What a schema demands of one and the same value at once, through references and combinations."""

from __future__ import annotations

from collections.abc import Iterator

from quipu.chat.constraints.schema import DEFINITION, NormalSchema, Schema, parts_of

_COMBINATIONS = ("allOf", "anyOf", "oneOf")


def circular_path(schema: NormalSchema) -> str | None:
    """Where a schema comes back to itself for the same value, as a JSON pointer; None where it does not."""
    is_done: dict[str, bool] = {}
    for name in schema.definitions:
        pending = [(name, False)]
        while pending:
            name, is_left = pending.pop()
            if is_left:
                is_done[name] = True
            elif name not in is_done:
                is_done[name] = False
                pending.append((name, True))
                for target in _same_value(schema.definitions[name]):
                    if is_done.get(target) is False:
                        return schema.paths.get(id(schema.definitions[target]), "#")
                    pending.append((target, False))
    return None


def _same_value(schema: Schema) -> Iterator[str]:
    """The definitions that apply to the same value as `schema`."""
    pending = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, bool):
            continue
        if "$ref" in part:
            yield part["$ref"].removeprefix(DEFINITION)
        for keyword in _COMBINATIONS:
            pending += part.get(keyword, ())


def most_patterns(schema: NormalSchema) -> tuple[int, str]:
    """How many regular expressions one string may have to match at once, and the path of the part that says so.

    An upper bound. Patterns and formats beside each other count, with those of every `allOf`, the worst of each `anyOf`
    and `oneOf`, and what is referred to. The schema is not circular.
    """
    known: dict[int, int] = {}
    worst = (0, "#")
    pending = [schema.root, *schema.definitions.values()]
    while pending:
        part = pending.pop()
        count = _num_patterns(schema, part, known)
        if count > worst[0]:
            worst = (count, schema.paths.get(id(part), "#"))
        pending += parts_of(part)
    return worst


def _num_patterns(schema: NormalSchema, part: Schema, known: dict[int, int]) -> int:
    if isinstance(part, bool):
        return 0
    if id(part) in known:
        return known[id(part)]
    count = ("pattern" in part) + ("format" in part)
    count += sum(_num_patterns(schema, inner, known) for inner in part.get("allOf", ()))
    for keyword in ("anyOf", "oneOf"):
        count += max((_num_patterns(schema, inner, known) for inner in part.get(keyword, ())), default=0)
    if "$ref" in part:
        count += _num_patterns(schema, schema.definitions[part["$ref"].removeprefix(DEFINITION)], known)
    known[id(part)] = count
    return count
