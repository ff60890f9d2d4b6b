"""Functionary 3.2: an answer is a row of messages, each to a recipient: `all`, or a tool.

The prompt ends with the mark of the first:

    >>>all
    Let me look.>>>get_weather
    {"city": "Rome"}
"""

from __future__ import annotations

from collections.abc import Sequence

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool, ToolChoice
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.reader import NotACallError, Reader, Wait
from quipu.chat.tools.schemas import closed
from quipu.chat.tools.values import read_value

_MARK = ">>>"
_EVERYBODY = "all"


class FunctionaryFormat(ToolFormat):
    """Messages to `all` are text."""

    name = "functionary-v3.2"
    openings = (_MARK,)
    markers = (_MARK,)

    def read(self, opening: str, reader: Reader, calls: Calls) -> Wait[None]:
        recipient, _ = yield from reader.word(("\n",))
        if recipient == _EVERYBODY:
            calls.drop_text()
            return
        if recipient not in calls.tools or (yield from reader.peek()) != "{":
            raise NotACallError
        calls.start(recipient)
        yield from read_value(reader, calls.add)
        calls.end()
        yield from reader.space()

    def write_grammar(self, lark: Lark, tools: Sequence[Tool], is_parallel: bool) -> str:
        call = self._write_call(lark, tools)
        more = f" ({lark.text(_MARK)} {call})*" if is_parallel else ""
        return f"{lark.text(_MARK)} {call}{more}"

    def write_whole_grammar(self, lark: Lark, tools: Sequence[Tool], choice: ToolChoice, prompt: str) -> str:
        """An answer always begins with a recipient, and often behind a mark that the prompt has written."""
        call, mark = self._write_call(lark, tools), lark.text(_MARK)
        more = f" ({mark} {call})*" if choice.is_parallel else ""
        calls = f"{call}{more}"
        if choice.mode == "auto":
            # text may be followed by calls, and then ends with a mark
            lark.rule("text", f"{lark.text(_EVERYBODY + chr(10))} {lark.any_text()}")
            spoken = lark.rule("spoken", f"{lark.text(_EVERYBODY + chr(10))} {lark.up_to(_MARK)}")
            calls = f"({calls} | {spoken} {calls} | text)"
        return calls if self.begun_by(prompt) else f"{mark} {calls}"

    def _write_call(self, lark: Lark, tools: Sequence[Tool]) -> str:
        options = [f"{lark.text(tool.name + chr(10))} {lark.json(closed(tool.parameters))}" for tool in tools]
        return lark.rule("call", "\n    | ".join(options))

    def begun_by(self, prompt: str) -> str:
        return _MARK if prompt.endswith(_MARK) else ""


FUNCTIONARY = FunctionaryFormat()
