"""What has been made of an answer so far: text, and tool calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from quipu.chat.tools.definitions import Tool
from quipu.chat.tools.reader import SPACE, NotACallError, Reader
from quipu.types import ToolCallDelta


class ToolDelta(NamedTuple):
    """What a piece of text added."""

    content: str
    tool_calls: tuple[ToolCallDelta, ...]


class Output:
    """What became certain since it was last taken."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._space: list[str] = []  # white space that is dropped if a call follows
        self._calls: list[ToolCallDelta] = []
        self._pieces: list[str] = []  # of the arguments of the last delta

    def add_text(self, text: str, is_end: bool = False) -> None:
        kept = text.rstrip(SPACE)
        if kept or is_end:
            self._content += self._space
            self._content.append(kept)
            self._space = []
        self._space.append(text[len(kept) :])

    def take_space(self) -> str:
        """The white space that was held back, which is no content now."""
        space, self._space = "".join(self._space), []
        return space

    def add_call(self, delta: ToolCallDelta) -> None:
        last = self._calls[-1] if self._calls else None
        if last is None or last.index != delta.index or delta.is_withdrawn:
            self._join_pieces()
            self._calls.append(delta)
        self._pieces.append(delta.arguments)

    def _join_pieces(self) -> None:
        if self._calls:
            self._calls[-1] = replace(self._calls[-1], arguments="".join(self._pieces))
        self._pieces = []

    def take(self) -> ToolDelta:
        self._join_pieces()
        delta = ToolDelta("".join(self._content), tuple(self._calls))
        self._content, self._calls = [], []
        return delta


class Calls:
    """Where formats put the calls they read.

    Attributes:
        tools: those that were offered, by name.
        has_result: whether something has been made of the text since the opening.
        num_whole: how many whole calls there were so far.
    """

    def __init__(self, reader: Reader, output: Output, tools: Sequence[Tool], new_id: Callable[[str], str]) -> None:
        self._reader = reader
        self._output = output
        self.tools = {tool.name: tool for tool in tools}
        self._new_id = new_id
        self._index = -1
        self._is_open = False
        self._ids: set[str] = set()
        self.has_result = False
        self.num_whole = 0

    def start(self, name: str, call_id: str = "") -> None:
        """A call begins.

        Args:
            name: of the tool.
            call_id: as the model wrote it, where it did and the template wants it back.

        Raises:
            NotACallError: there is no name.
        """
        if not name.strip():
            raise NotACallError
        assert not self._is_open, "a call begins within a call"
        if not call_id or call_id in self._ids:
            call_id = self._new_id(name)
        self._ids.add(call_id)
        self._index += 1
        self._is_open = True
        self._output.add_call(ToolCallDelta(self._index, call_id, name))

    def add(self, arguments: str) -> None:
        """A piece of the arguments of the call."""
        if arguments:
            self._output.add_call(ToolCallDelta(self._index, arguments=arguments))

    def end(self) -> None:
        """The arguments of the call are whole. What was read so far is no text."""
        self._is_open = False
        self.num_whole += 1
        self.drop_text()

    def drop_text(self) -> None:
        """What was read so far is no text."""
        self.has_result = True
        self._reader.start_record()

    def withdraw(self) -> None:
        """The call that has begun is none."""
        if self._is_open:
            self._is_open = False
            self._output.add_call(ToolCallDelta(self._index, is_withdrawn=True))
