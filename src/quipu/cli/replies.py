"""Following one answer: show it as it comes, stop it on Ctrl-C, keep what it was."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeAlias

from quipu.api import ChatEvent, EventStream
from quipu.cli.screen import Screen
from quipu.types import Event, FinishReason, Timings, ToolCall, ToolCallDelta, Usage

Answer: TypeAlias = EventStream[Event] | EventStream[ChatEvent]
"""A streamed answer: of a raw text, or of a conversation."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole or as far as it came.

    Attributes:
        text: the answer.
        reasoning: what the model thought before it.
        finish_reason: why it ended; ABORT where Ctrl-C stopped it.
        usage: tokens it cost; None where it was stopped before the first.
        timings: None where it was stopped.
        seed: the same seed gives the same answer; None where it was stopped.
        warnings: what the engine or the template had to say, each once.
        tool_calls: the tools that the model wants called.
    """

    text: str
    reasoning: str
    finish_reason: FinishReason
    usage: Usage | None
    timings: Timings | None
    seed: int | None
    warnings: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...] = ()


class Interrupt:
    """What Ctrl-C does at the moment.

    Attributes:
        pressed: whether it was pressed.
        raises: whether it raises KeyboardInterrupt at once, rather than being noticed after the next token.
    """

    def __init__(self) -> None:
        self.pressed = False
        self.raises = True


@contextmanager
def ctrl_c() -> Generator[Interrupt, None, None]:
    """Within the block, Ctrl-C is noted.

    While a long prompt is computed there is no token to wait for, so it raises KeyboardInterrupt, which the engine
    survives by dropping its requests. Once tokens come, the next is waited for, and the answer ends in good order. A
    second Ctrl-C always raises.
    """
    interrupt = Interrupt()

    def note(number: int, frame: FrameType | None) -> None:
        again = interrupt.pressed
        interrupt.pressed = True
        if again or interrupt.raises:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def follow(answer: Answer, screen: Screen) -> Reply:
    """Show a streamed answer until it ends or Ctrl-C is pressed.

    Raises:
        QuipuError: whatever the stream raises.
    """
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCallDelta] = []
    warnings: dict[str, None] = {}
    last: Event | None = None
    with ctrl_c() as interrupt, answer:
        try:
            for event in answer:
                interrupt.raises, last = False, event
                for warning in event.warnings:
                    if warning not in warnings:
                        screen.warn(warning)
                        warnings[warning] = None
                if isinstance(event, ChatEvent):
                    reasoning.append(event.reasoning)
                    screen.reasoning(event.reasoning)
                text.append(event.text)
                screen.answer(event.text)
                if isinstance(event, ChatEvent):
                    calls += event.tool_calls
                    for delta in event.tool_calls:
                        screen.tool_call(delta)
                if interrupt.pressed:
                    break
        except KeyboardInterrupt:
            pass  # what has come so far is the answer
        finally:
            screen.end()
    return Reply(
        "".join(text),
        "".join(reasoning),
        FinishReason.ABORT if last is None or last.finish_reason is None else last.finish_reason,
        None if last is None else last.usage,
        None if last is None else last.timings,
        None if last is None else last.seed,
        tuple(warnings),
        ToolCall.fold(calls),
    )
