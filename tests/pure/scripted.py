"""A stand-in for `LLM` that says what a script tells it, for tests of the command line.

A "token" is a word. Everything else (events, usage, the error of a full context) is as the real one does it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quipu.api import ChatEvent
from quipu.cli.describe import ModelFacts
from quipu.errors import ContextLengthError
from quipu.types import ConstraintSpec, FinishReason, SamplingParams, Timings, Usage

INTERRUPT = "\x03"  # in a scripted answer: Ctrl-C is pressed here

FACTS = ModelFacts(
    path="/models/scripted.gguf",
    name="Scripted",
    description="",
    architecture="llama",
    num_parameters=1_235_814_432,
    file_bytes=807_694_464,
    tensor_type="Q4_K",
    context_length=4096,
    template="{{ messages }}",
    license="mit",
)


@dataclass
class ScriptedLLM:
    """Answers with the next of `answers`; a pair is (reasoning, answer)."""

    answers: Sequence[str | tuple[str, str]]
    ctx_size: int = 100
    threads: int = 2
    threads_batch: int = 2
    event_warnings: tuple[str, ...] = ()
    asked: list[Any] = field(default_factory=list)
    sampling: list[SamplingParams] = field(default_factory=list)
    variables: list[Mapping[str, Any]] = field(default_factory=list)
    constraints: list[ConstraintSpec | None] = field(default_factory=list)
    options: list[Mapping[str, Any]] = field(default_factory=list)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    load_warnings: tuple[str, ...] = ()
    closed_streams: int = 0
    path: Path = Path(FACTS.path)
    context_shift: bool = False
    default_sampling: SamplingParams = field(default_factory=SamplingParams)

    def chat(
        self,
        messages: list[dict[str, str]],
        sampling: SamplingParams | None = None,
        *,
        stream: bool,
        constraint: ConstraintSpec | None = None,
        **variables: Any,
    ) -> ScriptedStream:
        assert stream
        self.constraints.append(constraint)
        self.variables.append(variables)
        return self._stream(messages, " ".join(message["content"] for message in messages), sampling)

    def generate(
        self,
        prompt: str,
        sampling: SamplingParams | None = None,
        *,
        stream: bool,
        constraint: ConstraintSpec | None = None,
        **options: Any,
    ) -> ScriptedStream:
        assert stream
        self.constraints.append(constraint)
        self.options.append(options)
        return self._stream(prompt, prompt, sampling)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.load_warnings

    def close(self) -> None: ...

    def __enter__(self) -> ScriptedLLM:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def _stream(self, asked: Any, text: str, sampling: SamplingParams | None) -> ScriptedStream:
        num_prompt_tokens = len(text.split())
        if num_prompt_tokens >= self.ctx_size:
            raise ContextLengthError(num_prompt_tokens, self.ctx_size)
        self.asked.append(asked)
        self.sampling.append(sampling or SamplingParams())
        script = self.answers[len(self.asked) - 1]
        reasoning, answer = ("", script) if isinstance(script, str) else script
        return ScriptedStream(self, self._events(num_prompt_tokens, reasoning, answer, self.sampling[-1].max_tokens))

    def _events(
        self, num_prompt: int, reasoning: str, answer: str, max_tokens: int | None
    ) -> Generator[ChatEvent, None, None]:
        pieces = [(word, "") for word in _words(reasoning)] + [("", word) for word in _words(answer)]
        room = self.ctx_size - num_prompt if max_tokens is None else min(max_tokens, self.ctx_size - num_prompt)
        for count, (thought, word) in enumerate(pieces[:room], start=1):
            if INTERRUPT in word:
                os.kill(os.getpid(), signal.SIGINT)
                word = word.replace(INTERRUPT, "")
            last = count == min(len(pieces), room)
            reason = FinishReason.STOP if len(pieces) <= room else FinishReason.LENGTH
            yield ChatEvent(
                request_id="1",
                token_ids=(count,),
                text=word,
                reasoning=thought,
                finish_reason=reason if last else None,
                usage=Usage(num_prompt, count),
                timings=Timings(0.0, 0.5, 2.0) if last else None,
                seed=7 if last else None,
                warnings=self.event_warnings if count == 1 else (),
            )


class ScriptedStream:
    """The events of one answer; counts being closed."""

    def __init__(self, llm: ScriptedLLM, events: Generator[ChatEvent, None, None]) -> None:
        self._llm = llm
        self._events = events

    def __iter__(self) -> ScriptedStream:
        return self

    def __next__(self) -> ChatEvent:
        return next(self._events)

    def __enter__(self) -> ScriptedStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self._events.close()
        self._llm.closed_streams += 1


def _words(text: str) -> list[str]:
    """The words of `text`, each with the space before it."""
    words = text.split(" ") if text else []
    return [word if number == 0 else f" {word}" for number, word in enumerate(words)]
