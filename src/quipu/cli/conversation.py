"""What has been said so far, and how the model is asked for the next answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quipu.api import LLM
from quipu.cli.replies import Answer
from quipu.errors import UsageError
from quipu.types import ConstraintSpec, SamplingParams, ToolCall


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer. The answer is partial where it was stopped.

    Attributes:
        question: what the user said; after an answer that calls tools, what those answered.
        answer: the text of the answer.
        tool_calls: the tools that it calls.
    """

    question: str
    answer: str
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass
class Conversation(ABC):
    """The turns so far, the oldest first.

    Attributes:
        llm: the open model.
        turns: what was asked and answered.
        constraint: what every answer must look like.
    """

    llm: LLM
    turns: list[Turn] = field(default_factory=list)
    constraint: ConstraintSpec | None = None

    @abstractmethod
    def ask(self, question: str, sampling: SamplingParams, variables: Mapping[str, Any]) -> Answer:
        """Stream the answer to `question`, which is not yet among the turns.

        Raises:
            QuipuError: the prompt does not fit the context, the template refuses the messages, ...
        """

    @abstractmethod
    def set_system(self, text: str | None) -> None:
        """Replace the system message; None removes it.

        Raises:
            UsageError: this kind of conversation has none.
        """

    @property
    @abstractmethod
    def system(self) -> str | None:
        """The system message, or None."""

    def add(self, question: str, answer: str, tool_calls: tuple[ToolCall, ...] = ()) -> None:
        """Keep a turn that has been answered."""
        self.turns.append(Turn(question, answer, tool_calls))

    def clear(self) -> None:
        """Forget all turns. The system message stays."""
        self.turns.clear()

    def drop(self, num_turns: int) -> int:
        """Forget the oldest turns and return how many there were to forget."""
        dropped = min(num_turns, len(self.turns))
        del self.turns[:dropped]
        return dropped


@dataclass
class ChatConversation(Conversation):
    """A conversation through the model's chat template."""

    _system: str | None = None

    @property
    def system(self) -> str | None:
        return self._system

    def set_system(self, text: str | None) -> None:
        self._system = text or None

    def messages(self, question: str) -> list[dict[str, Any]]:
        """The messages that ask `question`, or that hand it on as what the tools of the last answer said."""
        messages: list[dict[str, Any]] = []
        if self._system is not None:
            messages.append({"role": "system", "content": self._system})
        waiting: tuple[ToolCall, ...] = ()
        for turn in self.turns:
            messages += _said(turn.question, waiting)
            answer: dict[str, Any] = {"role": "assistant", "content": turn.answer}
            if turn.tool_calls:
                answer["tool_calls"] = [_call_message(call) for call in turn.tool_calls]
            messages.append(answer)
            waiting = turn.tool_calls
        return [*messages, *_said(question, waiting)]

    def ask(self, question: str, sampling: SamplingParams, variables: Mapping[str, Any]) -> Answer:
        return self.llm.chat(self.messages(question), sampling, stream=True, constraint=self.constraint, **variables)


@dataclass
class TextConversation(Conversation):
    """A text that the user and the model write in turns, for models that know no chat."""

    @property
    def system(self) -> str | None:
        return None

    def set_system(self, text: str | None) -> None:
        raise UsageError("raw text has no system message; choose a chat template with --chat-template NAME")

    def ask(self, question: str, sampling: SamplingParams, variables: Mapping[str, Any]) -> Answer:
        text = "".join(turn.question + turn.answer for turn in self.turns)
        return self.llm.generate(text + question, sampling, stream=True, parse_special=True, constraint=self.constraint)


def _said(text: str, waiting: tuple[ToolCall, ...]) -> list[dict[str, Any]]:
    """What the user typed: a question, or the result of each call that waits for one."""
    if not waiting:
        return [{"role": "user", "content": text}]
    return [{"role": "tool", "tool_call_id": call.id, "content": text} for call in waiting]


def _call_message(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
