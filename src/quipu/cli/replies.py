"""Following one answer: show it as it comes, stop it on Ctrl-C, keep what it was."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeAlias

from quipu.api import ChatEvent
from quipu.cli.screen import Screen
from quipu.types import Event, FinishReason, Timings, Usage


Piece: TypeAlias = Event | ChatEvent
"""What a stream yields."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole or as far as it came.

    Attributes:
        text: the answer.
        reasoning: what the model thought before it.
        finish_reason: why it ended; ABORT where Ctrl-C stopped it.
        usage: tokens it cost; None where it was stopped before the first.
        timings: None where it was stopped.
        warnings: what the engine or the template had to say, each once.
    """

    text: str
    reasoning: str
    finish_reason: FinishReason
    usage: Usage | None
    timings: Timings | None
    warnings: tuple[str, ...]


class Interrupt:
    """Whether Ctrl-C was pressed."""

    pressed = False


@contextmanager
def ctrl_c() -> Generator[Interrupt, None, None]:
    """Within the block, Ctrl-C sets a flag: a step of the engine must not be torn apart by an exception.

    A second Ctrl-C, while the first has not yet been noticed, raises KeyboardInterrupt after all.
    """
    interrupt = Interrupt()

    def note(number: int, frame: FrameType | None) -> None:
        if interrupt.pressed:
            raise KeyboardInterrupt
        interrupt.pressed = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def follow(events: Iterator[Piece], screen: Screen) -> Reply:
    """Show a streamed answer until it ends or Ctrl-C is pressed.

    Raises:
        QuipuError: whatever the stream raises.
    """
    text: list[str] = []
    reasoning: list[str] = []
    warnings: dict[str, None] = {}
    last: Piece | None = None
    with ctrl_c() as interrupt:
        try:
            for event in events:
                last = event
                for warning in event.warnings:
                    if warning not in warnings:
                        screen.warn(warning)
                        warnings[warning] = None
                thought = event.reasoning if isinstance(event, ChatEvent) else ""
                screen.reasoning(thought)
                screen.answer(event.text)
                reasoning.append(thought)
                text.append(event.text)
                if interrupt.pressed:
                    break
        finally:
            events.close()  # ends the request in the engine
            screen.end()
    finish_reason = FinishReason.ABORT if last is None or last.finish_reason is None else last.finish_reason
    return Reply(
        "".join(text),
        "".join(reasoning),
        finish_reason,
        last.usage if last is not None else None,
        last.timings if last is not None else None,
        tuple(warnings),
    )
