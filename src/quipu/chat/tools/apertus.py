"""Apertus: a list of objects whose only key is the name of the tool.

<|tools_prefix|>[{"get_weather": {"city": "Rome"}}]<|tools_suffix|>
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.json_calls import JsonFormat
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.reader import NotACallError, Reader, Wait
from quipu.chat.tools.schemas import closed
from quipu.chat.tools.values import read_text, read_value


class ApertusFormat(JsonFormat):
    """The list and its marks are those of other families; the objects are not."""

    def read_call(self, reader: Reader, calls: Calls) -> Wait[None]:
        yield from reader.space()
        name = yield from read_text(reader, max_chars=256)
        yield from reader.space()
        yield from reader.expect(":")
        yield from reader.space()
        if (yield from reader.peek()) != "{":
            raise NotACallError
        calls.start(name)
        yield from read_value(reader, calls.add)
        calls.end()
        yield from reader.space()
        yield from reader.match(("}",))

    def call_grammar(self, lark: Lark, tools: Sequence[Tool]) -> str:
        options = []
        for tool in tools:
            head = f"{{{json.dumps(tool.name, ensure_ascii=False)}: "
            options.append(f'{lark.text(head)} {lark.json(closed(tool.parameters))} "}}"')
        return "\n    | ".join(options)


APERTUS = ApertusFormat(
    "apertus",
    ("<|tools_prefix|>",),
    ("<|tools_suffix|>",),
    markers=("<|tools_prefix|>", "<|tools_suffix|>"),
    is_list=True,
)
