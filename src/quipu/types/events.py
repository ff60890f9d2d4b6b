"""What the engine answers, and what answers come to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FinishReason(StrEnum):
    """Why a request ended."""

    STOP = "stop"  # an end-of-generation token or a stop string
    LENGTH = "length"  # max_tokens reached, or the context is full
    TOOL_CALLS = "tool_calls"  # the answer calls tools and waits for their results; chat only
    ABORT = "abort"  # the caller went away
    ERROR = "error"  # an internal failure
    DEADLINE = "deadline"  # the request's deadline has passed, or could not have been met


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """How likely one token was.

    Attributes:
        token_id: the token.
        logprob: natural logarithm of its probability.
        top: (token id, logprob) of the most likely tokens at its place, the most likely first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a request cost.

    Attributes:
        prompt_tokens, completion_tokens: of the prompt, and generated.
        cached_tokens: of the prompt, not computed again.
        drafted_tokens: guesses that were checked; see `Speculation`.
        accepted_tokens: of these, such as came true.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a request went, in seconds."""

    queue_s: float
    prompt_s: float
    generation_s: float


class ReuseLimit(StrEnum):
    """Why no more tokens of a prompt came from the prefix cache."""

    LAST_TOKEN = "last_token"  # all but the last did, which is always computed
    NEW = "new"  # what is cached ends there
    DIFFERS = "differs"  # what is cached goes on in another way
    NO_COMMON_PREFIX = "no_common_prefix"  # nothing that the tenant may see begins like it
    PAGE_BORDER = "page_border"  # pages are shared whole
    EVICTED = "evicted"  # it was cached, and gave way to other requests
    PROMPT_LOGITS = "prompt_logits"  # asked for, hence computed
    OFF = "off"  # the cache is off, for the request or at all


@dataclass(frozen=True, slots=True)
class Reuse:
    """What the prefix cache did for a request.

    Attributes:
        cached_tokens: tokens of the prompt that were not computed again.
        limit: why not more.
        reason: the same as a sentence, with numbers.
    """

    cached_tokens: int
    limit: ReuseLimit
    reason: str


@dataclass(frozen=True, slots=True)
class Event:
    """What one engine step added to one choice of a request. The last event of each choice has a finish_reason.

    Attributes:
        request_id: the request it belongs to.
        token_ids: token ids generated since the last event.
        text: text that became final since the last event; never splits a character or a stop string.
        finish_reason: None while the request runs.
        usage: tokens so far.
        timings: set on the last event.
        warnings: anything the user should know (an ignored option, a fall-back).
        seed: the seed in use; set on the last event.
        error: one sentence that says what went wrong, where finish_reason is ERROR or DEADLINE.
        error_field: where the request itself was at fault, the name of the field that is wrong.
        logits: float32 [tokens, vocab], the logits of the prompt tokens that this step computed, where asked for.
        choice: which of the request's choices it belongs to, from 0.
        reuse: what the prefix cache did for the prompt; None until the request has begun.
        logprobs: one for each of `token_ids`, where asked for.
        prompt_logprobs: of the prompt tokens whose logprobs this step found, where asked for; the first has none.
        embedding: float32, where the request asked for it, with the last event: [length], [tokens, length] without
            pooling, [scores] of a rank.
    """

    request_id: str
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason | None
    usage: Usage
    timings: Timings | None = None
    warnings: tuple[str, ...] = ()
    seed: int | None = None
    error: str = ""
    error_field: str = ""
    logits: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    choice: int = 0
    reuse: Reuse | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    embedding: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """What an event adds to one tool call. The first delta of a call brings its id and name.

    Attributes:
        index: counts the calls of one answer.
        id: names the call, for the message with its result.
        name: of the tool.
        arguments: the next piece of the arguments; the pieces of a call make up one JSON object.
        is_withdrawn: it was no call after all, and all of its text is in the event's `text`.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    is_withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants called.

    Attributes:
        id: names the call, for the message with its result.
        name: of the tool.
        arguments: a JSON object, as text.
    """

    id: str
    name: str
    arguments: str

    @staticmethod
    def fold(deltas: Iterable[ToolCallDelta]) -> tuple[ToolCall, ...]:
        """The calls that deltas come to."""
        by_index: dict[int, list[ToolCallDelta]] = {}
        for delta in deltas:
            by_index.setdefault(delta.index, []).append(delta)
        return tuple(
            ToolCall(of_one[0].id, of_one[0].name, "".join(delta.arguments for delta in of_one))
            for of_one in by_index.values()
            if not of_one[-1].is_withdrawn
        )


@dataclass(frozen=True, slots=True)
class ChatEvent(Event):
    """An event of a chat: `text` is the answer only.

    Attributes:
        reasoning: what the model thought aloud since the last event.
        tool_calls: what was added to the tool calls since the last event, in order.
    """

    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a request came to.

    Attributes:
        text: the generated text, without stop strings.
        token_ids: all generated tokens, the one that ended the generation included.
        finish_reason: why it ended.
        usage: tokens it cost.
        timings: where its time went.
        seed: the one in use; the same seed gives the same text.
        reasoning: what the model thought before it answered; chat only.
        warnings: what the user should know, each once.
        error: one sentence, where finish_reason is ERROR or DEADLINE.
        reuse: what the prefix cache did for the prompt; None where the request never began.
        logprobs: one for each of `token_ids`, where asked for.
        prompt_logprobs: of the prompt from its second token on, where asked for.
        tool_calls: the tools that the model wants called; chat only.
        other_choices: the further continuations, where `RequestOptions.num_choices` asked for several.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings | None
    seed: int | None
    reasoning: str = ""
    warnings: tuple[str, ...] = ()
    error: str = ""
    reuse: Reuse | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    other_choices: tuple[Completion, ...] = ()

    @property
    def choices(self) -> tuple[Completion, ...]:
        """Every continuation of the prompt, this one first."""
        return (self, *self.other_choices)

    @classmethod
    def of(cls, events: Sequence[Event]) -> Completion:
        """What all events of a request come to, the last of each of its choices included."""
        by_choice: dict[int, list[Event]] = {}
        for event in events:
            by_choice.setdefault(event.choice, []).append(event)
        first, *others = [cls._of_choice(by_choice[choice]) for choice in sorted(by_choice)]
        return dataclasses.replace(first, other_choices=tuple(others)) if others else first

    @classmethod
    def _of_choice(cls, events: Sequence[Event]) -> Completion:
        last = events[-1]
        assert last.finish_reason is not None
        return cls(
            "".join(event.text for event in events),
            tuple(token_id for event in events for token_id in event.token_ids),
            last.finish_reason,
            last.usage,
            last.timings,
            last.seed,
            "".join(event.reasoning for event in events if isinstance(event, ChatEvent)),
            tuple(dict.fromkeys(warning for event in events for warning in event.warnings)),
            last.error,
            last.reuse,
            tuple(logprobs for event in events for logprobs in event.logprobs),
            tuple(logprobs for event in events for logprobs in event.prompt_logprobs),
            ToolCall.fold(delta for event in events if isinstance(event, ChatEvent) for delta in event.tool_calls),
        )
