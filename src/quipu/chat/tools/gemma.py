"""Gemma 4: objects without quotes around keys, and marks around texts that are tokens of their own.

<|tool_call>call:get_weather{city:<|"|>Rome<|"|>,days:2}<tool_call|>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool, resolve
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.reader import Reader, Wait
from quipu.chat.tools.schemas import properties_of, strings_of
from quipu.chat.tools.values import Dialect, read_value

_OPENING, _CLOSING, _QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'
_MAX_DEPTH = 12  # of references and nesting that the grammar follows; below it anything goes
_DIALECT = Dialect(quotes=('"',), raw_quotes=(_QUOTE,), has_bare_keys=True)


class GemmaFormat(ToolFormat):
    """Each call has marks of its own."""

    name = "gemma"
    openings = (_OPENING,)
    markers = (_OPENING, _CLOSING, _QUOTE)
    ends_reasoning = True

    def read(self, opening: str, reader: Reader, calls: Calls) -> Wait[None]:
        yield from reader.space()
        yield from reader.expect("call:")
        name, _ = yield from reader.word(("{",))
        calls.start(name.strip())
        yield from read_value(reader, calls.add, _DIALECT, in_object=True)
        calls.end()
        yield from reader.space()
        yield from reader.match((_CLOSING,))
        yield from reader.space()

    def write_grammar(self, lark: Lark, tools: Sequence[Tool], is_parallel: bool) -> str:
        options = [
            f"{lark.text(f'{_OPENING}call:{tool.name}')} {_Values(lark, tool.parameters).object(tool.parameters)}"
            for tool in tools
        ]
        call = lark.rule("call", "\n    | ".join(options))
        marked = lark.rule("marked_call", f"{call} {lark.text(_CLOSING)}")
        return f"{marked}+" if is_parallel else marked


class _Values:
    """Writes the grammar of values that fit a schema.

    Of what a schema says, types, properties, items, listed values and bounds of numbers count.

    Args:
        lark: takes the rules.
        root: the schema that local references point into.
    """

    def __init__(self, lark: Lark, root: Mapping[str, Any]) -> None:
        self._lark = lark
        self._root = root

    def object(self, schema: Mapping[str, Any], depth: int = 0) -> str:
        """An object. Keys stand in the order of the alphabet, as the template writes them."""
        lark = self._lark
        properties = sorted(properties_of(schema).items())
        if not properties:
            return lark.text("{}") if depth == 0 else self._anything()
        pairs = [
            (f"{lark.text(f'{name}:')} {self.value(part, depth + 1)}", is_required)
            for name, (part, is_required) in properties
        ]
        # `rest` holds the pairs from i on after a comma, `first` those of which none has come yet
        rest, first = '""', '""'
        for pair, is_required in reversed(pairs):
            rule = lark.rule("pair", pair)
            first = f"{rule} {rest}" if is_required else f"({rule} {rest} | {first})"
            rest = lark.rule("rest", f'"," {rule} {rest}' if is_required else f'("," {rule})? {rest}')
            first = lark.rule("first", first)
        return f"{lark.text('{')} {first} {lark.text('}')}"

    def value(self, schema: Mapping[str, Any], depth: int) -> str:
        """Any value."""
        lark = self._lark
        if depth > _MAX_DEPTH:
            return self._anything()
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/"):
            target = resolve(reference, self._root)
            return self.value(target, depth + 1) if isinstance(target, Mapping) else self._anything()
        for keyword in ("anyOf", "oneOf"):
            options = schema.get(keyword)
            if isinstance(options, list | tuple) and options:
                return lark.any_of(*(self.value(part, depth + 1) for part in options if isinstance(part, Mapping)))
        if strings := strings_of(schema, self._root):
            return lark.any_of(*(lark.text(f"{_QUOTE}{text}{_QUOTE}") for text in strings))
        kinds = schema.get("type")
        if isinstance(kinds, list | tuple) and kinds:
            return lark.any_of(*(self.value({**schema, "type": kind}, depth + 1) for kind in kinds))
        if kinds == "string":
            return f"{lark.text(_QUOTE)} {lark.up_to(_QUOTE)}"
        if kinds in ("integer", "number", "boolean", "null"):
            return lark.json(schema)
        if kinds == "array":
            items = schema.get("items")
            item = lark.rule("item", self.value(items if isinstance(items, Mapping) else {}, depth + 1))
            return f'"[" ({item} ("," {item})*)? "]"'
        return self.object(schema, depth) if kinds == "object" else self._anything()

    def _anything(self) -> str:
        lark = self._lark
        text = f"{lark.text(_QUOTE)} {lark.up_to(_QUOTE)}"
        number = lark.json({"type": ["number", "boolean", "null"]})
        lark.shared("list", '"[" (anything ("," anything)*)? "]"')
        lark.shared("object", '"{" (member ("," member)*)? "}"')
        lark.shared("member", 'KEY ":" anything')
        lark.shared("KEY", "/[A-Za-z_][A-Za-z0-9_-]{0,63}/")
        return lark.shared("anything", f"{text} | {number} | list | object")


GEMMA = GemmaFormat()
