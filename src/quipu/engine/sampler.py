"""Choosing tokens: the list of steps a request asks for, and what carries such lists out.

The list is made once per request, in the order of llama.cpp or the request's own; a step that would change nothing is
left out. Two implementations give the same token for the same logits: `native_sampler`, and numpy in
`sampling_reference`, which also defines every step in full.

Randomness is a function of (seed, position of the token) and of nothing else, so a text does not depend on what else is
in the batch, on how often a request was preempted, nor on how many of its tokens were drafted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from quipu.engine.token_texts import TokenTexts
from quipu.errors import InvalidRequestError
from quipu.types import SamplingParams, TokenLogprobs

NOT_A_NUMBER = -1
"""Stands for a token where the model's logits hold a NaN or an infinity."""
NOTHING_ALLOWED = -2
"""Stands for a token where every token is forbidden."""

_LOWEST_TEMPERATURE = 1e-6  # the same as greedy, and far from where float32 loses digits


class ChainStep(NamedTuple):
    """One step: its name, its numbers, and the tokens it knows about.

    Names and values, in the order of llama.cpp's default chain:

    - "penalties": last_n, repeat, frequency, presence
    - "dry": last_n, multiplier, base, allowed length; `sequences` are the token ids of sequence breakers
    - "top_n_sigma": n
    - "top_k": k
    - "typical": p, min_keep
    - "top_p": p, min_keep
    - "min_p": log p, min_keep
    - "xtc": probability, threshold, min_keep
    - "temperature": T, or "dynamic_temperature": lowest T, highest T, exponent
    - "infill": none; `texts` are those of the tokens

    The last one chooses: "dist", "greedy", "adaptive_p": target, decay; "mirostat" or "mirostat_v2": tau, eta.
    """

    name: str
    values: list[float]
    sequences: tuple[tuple[int, ...], ...] = ()
    texts: TokenTexts | None = None


class Draw(NamedTuple):
    """What is to be chosen for one sequence in one step.

    With d drafted tokens the sequence has d + 1 consecutive rows of logits.

    Attributes:
        chain: from `Sampler.chain`; sequences may share it.
        state: from `Sampler.state`, one per sequence; it advances with every token chosen, and with nothing else.
        history: int32, the known tokens that penalties and DRY look at, or more; accepted drafts follow it.
        seed: from 0 to 2^64 - 1.
        position: place of the first new token in its sequence.
        drafts: int32 [d].
        masks: int32 [d + 1, ceil(vocab / 32)], bit i % 32 of word i / 32 set: token i is allowed; None: all are.
        num_logprobs: -1: none; n >= 0: of each chosen token and of the n most likely ones.
    """

    chain: Any
    state: Any
    history: NDArray[np.int32]
    seed: int
    position: int
    drafts: NDArray[np.int32]
    masks: NDArray[np.int32] | None = None
    num_logprobs: int = -1


class Drawn(NamedTuple):
    """What was chosen for one sequence.

    Attributes:
        token_ids: the drafts that came true and one more token: row i + 1 is looked at only if the token of row i is
            draft i. A negative last one is NOT_A_NUMBER or NOTHING_ALLOWED.
        logprobs: one per token id, where asked for; an error code has none.
    """

    token_ids: list[int]
    logprobs: list[TokenLogprobs] | None = None


class Sampler(Protocol):
    """Carries out chains. What `chain` and `state` return is for the same sampler only."""

    def chain(
        self,
        steps: Sequence[ChainStep],
        bias: Mapping[int, float],
        *,
        early_forbidden: Collection[int] = (),
        early_end: int = 0,
        post_sampling_probs: bool = False,
    ) -> Any:
        """Prepare `steps`, which follow adding `bias` to the logits of its tokens.

        Args:
            early_forbidden: tokens that are not chosen at positions below `early_end`.
            post_sampling_probs: logprobs are those of the distribution a token is drawn from, not the model's own.
        """

    def state(self, chain: Any) -> Any:
        """What the steps of a chain remember of one sequence, at its beginning."""

    def sample_batch(self, logits: NDArray[np.float32], draws: Sequence[Draw]) -> list[Drawn]:
        """Choose tokens.

        Args:
            logits: float32 [O, vocab], the rows of the draws one after another; left as they are.
        """

    def logprobs(self, logits: NDArray[np.float32], token_ids: NDArray[np.int32], num_top: int) -> list[TokenLogprobs]:
        """The model's own log probabilities of one given token per row.

        Args:
            logits: float32 [O, vocab], finite or -inf.
            token_ids: int32 [O].
            num_top: also of so many of the most likely tokens of each row.
        """


def request_chain(
    sampler: Sampler,
    sampling: SamplingParams,
    *,
    num_prompt: int,
    end_ids: Collection[int] = (),
    generation_end_ids: Collection[int] = (),
    texts: TokenTexts | None = None,
) -> Any:
    """The chain of a whole request.

    Args:
        num_prompt: tokens of its prompt.
        end_ids: tokens that end the generation.
        generation_end_ids: the model's own end-of-generation tokens.
        texts: of the tokens; None: there are none.

    Raises:
        InvalidRequestError: a step needs texts that there are not.
    """
    bias = dict(sampling.logit_bias)
    if sampling.ignore_eos:
        bias = bias_with_forbidden(bias, generation_end_ids)
    return sampler.chain(
        chain_steps(sampling, texts),
        bias,
        early_forbidden=end_ids if sampling.min_tokens else (),
        early_end=num_prompt + sampling.min_tokens,
        post_sampling_probs=sampling.post_sampling_probs,
    )


