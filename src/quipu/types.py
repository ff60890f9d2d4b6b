"""Values shared by three or more packages. All are frozen; anything used by fewer lives elsewhere."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from quipu.errors import InvalidRequestError

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


class Speculation(StrEnum):
    """Where guesses at the next tokens come from, which the model then checks many at a time. None changes the text."""

    OFF = "off"  # no guesses
    NGRAM = "ngram"  # what followed the same tokens earlier in the prompt or the answer
    DRAFT = "draft"  # a smaller model


SAMPLERS: Mapping[str, str] = MappingProxyType(
    {
        "penalties": "e",
        "dry": "d",
        "top_n_sigma": "s",
        "top_k": "k",
        "typical_p": "y",
        "top_p": "p",
        "min_p": "m",
        "xtc": "x",
        "temperature": "t",
        "infill": "i",
        "adaptive_p": "a",
    }
)
"""The steps that `SamplingParams.samplers` may name, with the letters that llama.cpp abbreviates them by."""

DEFAULT_SAMPLERS = ("penalties", "dry", "top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature")
"""llama.cpp's default order."""

# Other names that llama.cpp takes, once "-" is "_".
_SAMPLER_ALIASES: Mapping[str, str] = MappingProxyType(
    {"topk": "top_k", "nucleus": "top_p", "temp": "temperature"}
    | dict.fromkeys(("typ_p", "typical", "typ"), "typical_p")
)


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
        ignore_eos: never choose an end-of-generation token.
        min_keep: top-p, min-p, typical and XTC keep at least this many tokens.
        min_tokens: until so many tokens are generated, those that end the generation are forbidden and stop strings
            are not looked for.
        samplers: the steps in their order, by the names of `SAMPLERS`; what is not named is left out. A text is split
            at semicolons, or read as llama.cpp's letters.
        top_n_sigma: keep tokens within so many standard deviations of the best logit, arXiv:2411.07641 [0 or less].
        xtc_probability: how often all tokens likelier than `xtc_threshold` but the last are taken out [0].
        xtc_threshold: see there [above 0.5].
        dynatemp_range: the temperature moves by so much up and down with the entropy, arXiv:2309.02772 [0].
        dynatemp_exponent: the power of the normalised entropy that moves it.
        dry_multiplier: strength of the penalty on tokens that would prolong a repetition [0].
        dry_base: the penalty grows by this factor with each repeated token [below 1].
        dry_allowed_length: repetitions up to this length are free.
        dry_penalty_last_n: how many tokens are searched for repetitions; 0 none, -1 the whole context.
        dry_sequence_breakers: texts that repetitions do not reach across.
        mirostat: 1 or 2: hold the surprise at `mirostat_tau`, arXiv:2007.14966, with the temperature as the only other
            step [0].
        mirostat_tau: the surprise aimed at, in bits.
        mirostat_eta: how fast it is followed.
        adaptive_target: choose tokens near this probability, on average [below 0].
        adaptive_decay: how slowly the average forgets; up to 0.99.
        logprobs: report the log probability of every chosen token, and of so many of the most likely ones; None: not.
        post_sampling_probs: report those of the distribution that the token was drawn from, after all steps, in place
            of the model's own.
        prompt_logprobs: the same as `logprobs` for the prompt, from its second token on.
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
    samplers: tuple[str, ...] = DEFAULT_SAMPLERS
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0
    adaptive_decay: float = 0.9
    logprobs: int | None = None
    post_sampling_probs: bool = False
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        for name in ("stop", "dry_sequence_breakers", "stop_token_ids"):
            given = getattr(self, name)
            listed = (given,) if isinstance(given, str) else given
            _require(isinstance(listed, Sequence | Set), name, "a list", given)
            object.__setattr__(self, name, tuple(listed))
        object.__setattr__(self, "samplers", parse_samplers(self.samplers))
        for name, lowest, highest in _NUMBERS:
            value = getattr(self, name)
            is_inside = _is_number(value) and lowest <= value <= highest
            _require(is_inside, name, f"between {lowest:g} and {highest:g}", value)
        for name, lowest, expected in _COUNTS:
            value = getattr(self, name)
            is_inside = _is_whole(value) and lowest <= value <= _LARGEST_COUNT
            _require(is_inside, name, f"a whole number up to {_LARGEST_COUNT}: {expected}", value)
        for name, most in (("max_tokens", None), ("logprobs", _MAX_LOGPROBS), ("prompt_logprobs", _MAX_LOGPROBS)):
            value = getattr(self, name)
            is_inside = value is None or (_is_whole(value) and value >= 0 and (most is None or value <= most))
            _require(is_inside, name, f"{'0 or more' if most is None else f'from 0 to {most}'}, or None", value)
        _require(_is_whole(self.mirostat) and 0 <= self.mirostat <= 2, "mirostat", "0 (off), 1 or 2", self.mirostat)
        for name in ("ignore_eos", "post_sampling_probs"):
            _require(isinstance(getattr(self, name), bool), name, "true or false", getattr(self, name))
        _require(self.seed is None or _is_whole(self.seed), "seed", "a whole number or None", self.seed)
        self._check_texts("stop", _MAX_STOPS, _MAX_STOP_LENGTH)
        self._check_texts("dry_sequence_breakers", _MAX_BREAKERS, _MAX_BREAKER_LENGTH)
        _require(all(_is_whole(token) for token in self.stop_token_ids), "stop_token_ids", "token ids", None)
        self._check_logit_bias()
        self._check_together()

    def _check_texts(self, name: str, most: int, longest: int) -> None:
        texts: tuple[str, ...] = getattr(self, name)
        are_texts = all(isinstance(text, str) and text for text in texts)
        _require(are_texts, name, "made of non-empty strings", texts if len(texts) < _FEW else "what was given")
        _require(len(texts) <= most, name, f"at most {most} strings", len(texts))
        length = max(map(len, texts), default=0)
        _require(length <= longest, name, f"of strings up to {longest} characters", length)

    def _check_logit_bias(self) -> None:
        _require(
            isinstance(self.logit_bias, Mapping), "logit_bias", "a mapping of token ids to amounts", "another type"
        )
        for token_id, bias in self.logit_bias.items():
            _require(_is_whole(token_id), "logit_bias", "keyed by token ids", token_id)
            is_amount = bias == -math.inf or (_is_number(bias) and abs(bias) <= _LARGEST_BIAS)
            _require(is_amount, "logit_bias", f"amounts up to {_LARGEST_BIAS:g}, or -inf", bias)

    def _check_together(self) -> None:
        """Refuse values that contradict each other."""
        most = self.max_tokens
        _require(
            most is None or self.min_tokens <= most,
            "min_tokens",
            f"at most max_tokens, which is {most}",
            self.min_tokens,
        )
        both = self.mirostat != 0 and self.adaptive_target >= 0
        _require(not both, "adaptive_target", "below 0 with mirostat: each chooses the token", self.adaptive_target)
        infill = self.mirostat != 0 and "infill" in self.samplers
        _require(not infill, "samplers", "without infill with mirostat, which uses no other step", self.samplers)


