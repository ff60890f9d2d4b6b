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
    DEADLINE = "deadline"  # the request's deadline has passed, or could not have been met


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
MOST_PRIORITY = 10
MOST_CHOICES = 128
_MAX_KEY_LENGTH = 256
_MAX_STOPS = 256  # every generated token is compared with each of them
_MAX_STOP_LENGTH = 1024
_MAX_SALT_LENGTH = 1024


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
class Request:
    """A prompt and how to continue it, as the engine receives it.

    Attributes:
        request_id: unique within the engine.
        prompt_token_ids: at least one token id.
        sampling: how tokens are chosen and when to stop.
        prompt_logits: also deliver the logits of every prompt token, in the events' `logits`; of the first choice only.
        shown_tokens: control tokens that the text of the events shows, such as the tags around reasoning, and how.
        priority: a band from -10 to 10; higher ones are served first.
        key: whom the request is for. Within a band, keys get equal shares of the work.
        deadline_s: seconds after it was submitted at which the request must have ended; None: it may take any time.
        num_choices: how often the prompt is continued. Events name the `choice`; each choice has a seed of its own.
        streamed: somebody reads the tokens as they come, so long prompts of others must not hold them up.
        cache_prompt: reuse what earlier requests computed of the same beginning, and let later ones reuse this one's.
        cache_salt: only requests with the same salt reuse each other's work; one for each tenant keeps them apart.
        context_shift: when the context is full, drop the oldest half instead of ending, with a warning.
        keep: tokens at the beginning that a context shift never drops; -1: the whole prompt.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    prompt_logits: bool = False
    shown_tokens: Mapping[int, str] = field(default_factory=dict)
    priority: int = 0
    key: str = ""
    deadline_s: float | None = None
    num_choices: int = 1
    streamed: bool = True
    cache_prompt: bool = True
    cache_salt: str = ""
    context_shift: bool = False
    keep: int = 0

    def __post_init__(self) -> None:
        _require(
            _is_whole(self.priority) and abs(self.priority) <= MOST_PRIORITY,
            "priority",
            f"a whole number from {-MOST_PRIORITY} to {MOST_PRIORITY}",
            self.priority,
        )
        is_key = isinstance(self.key, str) and len(self.key) <= _MAX_KEY_LENGTH
        _require(is_key, "key", f"text of up to {_MAX_KEY_LENGTH} characters", self.key)
        _require(
            self.deadline_s is None or (_is_number(self.deadline_s) and self.deadline_s > 0),
            "deadline_s",
            "a number of seconds above 0, or None",
            self.deadline_s,
        )
        _require(
            _is_whole(self.num_choices) and 1 <= self.num_choices <= MOST_CHOICES,
            "num_choices",
            f"a whole number from 1 to {MOST_CHOICES}",
            self.num_choices,
        )
        for name in ("cache_prompt", "context_shift"):
            _require(isinstance(getattr(self, name), bool), name, "True or False", getattr(self, name))
        _require(_is_whole(self.keep) and self.keep >= -1, "keep", "-1 (the whole prompt), 0 or more", self.keep)
        is_salt = isinstance(self.cache_salt, str) and len(self.cache_salt) <= _MAX_SALT_LENGTH
        _require(is_salt, "cache_salt", f"a string of at most {_MAX_SALT_LENGTH} characters", type(self.cache_salt))


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
        logits: float32 [tokens, vocab], the logits of the prompt tokens that this step computed, where asked for.
        choice: which of the request's choices it belongs to, from 0.
        reuse: what the prefix cache did for the prompt; None until the request has begun.
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
    choice: int = 0
    reuse: Reuse | None = None


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
        error: one sentence, where finish_reason is ERROR or DEADLINE.
        reuse: what the prefix cache did for the prompt; None where the request never began.
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
            last.reuse,
        )
