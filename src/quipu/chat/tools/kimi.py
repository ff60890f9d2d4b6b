"""Kimi K2: the id of a call is the tool's name and the number of the call in the conversation.

<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Rome"}
<|tool_call_end|><|tool_calls_section_end|>
"""

from __future__ import annotations

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.named_calls import NamedFormat
from quipu.chat.tools.reader import Reader, Wait


class KimiFormat(NamedFormat):
    """Its ids are handed on, since the template shows them with the results."""

    def read_call(self, reader: Reader, calls: Calls) -> Wait[None]:
        call_id, _ = yield from reader.word((self.name_end,))
        call_id = call_id.strip()
        name = call_id.removeprefix("functions.")
        plain, colon, number = name.rpartition(":")
        if colon and number.isdecimal():
            name = plain
        yield from self.read_arguments(reader, calls, name, call_id)

    def write_head(self, lark: Lark, tool: Tool) -> str:
        number = lark.shared("NUMBER", "/[0-9]{1,4}/")
        return f"{lark.text(f'{self.call_begin}functions.{tool.name}:')} {number} {lark.text(self.name_end)}"


KIMI = KimiFormat(
    "kimi",
    ("<|tool_calls_section_begin|>",),
    "<|tool_call_argument_begin|>",
    call_begin="<|tool_call_begin|>",
    call_ends=("<|tool_call_end|>",),
    section_ends=("<|tool_calls_section_end|>",),
    markers=(
        "<|tool_calls_section_begin|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<|tool_calls_section_end|>",
    ),
    ends_reasoning=True,
)