def parse_samplers(samplers: str | Sequence[str]) -> tuple[str, ...]:
    """The steps of a chain by their names in `SAMPLERS`.

    Args:
        samplers: names, in the spellings of llama.cpp too, or one text: names with semicolons between them, or letters.

    Raises:
        InvalidRequestError: a name is unknown, or comes twice.
    """
    if isinstance(samplers, str):
        letters = {letter: name for name, letter in SAMPLERS.items()}
        is_letters = ";" not in samplers and _sampler_name(samplers) not in SAMPLERS and set(samplers) <= set(letters)
        samplers = [letters[letter] for letter in samplers] if is_letters else samplers.split(";")
    _require(isinstance(samplers, Sequence), "samplers", "a list of names", samplers)
    _require(len(samplers) <= len(SAMPLERS), "samplers", f"at most {len(SAMPLERS)} names", len(samplers))
    names = tuple(_sampler_name(name) if isinstance(name, str) else "" for name in samplers)
    for name, given in zip(names, samplers, strict=True):
        _require(name in SAMPLERS, "samplers", f"names out of {', '.join(SAMPLERS)}", given)
        _require(names.count(name) == 1, "samplers", "names that come once each", given)
    return names


def _sampler_name(text: str) -> str:
    name = text.strip().lower().replace("-", "_")
    return _SAMPLER_ALIASES.get(name, name)


_LARGEST_BIAS = 1e30
_LARGEST_COUNT = 2**31 - 1
_LARGEST = 1e6  # far beyond what has an effect; keeps float32 arithmetic on logits finite
MOST_PRIORITY = 10
MOST_CHOICES = 128
MOST_DRAFTS = 1024
_MAX_KEY_LENGTH = 256
_MAX_STOPS = 256  # every generated token is compared with each of them
_MAX_STOP_LENGTH = 1024
_MAX_SALT_LENGTH = 1024
_MAX_BREAKERS = 64  # each of them is searched for in the whole vocabulary
_MAX_BREAKER_LENGTH = 40  # llama.cpp's limit, which cuts silently
_MAX_LOGPROBS = 1024
_FEW = 8

