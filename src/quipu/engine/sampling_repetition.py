"""Penalties on what was said before: the definition in plain Python, of which `native/ops/sample_repetition.h` is the
fast version."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from quipu.engine.sampling_numbers import LARGEST_LOGIT, limited

_LOG_OF_LARGEST_FLOAT = 88.7228391  # powers are kept within float32, as in llama.cpp


def last(history: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """The last `count` tokens; -1: all."""
    return history if count < 0 else history[max(0, len(history) - count) :]


def penalize(
    logits: NDArray[np.float32], history: NDArray[np.int32], repeat: float, frequency: float, presence: float
) -> None:
    """Change the logits of the tokens in `history`: repeat (arXiv:1909.05858), frequency and presence penalties."""
    tokens, counts = np.unique(history, return_counts=True)
    for token, count in zip(tokens.tolist(), counts.tolist(), strict=True):
        value = logits[token]
        value = value * np.float32(repeat) if value <= 0 else value / np.float32(repeat)
        penalty = np.float32(count) * np.float32(frequency) + np.float32(presence)
        logits[token] = limited(value - penalty)


def penalize_repetition(
    logits: NDArray[np.float32],
    history: NDArray[np.int32],
    breakers: Sequence[tuple[int, ...]],
    multiplier: float,
    base: float,
    allowed_length: int,
) -> None:
    """DRY ("don't repeat yourself", by p-e-w): make tokens unlikely that would prolong a repetition.

    Where the last n tokens of `history` occur in it earlier, n >= allowed length, the token that followed there loses
    multiplier * base^(n - allowed length). Repetitions do not reach back across the last sequence breaker.
    """
    if len(history) <= allowed_length:
        return
    tokens = history.tolist()
    limit = repetition_limit(tokens, breakers)
    if limit < allowed_length:
        return
    largest_power = int(_LOG_OF_LARGEST_FLOAT / math.log(base)) if base > 1.000001 else 0
    single = {breaker[0] for breaker in breakers if len(breaker) == 1}
    for token, length in longest_repetitions(tokens, limit).items():
        if length < allowed_length or token in single:
            continue
        power = length - allowed_length
        power = min(power, largest_power) if largest_power > 0 else power
        penalty = np.float32(min(multiplier * math.pow(base, power), float(LARGEST_LOGIT)))
        logits[token] = limited(logits[token] - penalty)


def repetition_limit(tokens: Sequence[int], breakers: Sequence[tuple[int, ...]]) -> int:
    """How many tokens follow the last complete sequence breaker; all, if there is none."""
    heads: dict[int, list[tuple[int, ...]]] = {}
    for head, *tail in breakers:
        heads.setdefault(head, []).append(tuple(tail))
    for after in range(len(tokens)):  # tokens that follow the one in question
        place = len(tokens) - 1 - after
        lengths = [
            len(tail)
            for tail in heads.get(tokens[place], ())
            if len(tail) <= after and tuple(tokens[place + 1 : place + 1 + len(tail)]) == tail
        ]
        if lengths:
            return after - max(lengths)
    return len(tokens)


def longest_repetitions(tokens: Sequence[int], limit: int) -> Mapping[int, int]:
    """For every token but the first: how many of the last tokens stand before it, at most.

    Args:
        limit: longer repetitions count as this long.
    """
    longest: dict[int, int] = {}
    for end in range(1, len(tokens)):  # the place after an earlier occurrence
        length = 0
        while length < end and tokens[end - 1 - length] == tokens[-1 - length]:
            length += 1
        longest[tokens[end]] = max(longest.get(tokens[end], 0), min(length, limit))
    return longest
