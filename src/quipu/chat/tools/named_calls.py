"""Calls whose name stands before the JSON object of their arguments.

    [TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}

What differs is the marks around them, and whether a section holds all calls of an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.reader import NotACallError, Reader, Wait
from quipu.chat.tools.schemas import closed
from quipu.chat.tools.values import read_value


@dataclass(frozen=True)
class NamedFormat(ToolFormat):
    """A family whose calls are a name and a JSON object.

    Attributes:
        name, openings, first_openings, markers, ends_reasoning: as in `ToolFormat`. The grammar writes the first
            opening.
        call_begin: begins each call; "": the opening does.
        head: stands between the beginning of a call and its name.
        name_end: between the name and the arguments, as the family writes it.
        call_ends: texts that may end a call, the family's own first; there may be none.
        section_ends: texts that may end all calls, the family's own first.
    """

    name: str
    openings: tuple[str, ...]
    name_end: str
    call_begin: str = ""
    head: str = ""
    call_ends: tuple[str, ...] = ()
    section_ends: tuple[str, ...] = ()
    first_openings: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    ends_reasoning: bool = False

    def read(self, opening: str, reader: Reader, calls: Calls) -> Wait[None]:
        if self.call_begin:
            yield from reader.space()
            yield from reader.expect(self.call_begin)
        while True:
            yield from self.read_call(reader, calls)
            yield from reader.space()
            yield from reader.match(self.call_ends)
            yield from reader.space()
            calls.drop_text()
            if not (yield from reader.match((self.call_begin,) if self.call_begin else self.openings)):
                break
        yield from reader.match(self.section_ends)
        yield from reader.space()

    def read_call(self, reader: Reader, calls: Calls) -> Wait[None]:
        """Read a name and arguments."""
        if self.head:
            yield from reader.expect(self.head)
        name, _ = yield from reader.word((self.name_end.strip(),))
        yield from self.read_arguments(reader, calls, name.strip())

    def read_arguments(self, reader: Reader, calls: Calls, name: str, call_id: str = "") -> Wait[None]:
        """Read the arguments, up to the closing bracket."""
        yield from reader.space()
        if (yield from reader.peek()) != "{":
            raise NotACallError
        calls.start(name, call_id)
        yield from read_value(reader, calls.add)
        calls.end()

    def write_grammar(self, lark: Lark, tools: Sequence[Tool], is_parallel: bool) -> str:
        end = f" {lark.space()} {lark.text(self.call_ends[0].lstrip())}" if self.call_ends else ""
        options = [f"{self.write_head(lark, tool)} {lark.json(closed(tool.parameters))}{end}" for tool in tools]
        call = lark.rule("call", "\n    | ".join(options))
        calls = f"{call} ({lark.space()} {call})*" if is_parallel else call
        if not self.call_begin:
            return calls
        section_end = f" {lark.space()} {lark.text(self.section_ends[0])}" if self.section_ends else ""
        return f"{lark.text(self.openings[0])} {lark.space()} {calls}{section_end}"

    def write_head(self, lark: Lark, tool: Tool) -> str:
        """What comes before the arguments of a call."""
        return lark.text((self.call_begin or self.openings[0]) + self.head + tool.name + self.name_end)


FUNCTIONARY_V31 = NamedFormat(
    "functionary-v3.1", ("<function=",), ">", call_ends=("</function>",), markers=("<function=", "</function>")
)
