"""Calls with a tag for each argument: Qwen3-Coder and its followers, MiniMax M2, DeepSeek V3.2 and V4.

<tool_call>
<function=get_weather>
<parameter=city>
Rome
</parameter>
</function>
</tool_call>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.parameters import Arguments, write_value
from quipu.chat.tools.reader import Reader, Wait
from quipu.chat.tools.schemas import properties_of

_IS_TEXT = {'true">': True, 'false">': False}


@dataclass(frozen=True)
class XmlFormat(ToolFormat):
    """A family whose calls and arguments have tags. Each tag is written up to the name in it.

    Attributes:
        name, openings, markers, ends_reasoning: as in `ToolFormat`. The grammar writes the first opening.
        closings: texts that may end a section, the family's own first.
        call_begin, call_name_end, call_end: around a call.
        parameter_begin, parameter_name_end, parameter_end: around an argument.
        is_padded: arguments stand on lines of their own.
        says_type: the name of a parameter is followed by `true">` or `false">`, whether it is a text.
        holds_all: a section holds all calls of an answer; else each call has a section of its own.
    """

    name: str
    openings: tuple[str, ...]
    closings: tuple[str, ...]
    call_begin: str = "<function="
    call_name_end: str = ">"
    call_end: str = "</function>"
    parameter_begin: str = "<parameter="
    parameter_name_end: str = ">"
    parameter_end: str = "</parameter>"
    is_padded: bool = False
    says_type: bool = False
    holds_all: bool = False
    markers: tuple[str, ...] = ()
    ends_reasoning: bool = False

    def read(self, opening: str, reader: Reader, calls: Calls) -> Wait[None]:
        if opening != self.call_begin:
            yield from reader.space()
            yield from reader.expect(self.call_begin)
        while True:
            yield from self._read_call(reader, calls)
            yield from reader.space()
            if not (yield from reader.match((self.call_begin,))):
                break
        yield from reader.match(self.closings)
        yield from reader.space()

    def _read_call(self, reader: Reader, calls: Calls) -> Wait[None]:
        name, _ = yield from reader.word((self.call_name_end,))
        calls.start(name)
        arguments = Arguments(calls, calls.tools.get(name))
        while True:
            yield from reader.space()
            if (yield from reader.expect(self.parameter_begin, self.call_end)) == self.call_end:
                arguments.close()
                return
            parameter, _ = yield from reader.word((self.parameter_name_end,))
            is_text = _IS_TEXT[(yield from reader.expect(*_IS_TEXT))] if self.says_type else None
            followers = (self.parameter_begin, self.call_end)
            yield from arguments.read(
                reader, parameter, self.parameter_end, followers, is_padded=self.is_padded, is_text=is_text
            )

    def write_grammar(self, lark: Lark, tools: Sequence[Tool], is_parallel: bool) -> str:
        call = lark.rule("call", "\n    | ".join(self._write_call(lark, tool) for tool in tools))
        begin = f"{lark.text(self.openings[0])} {lark.space()}"
        end = f"{lark.space()} {lark.text(self.closings[0])}"
        if self.holds_all:
            more = f" ({lark.space()} {call})*" if is_parallel else ""
            return f"{begin} {call}{more} {end}"
        marked = lark.rule("marked_call", f"{begin} {call} {end}")
        return f"{marked} ({lark.space()} {marked})*" if is_parallel else marked

    def _write_call(self, lark: Lark, tool: Tool) -> str:
        parameters = []
        padding = "\n" if self.is_padded else ""
        for name, (schema, is_required) in properties_of(tool.parameters).items():
            types = tool.types_of(name)
            head = self.parameter_begin + name + self.parameter_name_end
            if self.says_type:
                head += 'true">' if "string" in types or not types else 'false">'
            value = write_value(lark, schema, tool.parameters, types, padding + self.parameter_end + "\n")
            rule = lark.rule("parameter", f"{lark.text(head + padding)} {value}")
            parameters.append(rule if is_required else f"{rule}?")
        head = lark.text(self.call_begin + tool.name + self.call_name_end + "\n")
        return f"{head} {' '.join(parameters)} {lark.text(self.call_end)}"


QWEN3_CODER = XmlFormat(
    "qwen3-coder",
    ("<tool_call>", "<function="),
    ("</tool_call>",),
    is_padded=True,
    markers=("<tool_call>", "</tool_call>"),
)
SEED = XmlFormat(
    "seed",
    ("<seed:tool_call>",),
    ("</seed:tool_call>",),
    markers=("<seed:tool_call>", "</seed:tool_call>"),
    ends_reasoning=True,
)
MINIMAX_M2 = XmlFormat(
    "minimax-m2",
    ("<minimax:tool_call>",),
    ("</minimax:tool_call>",),
    call_begin='<invoke name="',
    call_name_end='">',
    call_end="</invoke>",
    parameter_begin='<parameter name="',
    parameter_name_end='">',
    holds_all=True,
    markers=("<minimax:tool_call>", "</minimax:tool_call>"),
    ends_reasoning=True,
)
_DSML = "｜DSML｜"
DEEPSEEK_V4 = XmlFormat(
    "deepseek-v4",
    (f"<{_DSML}tool_calls>", f"<{_DSML}function_calls>"),
    (f"</{_DSML}tool_calls>", f"</{_DSML}function_calls>"),
    call_begin=f'<{_DSML}invoke name="',
    call_name_end='">',
    call_end=f"</{_DSML}invoke>",
    parameter_begin=f'<{_DSML}parameter name="',
    parameter_name_end='" string="',
    parameter_end=f"</{_DSML}parameter>",
    says_type=True,
    holds_all=True,
    markers=(_DSML,),
    ends_reasoning=True,
)
