"""Which part of a schema the library refuses: its own messages name a keyword, never a place."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from quipu.chat.constraints.schema import DEFINITION, NormalSchema, Schema, parts_of

_MOST_TRIALS = 500


class Culprit(NamedTuple):
    """A part of a schema, and what is wrong with it."""

    path: str
    problem: str


def find_culprit(schema: NormalSchema, problem_of: Callable[[Schema], str]) -> Culprit:
    """The innermost part that is refused when it stands alone.

    Args:
        schema: one that is refused as a whole.
        problem_of: compiles a schema and says what is wrong with it, or "".
    """
    culprit = Culprit(schema.paths.get(id(schema.root), "#"), problem_of(schema.document()))
    part, num_trials, seen = schema.root, 0, set()
    while True:
        for inner in _inner_parts(schema, part):
            num_trials += 1
            if num_trials > _MOST_TRIALS:
                return culprit
            if id(inner) in seen:
                continue
            seen.add(id(inner))
            problem = problem_of(schema.document(inner))
            if problem:
                culprit = Culprit(schema.paths.get(id(inner), culprit.path), problem)
                part = inner
                break
        else:
            return culprit


def _inner_parts(schema: NormalSchema, part: Schema) -> list[Schema]:
    """What is inside, `false` aside: on its own it is refused, inside it may be meant."""
    inner: list[Schema] = [item for item in parts_of(part) if item is not False]
    if not isinstance(part, bool) and "$ref" in part:
        inner.append(schema.definitions[part["$ref"].removeprefix(DEFINITION)])
    return inner
