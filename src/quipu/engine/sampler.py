"""Choosing tokens: the list of steps a request asks for, and what carries such lists out.

The list is made once per request, in the order of llama.cpp; a step that would change nothing is left out. Two
implementations give the same token for the same logits: `native_sampler`, and numpy in `sampling_reference`, which also
defines every step in full.

Randomness is a function of (seed, position of the token) and of nothing else, so a text does not depend on what else is
in the batch, nor on how often a request was preempted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from quipu.types import SamplingParams

NOT_A_NUMBER = -1
"""Stands for a token where the model's logits hold a NaN or an infinity."""
NOTHING_ALLOWED = -2
"""Stands for a token where every token is forbidden."""

_LOWEST_TEMPERATURE = 1e-6  # the same as greedy, and far from where float32 loses digits


class ChainStep(NamedTuple):
    """One step: "penalties", "top_k", "typical", "top_p", "min_p", "temperature", and at the end "dist" or "greedy"."""

    name: str
    values: list[float]


class Sampler(Protocol):
    """Carries out chains. What `chain` returns is for `sample_batch` of the same sampler only."""

    def chain(self, steps: Sequence[ChainStep], bias: Mapping[int, float]) -> Any:
        """Prepare `steps`, which follow adding `bias` to the logits of its tokens."""

    def sample_batch(
        self,
        logits: NDArray[np.float32],
        chains: Sequence[Any],
        histories: Sequence[NDArray[np.int32]],
        seeds: NDArray[np.uint64],
        positions: NDArray[np.int64],
    ) -> list[int]:
        """Choose one token per row of logits [O, vocab], which are left as they are.

        Args:
            logits: float32 [O, vocab].
            chains: O chains.
            histories: O arrays: the recent tokens that penalties count, or empty.
            seeds: [O].
            positions: [O]; the place of the new token in its sequence.

        Returns:
            O token ids; a negative one is NOT_A_NUMBER or NOTHING_ALLOWED.
        """


def chain_steps(sampling: SamplingParams) -> list[ChainStep]:
    """The steps that `sampling` asks for."""
    steps = []
    if num_penalized(sampling) != 0:
        penalties = [sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty]
        steps.append(ChainStep("penalties", penalties))
    if sampling.temperature <= 0.0:
        return [*steps, ChainStep("greedy", [])]
    if sampling.top_k > 0:
        steps.append(ChainStep("top_k", [max(sampling.top_k, sampling.min_keep)]))
    if sampling.typical_p < 1.0:
        steps.append(ChainStep("typical", [sampling.typical_p, sampling.min_keep]))
    if sampling.top_p < 1.0:
        steps.append(ChainStep("top_p", [sampling.top_p, sampling.min_keep]))
    if sampling.min_p > 0.0:
        steps.append(ChainStep("min_p", [math.log(sampling.min_p), sampling.min_keep]))
    if sampling.temperature != 1.0:
        steps.append(ChainStep("temperature", [max(sampling.temperature, _LOWEST_TEMPERATURE)]))
    return [*steps, ChainStep("dist", [])]


def num_penalized(sampling: SamplingParams) -> int:
    """How many recent tokens penalties count; 0 where there are none, -1 for all."""
    changes = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty) != (1.0, 0.0, 0.0)
    return sampling.repeat_last_n if changes else 0


def bias_with_forbidden(bias: Mapping[int, float], forbidden: Iterable[int]) -> dict[int, float]:
    """`bias`, and the tokens of `forbidden` out of the question."""
    return {**bias, **dict.fromkeys(forbidden, -math.inf)}
