"""gpt-oss: a call is a message to a tool on the channel `commentary` (the Harmony format).

    <|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}
    <|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Rome"}<|call|>

The reasoning parser leaves such messages in the content as they are, and takes the headers of all others away.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from quipu.chat.tools.calls import Calls
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.lark import Lark
from quipu.chat.tools.reader import NotACallError, Reader, Wait
from quipu.chat.tools.schemas import closed
from quipu.chat.tools.values import read_value

_START, _CHANNEL, _CONSTRAIN, _MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
_ENDS = ("<|call|>", "<|end|>", "<|return|>")
_RECIPIENT = re.compile(r"to=functions\.([^\s<]+)")
_MAX_HEADER_CHARS = 500


class HarmonyFormat(ToolFormat):
    """Messages to built-in tools (`python`, `browser.search`) stay text: their bodies are not JSON."""

    name = "harmony"
    openings = (_START, _CHANNEL)
    first_openings = ("to=",)
    markers = (_START, _CHANNEL, _CONSTRAIN, _MESSAGE, *_ENDS)

    def read(self, opening: str, reader: Reader, calls: Calls) -> Wait[None]:
        header, _ = yield from reader.word((_MESSAGE,), max_chars=_MAX_HEADER_CHARS)
        found = _RECIPIENT.search(opening + header)
        yield from reader.space()
        if found is None or (yield from reader.peek()) != "{":
            raise NotACallError
        calls.start(found[1])
        yield from read_value(reader, calls.add)
        calls.end()
        yield from reader.space()
        yield from reader.match(_ENDS)
        yield from reader.space()

    def write_grammar(self, lark: Lark, tools: Sequence[Tool], is_parallel: bool) -> str:
        """One call: the model waits for its result before it writes another."""
        constrain = f"({lark.text(f' {_CONSTRAIN}')} | {lark.text(_CONSTRAIN)} | {lark.text(' ')})?"
        options = []
        for tool in tools:
            recipient = f" to=functions.{tool.name}"
            commentary = f"{_CHANNEL}commentary"
            head = f"({lark.text(commentary + recipient)} | {lark.text(recipient)} ({lark.text(commentary)})?)"
            schema = lark.json(closed(tool.parameters))
            options.append(f'{head} ({constrain} "json")? {lark.text(_MESSAGE)} {schema}')
        call = lark.rule("call", "\n    | ".join(options))
        start = lark.text(f"{_START}assistant")
        thought = lark.rule("thought", f"{lark.text(f'{_CHANNEL}analysis{_MESSAGE}')} {lark.up_to('<|end|>')} {start}")
        return f"({start})? {thought}* {call}"

    def triggers(self, tools: Sequence[Tool]) -> tuple[str, ...]:
        """A recipient may stand on either side of the channel, so only what names one is certain."""
        return (" to=functions.",)


HARMONY = HarmonyFormat()