def chain_steps(sampling: SamplingParams, texts: TokenTexts | None = None) -> list[ChainStep]:
    """The steps that `sampling` asks for.

    Args:
        texts: of the tokens; without them DRY knows no sequence breakers.

    Raises:
        InvalidRequestError: infill is asked for, and there are no texts.
    """
    if sampling.mirostat:
        name = "mirostat" if sampling.mirostat == 1 else "mirostat_v2"
        if _is_greedy(sampling):
            return [ChainStep("greedy", [])]
        fixed = [ChainStep("temperature", [max(sampling.temperature, _LOWEST_TEMPERATURE)])]
        end = ChainStep(name, [sampling.mirostat_tau, sampling.mirostat_eta])
        return [*(fixed if sampling.temperature != 1.0 else []), end]
    names = sampling.samplers
    if "temperature" in names and _is_greedy(sampling):
        steps = [step for name in names[: names.index("temperature")] for step in _steps_of(name, sampling, texts)]
        # Only these can take away the best token; without them the others make no difference to it.
        if not any(step.name in ("typical", "xtc", "infill") for step in steps):
            steps = [step for step in steps if step.name in ("penalties", "dry")]
        return [*steps, ChainStep("greedy", [])]
    steps = [step for name in names for step in _steps_of(name, sampling, texts)]
    if sampling.adaptive_target >= 0:
        return [*steps, ChainStep("adaptive_p", [sampling.adaptive_target, sampling.adaptive_decay])]
    return [*steps, ChainStep("dist", [])]


def num_penalized(sampling: SamplingParams) -> int:
    """How many recent tokens penalties and DRY look at; 0 where there are none, -1 for all."""
    lengths = [int(step.values[0]) for step in chain_steps_that_remember(sampling)]
    return -1 if -1 in lengths else max(lengths, default=0)


def chain_steps_that_remember(sampling: SamplingParams) -> list[ChainStep]:
    """The steps that look at earlier tokens."""
    if sampling.mirostat:
        return []
    names = [name for name in sampling.samplers if name in ("penalties", "dry")]
    return [step for name in names for step in _steps_of(name, sampling, None)]


def bias_with_forbidden(bias: Mapping[int, float], forbidden: Iterable[int]) -> dict[int, float]:
    """`bias`, and the tokens of `forbidden` out of the question."""
    return {**bias, **dict.fromkeys(forbidden, -math.inf)}


def _is_greedy(sampling: SamplingParams) -> bool:
    return sampling.temperature <= 0.0 and (sampling.dynatemp_range == 0.0 or sampling.mirostat != 0)


def _steps_of(name: str, sampling: SamplingParams, texts: TokenTexts | None) -> list[ChainStep]:
    """The step that a name of `SAMPLERS` stands for; none if it would change nothing."""
    s = sampling
    steps: list[ChainStep] = []
    if name == "penalties":
        penalties = [s.repeat_penalty, s.frequency_penalty, s.presence_penalty]
        if s.repeat_last_n != 0 and penalties != [1.0, 0.0, 0.0]:
            steps = [ChainStep("penalties", [s.repeat_last_n, *penalties])]
    elif name == "dry":
        if s.dry_multiplier > 0.0 and s.dry_base >= 1.0 and s.dry_penalty_last_n != 0:
            values = [s.dry_penalty_last_n, s.dry_multiplier, s.dry_base, s.dry_allowed_length]
            breakers = () if texts is None else texts.breakers(s.dry_sequence_breakers)
            steps = [ChainStep("dry", values, breakers)]
    elif name == "top_n_sigma" and s.top_n_sigma > 0.0:
        steps = [ChainStep("top_n_sigma", [s.top_n_sigma])]
    elif name == "top_k" and s.top_k > 0:
        steps = [ChainStep("top_k", [s.top_k])]
    elif name == "typical_p" and s.typical_p < 1.0:
        steps = [ChainStep("typical", [s.typical_p, s.min_keep])]
    elif name == "top_p" and s.top_p < 1.0:
        steps = [ChainStep("top_p", [s.top_p, s.min_keep])]
    elif name == "min_p" and s.min_p > 0.0:
        steps = [ChainStep("min_p", [math.log(s.min_p), s.min_keep])]
    elif name == "xtc" and s.xtc_probability > 0.0 and s.xtc_threshold <= 0.5:
        steps = [ChainStep("xtc", [s.xtc_probability, s.xtc_threshold, s.min_keep])]
    elif name == "temperature":
        steps = _temperature(s)
    elif name == "infill":
        if texts is None or not texts.end_ids:
            raise InvalidRequestError(
                "samplers: infill needs a model with texts and end-of-generation tokens; leave it out", field="samplers"
            )
        steps = [ChainStep("infill", [], (), texts)]
    return steps


def _temperature(sampling: SamplingParams) -> list[ChainStep]:
    middle, width = sampling.temperature, sampling.dynatemp_range
    if width > 0.0:
        bounds = [max(0.0, middle - width), max(0.0, middle + width)]
        return [ChainStep("dynamic_temperature", [*bounds, sampling.dynatemp_exponent])]
    return [] if middle == 1.0 else [ChainStep("temperature", [max(middle, _LOWEST_TEMPERATURE)])]
