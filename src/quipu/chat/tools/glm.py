"""GLM 4.5 and later, and Laguna: keys and values of arguments in tags of their own.

<tool_call>get_weather
<arg_key>city</arg_key>
<arg_value>Rome</arg_value>
</tool_call>
"""

from __future__ import annotations

from collections.abc import Sequence

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.parameters import Arguments, write_value
from quipu.chat.tools.reader import Reader, Wait
from quipu.chat.tools.schemas import properties_of

_OPENING, _CLOSING = "<tool_call>", "</tool_call>"
_KEY, _KEY_END, _VALUE, _VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"


class GlmFormat(ToolFormat):
    """The name stands right behind the opening, up to the end of the line or the next tag."""

    name = "glm"
    openings = (_OPENING,)
    markers = (_OPENING, _CLOSING, _KEY, _KEY_END, _VALUE, _VALUE_END)

    def read(self, opening: str, reader: Reader, calls: Calls) -> Wait[None]:
        yield from reader.space()
        name, end = yield from reader.word(("\n", _KEY, _CLOSING))
        calls.start(name.strip())
        arguments = Arguments(calls, calls.tools.get(name.strip()))
        while end != _CLOSING:
            if end == "\n":
                yield from reader.space()
                end = yield from reader.expect(_KEY, _CLOSING)
                continue
            key, _ = yield from reader.word((_KEY_END,))
            yield from reader.space()
            yield from reader.expect(_VALUE)
            yield from arguments.read(reader, key.strip(), _VALUE_END, (_KEY, _CLOSING), is_padded=False, is_text=None)
            end = yield from reader.expect(_KEY, _CLOSING)
        arguments.close()
        yield from reader.space()

    def write_grammar(self, lark: Lark, tools: Sequence[Tool], is_parallel: bool) -> str:
        call = lark.rule("call", "\n    | ".join(_write_call(lark, tool) for tool in tools))
        return f"{call} ({lark.space()} {call})*" if is_parallel else call


def _write_call(lark: Lark, tool: Tool) -> str:
    parameters = []
    for name, (schema, is_required) in properties_of(tool.parameters).items():
        value = write_value(lark, schema, tool.parameters, tool.types_of(name), f"{_VALUE_END}\n")
        rule = lark.rule("parameter", f"{lark.text(f'{_KEY}{name}{_KEY_END}' + chr(10) + _VALUE)} {value}")
        parameters.append(rule if is_required else f"{rule}?")
    return f"{lark.text(f'{_OPENING}{tool.name}' + chr(10))} {' '.join(parameters)} {lark.text(_CLOSING)}"


GLM = GlmFormat()
