"""The text of an answer as reasoning, content and tool calls, while it is being written."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from quipu.chat.reasoning import ReasoningParser
from quipu.chat.tools import ToolParser
from quipu.types import ChatEvent, Event, FinishReason, ToolCallDelta

_EVENT_FIELDS = tuple(field.name for field in dataclasses.fields(Event))


class AnswerDelta(NamedTuple):
    """What a piece of text added."""

    reasoning: str
    content: str
    tool_calls: tuple[ToolCallDelta, ...]


class AnswerParser:
    """Takes the text of an answer as it is generated: `append` any number of times, then `flush` once.

    Args:
        reasoning: splits reasoning from content.
        tools: splits content into text and tool calls; None where no tools were offered.
        markers: texts that must not be hidden when tokens are decoded, although they may be control tokens.
    """

    def __init__(self, reasoning: ReasoningParser, tools: ToolParser | None, markers: tuple[str, ...]) -> None:
        self._reasoning = reasoning
        self._tools = tools
        self.markers = markers

    @property
    def answer_triggers(self) -> tuple[str, ...]:
        """The texts, one of which comes before the answer; none where the answer may begin at once."""
        return self._reasoning.answer_triggers

    @property
    def calls_tools(self) -> bool:
        """Whether there was a whole tool call so far."""
        return self._tools is not None and self._tools.num_calls > 0

    def append(self, text: str) -> AnswerDelta:
        """Take more text; returns what became certain."""
        reasoning, content = self._reasoning.append(text)
        if self._tools is None:
            return AnswerDelta(reasoning, content, ())
        return AnswerDelta(reasoning, *self._tools.append(content))

    def flush(self) -> AnswerDelta:
        """What was held back, once the text has ended."""
        reasoning, content = self._reasoning.flush()
        if self._tools is None:
            return AnswerDelta(reasoning, content, ())
        text, calls = self._tools.append(content)
        rest, last_calls = self._tools.flush()
        return AnswerDelta(reasoning, text + rest, calls + last_calls)


class Answer:
    """Turns the engine's events of one choice of a chat request into chat events.

    Args:
        parser: of the answer.
        warnings: what the user should know, for the first event.
    """

    def __init__(self, parser: AnswerParser, warnings: tuple[str, ...]) -> None:
        self._parser = parser
        self._warnings = warnings

    def translate(self, event: Event) -> ChatEvent:
        """The chat event for the next event of the engine."""
        reasoning, text, calls = self._parser.append(event.text)
        finish_reason = event.finish_reason
        if finish_reason is not None:
            rest = self._parser.flush()
            reasoning, text, calls = reasoning + rest.reasoning, text + rest.content, calls + rest.tool_calls
            if finish_reason is FinishReason.STOP and self._parser.calls_tools:
                finish_reason = FinishReason.TOOL_CALLS
        warnings, self._warnings = self._warnings + event.warnings, ()
        kept = {name: getattr(event, name) for name in _EVENT_FIELDS}
        kept |= {"text": text, "finish_reason": finish_reason, "warnings": warnings}
        return ChatEvent(**kept, reasoning=reasoning, tool_calls=calls)