# Numbers, with the lowest and the highest value.
_NUMBERS = (
    ("temperature", -_LARGEST, _LARGEST),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("typical_p", 0.0, 1.0),
    ("repeat_penalty", 1 / _LARGEST, _LARGEST),
    ("presence_penalty", -_LARGEST, _LARGEST),
    ("frequency_penalty", -_LARGEST, _LARGEST),
    ("top_n_sigma", -_LARGEST, _LARGEST),
    ("xtc_probability", 0.0, 1.0),
    ("xtc_threshold", 0.0, 1.0),
    ("dynatemp_range", 0.0, _LARGEST),
    ("dynatemp_exponent", 0.0, _LARGEST),
    ("dry_multiplier", 0.0, _LARGEST),
    ("dry_base", 0.0, _LARGEST),
    ("mirostat_tau", 0.0, _LARGEST),
    ("mirostat_eta", 0.0, _LARGEST),
    ("adaptive_target", -_LARGEST, 1.0),
    ("adaptive_decay", 0.0, 0.99),
)
# Whole numbers, with the lowest value.
_COUNTS = (
    ("top_k", 0, "0 is off"),
    ("repeat_last_n", -1, "-1 is the whole context, 0 is off"),
    ("min_keep", 1, "1 or more"),
    ("min_tokens", 0, "0 or more"),
    ("dry_allowed_length", 0, "0 or more"),
    ("dry_penalty_last_n", -1, "-1 is the whole context, 0 is off"),
)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(condition: bool, field_name: str, expected: str, value: object) -> None:
    if not condition:
        raise InvalidRequestError(f"{field_name} must be {expected}, not {value!r}", field=field_name)


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


class ConstraintKind(StrEnum):
    """What describes the texts that a constrained answer may be."""

    JSON_OBJECT = "json_object"  # any JSON object
    JSON_SCHEMA = "json_schema"  # JSON that a schema allows
    REGEX = "regex"  # a regular expression that the whole answer matches
    CHOICE = "choice"  # one of a list of texts
    LARK = "lark"  # a grammar in llguidance's dialect of Lark
    GBNF = "gbnf"  # a grammar in llama.cpp's notation


class Whitespace(StrEnum):
    """Where constrained JSON may have whitespace."""

    LINE = "line"  # a space after a comma or a colon
    FLEXIBLE = "flexible"  # a space, or a line break and indentation, between any two symbols
    COMPACT = "compact"  # nowhere


@dataclass(frozen=True, slots=True)
class ConstraintSpec:
    """What an answer must look like. The class methods make one from plain values.

    Attributes:
        kind: how `source` is to be read.
        source: the schema as JSON text, the regular expression, the choices as a JSON list, or the grammar.
        triggers: strings or token ids. Where there are any, the answer is free until the first of them appears, and
            constrained from there on.
        is_required: where there are triggers, the answer must not end before one of them.
        includes_trigger: the constraint describes the trigger too, not only what follows it.
        whitespace: where JSON may have whitespace.
        leading_whitespace: whitespace may come before the constrained text.
        prefix: the end of the prompt that was taken off it, so that the model can write it again as part of a longer
            token; the answer must begin with it, and it is no part of the answer's text.
        field: what errors call the constraint: the name of the parameter that brought it.
    """

    kind: ConstraintKind
    source: str = ""
    triggers: tuple[str | int, ...] = ()
    is_required: bool = False
    includes_trigger: bool = False
    whitespace: Whitespace = Whitespace.LINE
    leading_whitespace: bool = False
    prefix: str = ""
    field: str = "constraint"

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", _member(ConstraintKind, self.kind, f"{self.field}.kind"))
        object.__setattr__(self, "whitespace", _member(Whitespace, self.whitespace, f"{self.field}.whitespace"))
        object.__setattr__(self, "triggers", tuple(self.triggers))
        _require(isinstance(self.source, str), self.field, "text", type(self.source).__name__)
        name = f"{self.field}.triggers"
        _require(len(self.triggers) <= _MAX_TRIGGERS, name, f"at most {_MAX_TRIGGERS}", len(self.triggers))
        for trigger in self.triggers:
            is_text = isinstance(trigger, str) and 0 < len(trigger) <= _MAX_STOP_LENGTH
            is_id = _is_whole(trigger) and isinstance(trigger, int) and trigger >= 0
            _require(is_text or is_id, name, f"strings of 1 to {_MAX_STOP_LENGTH} characters or token ids", trigger)

    @classmethod
    def json_object(cls, **options: Any) -> ConstraintSpec:
        """Any JSON object. `options` are further attributes."""
        return cls(ConstraintKind.JSON_OBJECT, **options)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool | str, **options: Any) -> ConstraintSpec:
        """JSON that `schema` allows, given as a value or as JSON text. `options` are further attributes.

        Raises:
            InvalidRequestError: the value cannot be written as JSON.
        """
        name = options.get("field", "constraint")
        if isinstance(schema, str):
            return cls(ConstraintKind.JSON_SCHEMA, schema, **options)
        _require(isinstance(schema, Mapping | bool), name, "a JSON object, true or false", type(schema).__name__)
        try:
            source = json.dumps(schema, allow_nan=False, ensure_ascii=False, default=_as_dict)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(f"{name} cannot be written as JSON: {error}", field=name) from None
        return cls(ConstraintKind.JSON_SCHEMA, source, **options)

    @classmethod
    def regex(cls, pattern: str, **options: Any) -> ConstraintSpec:
        """Text that `pattern` matches from end to end. `options` are further attributes."""
        return cls(ConstraintKind.REGEX, pattern, **options)

    @classmethod
    def choice(cls, choices: Sequence[str], **options: Any) -> ConstraintSpec:
        """One of `choices`. `options` are further attributes.

        Raises:
            InvalidRequestError: there are no choices, or one is not text.
        """
        name = options.get("field", "constraint")
        is_list = not isinstance(choices, str) and all(isinstance(choice, str) for choice in choices)
        _require(is_list and len(choices) > 0, name, "a list of one or more strings", choices)
        return cls(ConstraintKind.CHOICE, json.dumps(list(choices)), **options)

    @classmethod
    def lark(cls, grammar: str, **options: Any) -> ConstraintSpec:
        """Text that a Lark grammar produces from `start`. `options` are further attributes."""
        return cls(ConstraintKind.LARK, grammar, **options)

    @classmethod
    def gbnf(cls, grammar: str, **options: Any) -> ConstraintSpec:
        """Text that a GBNF grammar produces from `root`. `options` are further attributes."""
        return cls(ConstraintKind.GBNF, grammar, **options)


