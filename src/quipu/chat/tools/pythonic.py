"""Calls as Python writes them: LFM2, and Llama when it is taught so.

<|tool_call_start|>[get_weather(city="Rome", days=2)]<|tool_call_end|>
"""

from __future__ import annotations

from collections.abc import Sequence

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.json_calls import LFM2_JSON
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.reader import NotACallError, Reader, Wait
from quipu.chat.tools.schemas import properties_of
from quipu.chat.tools.values import escaped, read_value

_OPENING, _CLOSING = "<|tool_call_start|>", "<|tool_call_end|>"


class PythonicFormat(ToolFormat):
    """A list of calls with arguments by name. LFM2 writes JSON objects in the list where the prompt asks for it."""

    name = "pythonic"
    openings = (_OPENING,)
    markers = (_OPENING, _CLOSING)

    def read(self, opening: str, reader: Reader, calls: Calls) -> Wait[None]:
        yield from reader.space()
        has_bracket = yield from reader.match(("[",))
        yield from reader.space()
        if (yield from reader.peek()) == "{":
            yield from LFM2_JSON.read(has_bracket or "", reader, calls)
            return
        while True:
            name, _ = yield from reader.word(("(",))
            calls.start(name.strip())
            yield from read_keyword_arguments(reader, calls)
            yield from reader.space()
            if not (yield from reader.match((",",))):
                break
            yield from reader.space()
        yield from reader.match(("]",))
        yield from reader.space()
        yield from reader.match((_CLOSING,))
        yield from reader.space()

    def write_grammar(self, lark: Lark, tools: Sequence[Tool], is_parallel: bool) -> str:
        call = lark.rule("call", "\n    | ".join(_write_call(lark, tool) for tool in tools))
        more = f' (", " {call})*' if is_parallel else ""
        return f'{lark.text(_OPENING)} "[" {call}{more} "]" {lark.text(_CLOSING)}'


def read_keyword_arguments(reader: Reader, calls: Calls) -> Wait[None]:
    """Read arguments after the bracket that opens them, up to the one that closes them, and end the call."""
    names: set[str] = set()
    yield from reader.space()
    while not (yield from reader.match((")",))):
        if names:
            yield from reader.expect(",")
            yield from reader.space()
            if (yield from reader.match((")",))):
                break
        name, _ = yield from reader.word(("=",))
        name = name.strip()
        if not name.isidentifier() or name in names:
            raise NotACallError
        yield from reader.space()
        calls.add(f'{", " if names else "{"}"{escaped(name)}": ')
        names.add(name)
        yield from read_value(reader, calls.add)
        yield from reader.space()
    calls.add("}" if names else "{}")
    calls.end()


def _write_call(lark: Lark, tool: Tool) -> str:
    """Arguments in the order of the schema. Values are JSON, which Python reads but for three constants."""
    rest, first = '""', '""'
    for name, (schema, is_required) in reversed(properties_of(tool.parameters).items()):
        rule = lark.rule("argument", f"{lark.text(f'{name}=')} {lark.json(schema)}")
        first = lark.rule("first", f"{rule} {rest}" if is_required else f"({rule} {rest} | {first})")
        rest = lark.rule("rest", f'", " {rule} {rest}' if is_required else f'(", " {rule})? {rest}')
    return f'{lark.text(f"{tool.name}(")} {first} ")"'


PYTHONIC = PythonicFormat()
