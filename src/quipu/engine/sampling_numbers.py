"""The arithmetic of sampling that both implementations share bit for bit, in plain numpy.

Nothing depends on the order of a sum: everything that is summed is a whole number. With x = logit - largest logit, in
float32,

    mass(x) = round(2^44 * e^x),

0 below -32, where e^x is the float32 polynomial of `exponentials`. Sums of up to 2^19 masses fit 64 bits exactly, and
so do the comparisons with p * sum. Single logarithms, powers and roots are those of the C library in double precision.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LARGEST_LOGIT = np.float32(1e30)
"""Logits lie between this and its negative, or are -inf: then no step overflows."""
MASS_OF_ONE = 2.0**44
_LOWEST = np.float32(-32.0)  # below it, a mass is 0
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding and subtracting it rounds a float32 to a whole number
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)  # nine bits: exact in products with small whole numbers
_LN2_LOW = np.float32(-2.12194440054690583e-4)
_TAYLOR = [np.float32(1.0 / math.factorial(n)) for n in range(6, -1, -1)]
_WORD = 0xFFFFFFFF


def limited(value: np.float32) -> np.float32:
    """A logit that was changed, within the limits; -inf stays."""
    if value == -np.inf:
        return value
    return max(min(value, LARGEST_LOGIT), -LARGEST_LOGIT)


def exponentials(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """e^x for x <= 0 within 3e-7, in float32 operations that are the same everywhere; e^-32 below -32."""
    x = np.asarray(x, dtype=np.float32)
    inside = np.maximum(x, _LOWEST)
    powers = (inside * _LOG2_E + _ROUND) - _ROUND
    rest = (inside - powers * _LN2_HIGH) - powers * _LN2_LOW
    result = np.full_like(rest, _TAYLOR[0])
    for coefficient in _TAYLOR[1:]:
        result = result * rest + coefficient
    scaled: NDArray[np.float32] = result * ((powers.astype(np.int32) + 127) << 23).view(np.float32)
    return scaled


def masses(distances: NDArray[np.float32]) -> NDArray[np.uint64]:
    """The weights of tokens whose logits lie `distances` (0 or less) from the largest."""
    return np.rint(exponentials(distances).astype(np.float64) * MASS_OF_ONE).astype(np.uint64)


def mean_distance(distances: NDArray[np.float32]) -> tuple[float, float]:
    """The mean of `distances` (0 or less), weighted by probability, and the logarithm of the sum of e^x.

    Weights have 30 bits and distances 15 behind the point: e^x * |x| is at most 1/e, so the sum of 2^19 products stays
    below 2^63.
    """
    x = np.maximum(distances, _LOWEST).astype(np.float64)
    weights = np.rint(exponentials(distances).astype(np.float64) * 2.0**30)
    total = int(weights.astype(np.int64).sum())
    weighted = int((weights * np.rint(x * -(2.0**15))).astype(np.int64).sum())
    return -(float(weighted) / float(total)) / 2.0**15, math.log(float(total) / 2.0**30)


def standard_deviation(distances: NDArray[np.float32]) -> float:
    """Of numbers (0 or less, finite), rounded to 20 bits of the widest, so that their squares add up exactly."""
    widest = float(-distances.min())
    if widest == 0.0:
        return 0.0
    scale = 2.0 ** (20 - math.frexp(widest)[1])
    steps = np.rint(distances.astype(np.float64) * -scale).astype(np.int64)
    count, total, squares = len(steps), int(steps.sum()), int((steps * steps).sum())
    return math.sqrt(float(count * squares - total * total)) / count / scale


def target_mass(p: float, total: int) -> int:
    """The mass that is p of the whole."""
    return min(math.ceil(p * float(total)), total)


def random_word(seed: int, position: int, stream: int = 0) -> int:
    """64 random bits for one token: Philox 4x32-10 (Salmon et al., SC11), key = seed, counter = (position, stream).

    The first two words of the result are used, the first as the high half.
    """
    counter = (position & _WORD, position >> 32 & _WORD, stream, 0)
    words = philox4x32(counter, (seed & _WORD, seed >> 32 & _WORD))
    return words[0] << 32 | words[1]


def random_fraction(seed: int, position: int, stream: int) -> float:
    """From 0 to below 1, in steps of 2^-53."""
    return (random_word(seed, position, stream) >> 11) * 2.0**-53


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds of Philox over four words of 32 bits."""
    for _ in range(10):
        product0, product1 = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = (
            (product1 >> 32) ^ counter[1] ^ key[0],
            product1 & _WORD,
            (product0 >> 32) ^ counter[3] ^ key[1],
            product0 & _WORD,
        )
        key = (key[0] + 0x9E3779B9 & _WORD, key[1] + 0xBB67AE85 & _WORD)
    return counter
