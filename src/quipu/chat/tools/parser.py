"""Splits an answer into text and tool calls while it is being written.

What stands between the marks of a call and does not parse is text, mark and all: no text is lost, apart from white
space around calls. How the text is cut into pieces makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quipu.chat.tools.calls import Calls, Output, ToolDelta
from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.format import ToolFormat
from quipu.chat.tools.reader import NotACallError, Reader, Wait


class ToolParser:
    """Takes text as it is generated: `append` any number of times, then `flush` once.

    Args:
        tool_format: how the model writes calls.
        tools: those that were offered. Formats without marks of their own see a call only where a known name stands.
        new_id: gives the id of a call to a tool, where the model writes none.
        prompt: the rendered prompt, which may end with the mark of a call.
    """

    def __init__(
        self, tool_format: ToolFormat, tools: Sequence[Tool], new_id: Callable[[str], str], prompt: str = ""
    ) -> None:
        self._reader = Reader()
        self._output = Output()
        self._calls = Calls(self._reader, self._output, tools, new_id)
        self._run = self._read(tool_format, tool_format.begun_by(prompt))

    @property
    def num_calls(self) -> int:
        """How many whole calls there were so far."""
        return self._calls.num_whole

    def append(self, text: str) -> ToolDelta:
        """Take more text; returns what became certain. What may be the beginning of a mark is held back."""
        if text:
            self._reader.feed(text)
            next(self._run)
        return self._output.take()

    def flush(self) -> ToolDelta:
        """What was held back, once the text has ended."""
        self._reader.end()
        for _ in self._run:
            raise AssertionError("the text has ended, so there is nothing to wait for")
        return self._output.take()

    def _read(self, tool_format: ToolFormat, begun_by: str) -> Wait[None]:
        reader, output = self._reader, self._output
        if begun_by:
            yield from self._try_calls(tool_format, begun_by, "")
        elif tool_format.first_openings:
            space = yield from reader.space()
            opening = yield from reader.match(tool_format.first_openings)
            if opening:
                yield from self._try_calls(tool_format, opening, space + opening)
            else:
                output.add_text(space)
        while True:
            opening = yield from reader.until(tool_format.openings, output.add_text)
            if not opening:
                break
            yield from self._try_calls(tool_format, opening, output.take_space() + opening)
        output.add_text("", is_end=True)

    def _try_calls(self, tool_format: ToolFormat, opening: str, record: str) -> Wait[None]:
        """Read calls after an opening; what turns out to be none becomes text."""
        reader, calls = self._reader, self._calls
        reader.start_record(record)
        calls.has_result = False
        try:
            yield from tool_format.read(opening, reader, calls)
            is_read = calls.has_result
        except NotACallError:
            is_read = False
        calls.withdraw()
        rest = reader.end_record()
        if not is_read:
            self._output.add_text(rest)
