"""Mistral since late 2024: name and arguments one after another, and in some models an id between them.

    [TOOL_CALLS]get_weather[CALL_ID]a1B2c3D4e[ARGS]{"city": "Rome"}[TOOL_CALLS]...

Earlier models write `[TOOL_CALLS][{"name": ..., "arguments": ...}]`, and later ones fall back to it.
"""

from __future__ import annotations

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.json_calls import MISTRAL_LIST
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.named_calls import NamedFormat
from quipu.chat.tools.reader import Reader, Wait

_CALL_ID = "[CALL_ID]"


class MistralFormat(NamedFormat):
    """Also reads the list of the earlier models."""

    def read(self, opening: str, reader: Reader, calls: Calls) -> Wait[None]:
        yield from reader.space()
        if (yield from reader.peek()) in ("[", "{"):
            yield from MISTRAL_LIST.read(opening, reader, calls)
        else:
            yield from super().read(opening, reader, calls)

    def read_call(self, reader: Reader, calls: Calls) -> Wait[None]:
        name, end = yield from reader.word((_CALL_ID, self.name_end))
        call_id = (yield from reader.word((self.name_end,)))[0] if end == _CALL_ID else ""
        yield from self.read_arguments(reader, calls, name.strip(), call_id.strip())

    def write_head(self, lark: Lark, tool: Tool) -> str:
        call_id = f"({lark.text(_CALL_ID)} {lark.shared('CALL_ID', '/[A-Za-z0-9]{9}/')})?"
        return f"{lark.text(self.openings[0] + tool.name)} {call_id} {lark.text(self.name_end)}"


MISTRAL = MistralFormat("mistral", ("[TOOL_CALLS]",), "[ARGS]", markers=("[TOOL_CALLS]", _CALL_ID, "[ARGS]"))
