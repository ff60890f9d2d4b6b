"""How tokens are chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType

from quipu.types.checks import is_number, is_whole, require

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
_LARGEST_BIAS = 1e30
_LARGEST_COUNT = 2**31 - 1
_LARGEST = 1e6  # far beyond what has an effect; keeps float32 arithmetic on logits finite
_MAX_STOPS = 256  # every generated token is compared with each of them
_MAX_STOP_LENGTH = 1024
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
            require(isinstance(listed, Sequence | Set), name, "a list", given)
            object.__setattr__(self, name, tuple(listed))
        object.__setattr__(self, "samplers", parse_samplers(self.samplers))
        for name, lowest, highest in _NUMBERS:
            value = getattr(self, name)
            is_inside = is_number(value) and lowest <= value <= highest
            require(is_inside, name, f"between {lowest:g} and {highest:g}", value)
        for name, lowest, expected in _COUNTS:
            value = getattr(self, name)
            is_inside = is_whole(value) and lowest <= value <= _LARGEST_COUNT
            require(is_inside, name, f"a whole number up to {_LARGEST_COUNT}: {expected}", value)
        for name, most in (("max_tokens", None), ("logprobs", _MAX_LOGPROBS), ("prompt_logprobs", _MAX_LOGPROBS)):
            value = getattr(self, name)
            is_inside = value is None or (is_whole(value) and value >= 0 and (most is None or value <= most))
            require(is_inside, name, f"{'0 or more' if most is None else f'from 0 to {most}'}, or None", value)
        require(is_whole(self.mirostat) and 0 <= self.mirostat <= 2, "mirostat", "0 (off), 1 or 2", self.mirostat)
        for name in ("ignore_eos", "post_sampling_probs"):
            require(isinstance(getattr(self, name), bool), name, "true or false", getattr(self, name))
        require(self.seed is None or is_whole(self.seed), "seed", "a whole number or None", self.seed)
        self._check_texts("stop", _MAX_STOPS, _MAX_STOP_LENGTH)
        self._check_texts("dry_sequence_breakers", _MAX_BREAKERS, _MAX_BREAKER_LENGTH)
        require(all(is_whole(token) for token in self.stop_token_ids), "stop_token_ids", "token ids", None)
        self._check_logit_bias()
        self._check_together()

    def _check_texts(self, name: str, most: int, longest: int) -> None:
        texts: tuple[str, ...] = getattr(self, name)
        are_texts = all(isinstance(text, str) and text for text in texts)
        require(are_texts, name, "made of non-empty strings", texts if len(texts) < _FEW else "what was given")
        require(len(texts) <= most, name, f"at most {most} strings", len(texts))
        length = max(map(len, texts), default=0)
        require(length <= longest, name, f"of strings up to {longest} characters", length)

    def _check_logit_bias(self) -> None:
        require(isinstance(self.logit_bias, Mapping), "logit_bias", "a mapping of token ids to amounts", "another type")
        for token_id, bias in self.logit_bias.items():
            require(is_whole(token_id), "logit_bias", "keyed by token ids", token_id)
            is_amount = bias == -math.inf or (is_number(bias) and abs(bias) <= _LARGEST_BIAS)
            require(is_amount, "logit_bias", f"amounts up to {_LARGEST_BIAS:g}, or -inf", bias)

    def _check_together(self) -> None:
        """Refuse values that contradict each other."""
        most = self.max_tokens
        require(
            most is None or self.min_tokens <= most,
            "min_tokens",
            f"at most max_tokens, which is {most}",
            self.min_tokens,
        )
        both = self.mirostat != 0 and self.adaptive_target >= 0
        require(not both, "adaptive_target", "below 0 with mirostat: each chooses the token", self.adaptive_target)
        infill = self.mirostat != 0 and "infill" in self.samplers
        require(not infill, "samplers", "without infill with mirostat, which uses no other step", self.samplers)


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
    require(isinstance(samplers, Sequence), "samplers", "a list of names", samplers)
    require(len(samplers) <= len(SAMPLERS), "samplers", f"at most {len(SAMPLERS)} names", len(samplers))
    names = tuple(_sampler_name(name) if isinstance(name, str) else "" for name in samplers)
    for name, given in zip(names, samplers, strict=True):
        require(name in SAMPLERS, "samplers", f"names out of {', '.join(SAMPLERS)}", given)
        require(names.count(name) == 1, "samplers", "names that come once each", given)
    return names


def _sampler_name(text: str) -> str:
    name = text.strip().lower().replace("-", "_")
    return _SAMPLER_ALIASES.get(name, name)
