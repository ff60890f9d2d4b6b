"""What an answer must look like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from quipu.errors import InvalidRequestError
from quipu.types.checks import is_whole, member, require


class ConstraintKind(StrEnum):
    """What describes the texts that a constrained answer may be."""

    JSON_OBJECT = "json_object"  # any JSON object
    JSON_SCHEMA = "json_schema"  # JSON that a schema allows
    REGEX = "regex"  # a regular expression that the whole answer matches
    CHOICE = "choice"  # one of a list of texts
    LARK = "lark"  # a grammar in llguidance's dialect of Lark
    GBNF = "gbnf"  # a grammar in llama.cpp's notation


class Whitespace(StrEnum):
    """Where constrained JSON may have whitespace."""

    LINE = "line"  # a space after a comma or a colon
    FLEXIBLE = "flexible"  # a space, or a line break and indentation, between any two symbols
    COMPACT = "compact"  # nowhere


_MAX_TRIGGERS = 64
_MAX_TRIGGER_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class ConstraintSpec:
    """What an answer must look like. The class methods make one from plain values.

    Attributes:
        kind: how `source` is to be read.
        source: the schema as JSON text, the regular expression, the choices as a JSON list, or the grammar.
        triggers: strings or token ids. Where there are any, the answer is free until the first of them appears, and
            constrained from there on.
        is_required: where there are triggers, the answer must not end before one of them.
        includes_trigger: the constraint describes the trigger too, not only what follows it.
        whitespace: where JSON may have whitespace.
        leading_whitespace: whitespace may come before the constrained text.
        prefix: the end of the prompt that was taken off it, so that the model can write it again as part of a longer
            token; the answer must begin with it, and it is no part of the answer's text.
        field: what errors call the constraint: the name of the parameter that brought it.
    """

    kind: ConstraintKind
    source: str = ""
    triggers: tuple[str | int, ...] = ()
    is_required: bool = False
    includes_trigger: bool = False
    whitespace: Whitespace = Whitespace.LINE
    leading_whitespace: bool = False
    prefix: str = ""
    field: str = "constraint"

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", member(ConstraintKind, self.kind, f"{self.field}.kind"))
        object.__setattr__(self, "whitespace", member(Whitespace, self.whitespace, f"{self.field}.whitespace"))
        object.__setattr__(self, "triggers", tuple(self.triggers))
        require(isinstance(self.source, str), self.field, "text", type(self.source).__name__)
        name = f"{self.field}.triggers"
        require(len(self.triggers) <= _MAX_TRIGGERS, name, f"at most {_MAX_TRIGGERS}", len(self.triggers))
        for trigger in self.triggers:
            is_text = isinstance(trigger, str) and 0 < len(trigger) <= _MAX_TRIGGER_LENGTH
            is_id = is_whole(trigger) and isinstance(trigger, int) and trigger >= 0
            require(is_text or is_id, name, f"strings of 1 to {_MAX_TRIGGER_LENGTH} characters or token ids", trigger)

    @classmethod
    def json_object(cls, **options: Any) -> ConstraintSpec:
        """Any JSON object. `options` are further attributes."""
        return cls(ConstraintKind.JSON_OBJECT, **options)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool | str, **options: Any) -> ConstraintSpec:
        """JSON that `schema` allows, given as a value or as JSON text. `options` are further attributes.

        Raises:
            InvalidRequestError: the value cannot be written as JSON.
        """
        name = options.get("field", "constraint")
        if isinstance(schema, str):
            return cls(ConstraintKind.JSON_SCHEMA, schema, **options)
        require(isinstance(schema, Mapping | bool), name, "a JSON object, true or false", type(schema).__name__)
        try:
            source = json.dumps(schema, allow_nan=False, ensure_ascii=False, default=_as_dict)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(f"{name} cannot be written as JSON: {error}", field=name) from None
        return cls(ConstraintKind.JSON_SCHEMA, source, **options)

    @classmethod
    def regex(cls, pattern: str, **options: Any) -> ConstraintSpec:
        """Text that `pattern` matches from end to end. `options` are further attributes."""
        return cls(ConstraintKind.REGEX, pattern, **options)

    @classmethod
    def choice(cls, choices: Sequence[str], **options: Any) -> ConstraintSpec:
        """One of `choices`. `options` are further attributes.

        Raises:
            InvalidRequestError: there are no choices, or one is not text.
        """
        name = options.get("field", "constraint")
        is_list = not isinstance(choices, str) and all(isinstance(choice, str) for choice in choices)
        require(is_list and len(choices) > 0, name, "a list of one or more strings", choices)
        return cls(ConstraintKind.CHOICE, json.dumps(list(choices)), **options)

    @classmethod
    def lark(cls, grammar: str, **options: Any) -> ConstraintSpec:
        """Text that a Lark grammar produces from `start`. `options` are further attributes."""
        return cls(ConstraintKind.LARK, grammar, **options)

    @classmethod
    def gbnf(cls, grammar: str, **options: Any) -> ConstraintSpec:
        """Text that a GBNF grammar produces from `root`. `options` are further attributes."""
        return cls(ConstraintKind.GBNF, grammar, **options)


def _as_dict(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")