_MAX_TRIGGERS = 64
_Member = TypeVar("_Member", bound=StrEnum)


def _member(kind: type[_Member], value: object, field_name: str) -> _Member:
    names = [member.value for member in kind]
    if not isinstance(value, str) or value not in names:
        raise InvalidRequestError(f"{field_name} must be one of {', '.join(names)}, not {value!r}", field=field_name)
    return kind(value)


def _as_dict(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")


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
    _require(
        _is_whole(options.num_choices) and 1 <= options.num_choices <= MOST_CHOICES,
        "num_choices",
        f"a whole number from 1 to {MOST_CHOICES}",
        options.num_choices,
    )
    _require(
        _is_whole(options.priority) and abs(options.priority) <= MOST_PRIORITY,
        "priority",
        f"a whole number from {-MOST_PRIORITY} to {MOST_PRIORITY}",
        options.priority,
    )
    is_key = isinstance(options.key, str) and len(options.key) <= _MAX_KEY_LENGTH
    _require(is_key, "key", f"text of up to {_MAX_KEY_LENGTH} characters", options.key)
    _require(
        options.deadline_s is None or (_is_number(options.deadline_s) and options.deadline_s > 0),
        "deadline_s",
        "a number of seconds above 0, or None",
        options.deadline_s,
    )
    _require(isinstance(options.cache_prompt, bool), "cache_prompt", "True or False", options.cache_prompt)


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
            object.__setattr__(self, "speculation", _member(Speculation, self.speculation, "speculation"))
        for name in ("draft_max", "draft_min"):
            value = getattr(self, name)
            is_inside = value is None or (_is_whole(value) and 0 <= value <= MOST_DRAFTS)
            _require(is_inside, name, f"a whole number from 0 to {MOST_DRAFTS}, or None", value)
        _check_options(self)
        _require(isinstance(self.context_shift, bool), "context_shift", "True or False", self.context_shift)
        _require(_is_whole(self.keep) and self.keep >= -1, "keep", "-1 (the whole prompt), 0 or more", self.keep)
        is_salt = isinstance(self.cache_salt, str) and len(self.cache_salt) <= _MAX_SALT_LENGTH
        _require(is_salt, "cache_salt", f"a string of at most {_MAX_SALT_LENGTH} characters", type(self.cache_salt))

    @property
    def wants_prompt_rows(self) -> bool:
        """Whether logits of every prompt token have to be computed, so that no part of the prompt can be skipped."""
        return self.prompt_logits or self.sampling.prompt_logprobs is not None


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
