"""Values shared by three or more packages. All are frozen; anything used by fewer lives elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from quipu.errors import InvalidRequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FinishReason(StrEnum):
    """Why a request ended."""

    STOP = "stop"  # an end-of-generation token or a stop string
    LENGTH = "length"  # max_tokens reached, or the context is full
    ABORT = "abort"  # the caller went away
    ERROR = "error"  # an internal failure


class Pooling(StrEnum):
    """How the vectors of a text's tokens become its embedding."""

    NONE = "none"  # they stay: one vector per token
    MEAN = "mean"
    CLS = "cls"  # the first token's
    LAST = "last"
    RANK = "rank"  # the first token's, through the classification head, to scores


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. Defaults and the order of steps are llama.cpp's.

    A step whose parameter has its "off" value (in brackets) is left out of the chain.

    Attributes:
        max_tokens: most tokens to generate; None means until the context is full.
        temperature: divides the logits; 0 or less is greedy.
        top_k: keep the k most likely tokens [0].
        top_p: keep the smallest set whose probability reaches p [1].
        min_p: keep tokens at least this fraction as likely as the best [0].
        typical_p: locally typical sampling, arXiv:2202.00666 [1].
        repeat_penalty: divides (or multiplies, when negative) the logits of recent tokens [1].
        presence_penalty: subtracted from the logit of each recent token [0].
        frequency_penalty: subtracted once per recent occurrence [0].
        repeat_last_n: how many tokens count as recent; 0 none, -1 the whole context.
        seed: None draws one at random; the seed used is reported with the result.
        logit_bias: token id -> amount added to its logit; -inf forbids the token.
        stop: strings that end the generation; they are not part of the text. Where several fit, the one that is
            complete first counts.
        stop_token_ids: further token ids that end the generation.
        ignore_eos: go on after an end-of-generation token.
        min_keep: truncation steps keep at least this many tokens.
        min_tokens: until so many tokens are generated, those that end the generation are forbidden and stop strings
            are not looked for.
    """

    max_tokens: int | None = None
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_last_n: int = 64
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_keep: int = 1
    min_tokens: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        for name in _FLOAT_FIELDS:
            value = getattr(self, name)
            _require(_is_number(value) and abs(value) <= _LARGEST, name, f"a number up to {_LARGEST:g}", value)
        for name in ("top_k", "repeat_last_n", "min_keep", "min_tokens"):
            value = getattr(self, name)
            _require(
                _is_whole(value) and value <= _LARGEST_COUNT, name, f"a whole number up to {_LARGEST_COUNT}", value
            )
        _require(
            self.max_tokens is None or (_is_whole(self.max_tokens) and self.max_tokens >= 0),
            "max_tokens",
            "0 or more, or None",
            self.max_tokens,
        )
        _require(self.top_k >= 0, "top_k", "0 (off) or more", self.top_k)
        for name in ("top_p", "min_p", "typical_p"):
            _require(0.0 <= getattr(self, name) <= 1.0, name, "between 0 and 1", getattr(self, name))
        _require(
            self.repeat_penalty >= 1 / _LARGEST, "repeat_penalty", f"at least {1 / _LARGEST:g}", self.repeat_penalty
        )
        _require(self.repeat_last_n >= -1, "repeat_last_n", "-1 (whole context), 0 (off) or more", self.repeat_last_n)
        _require(self.min_keep >= 1, "min_keep", "1 or more", self.min_keep)
        _require(self.min_tokens >= 0, "min_tokens", "0 or more", self.min_tokens)
        _require(self.seed is None or _is_whole(self.seed), "seed", "a whole number or None", self.seed)
        self._check_stops()
        for token_id, bias in self.logit_bias.items():
            _require(_is_whole(token_id), "logit_bias", "keyed by token ids", token_id)
            is_amount = bias == -math.inf or (_is_number(bias) and abs(bias) <= _LARGEST_BIAS)
            _require(is_amount, "logit_bias", f"amounts up to {_LARGEST_BIAS:g}, or -inf", bias)

    def _check_stops(self) -> None:
        _require(all(_is_whole(token) for token in self.stop_token_ids), "stop_token_ids", "token ids", None)
        _require(
            all(isinstance(text, str) and text for text in self.stop), "stop", "made of non-empty strings", self.stop
        )
        _require(len(self.stop) <= _MAX_STOPS, "stop", f"at most {_MAX_STOPS} strings", len(self.stop))
        longest = max(map(len, self.stop), default=0)
        _require(longest <= _MAX_STOP_LENGTH, "stop", f"of strings up to {_MAX_STOP_LENGTH} characters", longest)


_FLOAT_FIELDS = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
)
_LARGEST_BIAS = 1e30
_LARGEST_COUNT = 2**31 - 1
_LARGEST = 1e6  # far beyond what has an effect; keeps float32 arithmetic on logits finite
_MAX_STOPS = 256  # every generated token is compared with each of them
_MAX_STOP_LENGTH = 1024


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(condition: bool, field_name: str, expected: str, value: object) -> None:
    if not condition:
        raise InvalidRequestError(f"{field_name} must be {expected}, not {value!r}", field=field_name)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a request cost."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a request went, in seconds."""

    queue_s: float
    prompt_s: float
    generation_s: float


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how to continue it, as the engine receives it.

    Attributes:
        request_id: unique within the engine.
        prompt_token_ids: at least one token id.
        sampling: how tokens are chosen and when to stop.
        prompt_logits: also deliver the logits of every prompt token, in the events' `logits`.
        shown_tokens: control tokens that the text of the events shows, such as the tags around reasoning, and how.
        pooling: give the embedding of the prompt, pooled this way, instead of generating; `max_tokens` is 0 then.
        token_types: for a pair of texts which of them each token is of; empty: all 0.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    prompt_logits: bool = False
    shown_tokens: Mapping[int, str] = field(default_factory=dict)
    pooling: Pooling | None = None
    token_types: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """What one engine step added to one request. The last event has a finish_reason.

    Attributes:
        request_id: the request it belongs to.
        token_ids: token ids generated since the last event.
        text: text that became final since the last event; never splits a character or a stop string.
        finish_reason: None while the request runs.
        usage: tokens so far.
        timings: set on the last event.
        warnings: anything the user should know (an ignored option, a fall-back).
        seed: the seed in use; set on the last event.
        error: one sentence that says what went wrong, where finish_reason is ERROR.
        logits: float32 [tokens, vocab], the logits of the prompt tokens that this step computed, where asked for.
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
    logits: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    embedding: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ChatEvent(Event):
    """An event of a chat: `text` is the answer only.

    Attributes:
        reasoning: what the model thought aloud since the last event.
    """

    reasoning: str = ""


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
        error: one sentence, where finish_reason is ERROR.
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

    @classmethod
    def of(cls, events: Sequence[Event]) -> Completion:
        """What all events of a request, the last included, come to."""
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
        )
