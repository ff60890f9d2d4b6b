"""What the engine is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from quipu.types.checks import is_number, is_whole, member, require
from quipu.types.constraint import ConstraintSpec
from quipu.types.sampling import SamplingParams


class Pooling(StrEnum):
    """How the vectors of a text's tokens become its embedding."""

    NONE = "none"  # they stay: one vector per token
    MEAN = "mean"
    CLS = "cls"  # the first token's
    LAST = "last"
    RANK = "rank"  # the first token's, through the classification head, to scores


class Speculation(StrEnum):
    """Where guesses at the next tokens come from, which the model then checks many at a time. None changes the text."""

    OFF = "off"  # no guesses
    NGRAM = "ngram"  # what followed the same tokens earlier in the prompt or the answer
    DRAFT = "draft"  # a smaller model


MOST_PRIORITY = 10
MOST_CHOICES = 128
MOST_DRAFTS = 1024
_MAX_KEY_LENGTH = 256
_MAX_SALT_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How the requests of a call are served, beside what is generated.

    Attributes:
        num_choices: how often each prompt is continued, with seeds of their own; the prompt is computed once.
        priority: a band from -10 to 10; higher ones are served first.
        key: whom the requests are for. Within a band, keys get equal shares of the work.
        deadline_s: seconds after the call at which a request must have ended; None: it may take any time.
        cache_prompt: reuse what earlier requests computed of the same beginning, and let later ones reuse this one's.

    Raises:
        InvalidRequestError: a value is out of range.
    """

    num_choices: int = 1
    priority: int = 0
    key: str = ""
    deadline_s: float | None = None
    cache_prompt: bool = True

    def __post_init__(self) -> None:
        _check_options(self)


def _check_options(options: RequestOptions | Request) -> None:
    require(
        is_whole(options.num_choices) and 1 <= options.num_choices <= MOST_CHOICES,
        "num_choices",
        f"a whole number from 1 to {MOST_CHOICES}",
        options.num_choices,
    )
    require(
        is_whole(options.priority) and abs(options.priority) <= MOST_PRIORITY,
        "priority",
        f"a whole number from {-MOST_PRIORITY} to {MOST_PRIORITY}",
        options.priority,
    )
    is_key = isinstance(options.key, str) and len(options.key) <= _MAX_KEY_LENGTH
    require(is_key, "key", f"text of up to {_MAX_KEY_LENGTH} characters", options.key)
    require(
        options.deadline_s is None or (is_number(options.deadline_s) and options.deadline_s > 0),
        "deadline_s",
        "a number of seconds above 0, or None",
        options.deadline_s,
    )
    require(isinstance(options.cache_prompt, bool), "cache_prompt", "True or False", options.cache_prompt)


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
        constraint: what the answer must look like; None: anything.
        pooling: give the embedding of the prompt, pooled this way, instead of generating; `max_tokens` is 0 then.
        token_types: for a pair of texts which of them each token is of; empty: all 0.
        speculation: where drafts come from; None: as the engine's default. With OFF there are none at all.
        draft_max: most drafted tokens in a step; None: as the engine's.
        draft_min: fewer drafted tokens than these are not worth a try; None: as the engine's.
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
    constraint: ConstraintSpec | None = None
    pooling: Pooling | None = None
    token_types: tuple[int, ...] = ()
    speculation: Speculation | None = None
    draft_max: int | None = None
    draft_min: int | None = None

    def __post_init__(self) -> None:
        if self.speculation is not None:
            object.__setattr__(self, "speculation", member(Speculation, self.speculation, "speculation"))
        for name in ("draft_max", "draft_min"):
            value = getattr(self, name)
            is_inside = value is None or (is_whole(value) and 0 <= value <= MOST_DRAFTS)
            require(is_inside, name, f"a whole number from 0 to {MOST_DRAFTS}, or None", value)
        _check_options(self)
        require(isinstance(self.context_shift, bool), "context_shift", "True or False", self.context_shift)
        require(is_whole(self.keep) and self.keep >= -1, "keep", "-1 (the whole prompt), 0 or more", self.keep)
        is_salt = isinstance(self.cache_salt, str) and len(self.cache_salt) <= _MAX_SALT_LENGTH
        require(is_salt, "cache_salt", f"a string of at most {_MAX_SALT_LENGTH} characters", type(self.cache_salt))

    @property
    def wants_prompt_rows(self) -> bool:
        """Whether logits of every prompt token have to be computed, so that no part of the prompt can be skipped."""
        return self.prompt_logits or self.sampling.prompt_logprobs is not None
