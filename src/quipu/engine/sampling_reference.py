"""The definition of every sampling step, in plain numpy. It stays for ever as the oracle of the native sampler.

Both give the same token, bit for bit, because nothing depends on the order of a sum: the weight of a token is a whole
number. With x = logit - largest logit (divided by the temperature in the last step), in float32,

    mass(x) = floor(2^44 * e^x),  0 where x < -31,

where e^x is the float32 polynomial of `exponentials`. Sums of up to 2^19 masses fit 64 bits exactly, and so do the
comparisons with p * sum. Tokens with equal logits are ranked by their ids, the lower first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from quipu.engine.sampler import NOT_A_NUMBER, NOTHING_ALLOWED, ChainStep

_MASS_OF_ONE = 2.0**44
_LOWEST = np.float32(-31.0)  # below it, a mass is 0
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding and subtracting it rounds a float32 to a whole number
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)  # nine bits: exact in products with small whole numbers
_LN2_LOW = np.float32(-2.12194440054690583e-4)
_TAYLOR = [np.float32(1.0 / math.factorial(n)) for n in range(6, -1, -1)]
_LARGEST = np.finfo(np.float32).max


class ReferenceSampler:
    """Carries out chains step by step over whole arrays."""

    def chain(self, steps: Sequence[ChainStep], bias: Mapping[int, float]) -> ReferenceChain:
        return ReferenceChain(steps, bias)

    def sample_batch(
        self,
        logits: NDArray[np.float32],
        chains: Sequence[ReferenceChain],
        histories: Sequence[NDArray[np.int32]],
        seeds: NDArray[np.uint64],
        positions: NDArray[np.int64],
    ) -> list[int]:
        rows = zip(logits, chains, histories, seeds.tolist(), positions.tolist(), strict=True)
        with np.errstate(over="ignore", invalid="ignore"):
            return [
                chain.sample(row, history, random_word(seed, position)) for row, chain, history, seed, position in rows
            ]


class ReferenceChain:
    """One request's steps."""

    def __init__(self, steps: Sequence[ChainStep], bias: Mapping[int, float]) -> None:
        self._steps = tuple(steps)
        self._bias = dict(bias)

    def sample(self, logits: NDArray[np.float32], history: NDArray[np.int32], word: int) -> int:
        """The token for float32 logits [vocab], recent tokens, and a random word of 64 bits; or a negative code."""
        if not np.all(logits <= _LARGEST):  # a comparison with NaN is false
            return NOT_A_NUMBER
        logits = logits.copy()
        for token, bias in self._bias.items():
            logits[token] = _at_most_largest(logits[token] + np.float32(bias))
        ids = np.arange(len(logits))
        temperature = np.float32(1.0)
        for name, values in self._steps:
            if name == "penalties":
                penalize(logits, history, *values)
            if np.max(logits) == -np.inf:
                return NOTHING_ALLOWED
            if name == "greedy":
                return int(np.argmax(logits))
            if name == "top_k":
                ids = top_k(logits, ids, int(values[0]))
            elif name == "typical":
                ids = typical(logits, ids, values[0], int(values[1]))
            elif name == "top_p":
                ids = top_p(logits, ids, values[0], int(values[1]))
            elif name == "min_p":
                ids = min_p(logits, ids, values[0], int(values[1]))
            elif name == "temperature":
                temperature = np.float32(values[0])
            elif name == "dist":
                return draw(logits, ids, temperature, word)
        raise ValueError("a chain ends with greedy or dist")


# All of the following take logits float32 [vocab] and the ids of the tokens still in play, in ascending order, and
# return those that stay, in ascending order.


def penalize(
    logits: NDArray[np.float32], history: NDArray[np.int32], repeat: float, frequency: float, presence: float
) -> None:
    """Change the logits of the tokens in `history`: repeat (arXiv:1909.05858), frequency and presence penalties."""
    tokens, counts = np.unique(history, return_counts=True)
    for token, count in zip(tokens.tolist(), counts.tolist(), strict=True):
        value = logits[token]
        value = value * np.float32(repeat) if value <= 0 else value / np.float32(repeat)
        penalty = np.float32(count) * np.float32(frequency) + np.float32(presence)
        logits[token] = _at_most_largest(value - penalty)


def top_k(logits: NDArray[np.float32], ids: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The k largest."""
    return np.sort(_ranked(logits, ids)[:k])


def typical(logits: NDArray[np.float32], ids: NDArray[np.int64], p: float, min_keep: int) -> NDArray[np.int64]:
    """Locally typical sampling (arXiv:2202.00666): the tokens whose surprise is nearest to the expected one.

    The surprise of a token is log(sum) - x, hence its distance from the mean is |x - mean of x|.
    """
    distances = _distances(logits, ids, np.float32(1.0))
    weights = masses(distances)
    some = weights > 0
    # A sum in the order of ids: cumsum, unlike sum, adds one by one.
    weighted = np.cumsum(weights[some].astype(np.float64) * distances[some].astype(np.float64))[-1]
    mean = weighted / float(weights.sum())
    scores = np.abs(distances.astype(np.float64) - mean)
    order = np.lexsort((ids, scores))
    return _smallest_with_mass(ids[order], weights[order], p, min_keep)


def top_p(logits: NDArray[np.float32], ids: NDArray[np.int64], p: float, min_keep: int) -> NDArray[np.int64]:
    """Nucleus sampling (arXiv:1904.09751): the fewest of the most likely tokens whose probability reaches p."""
    ranked = _ranked(logits, ids)
    return _smallest_with_mass(ranked, masses(_distances(logits, ranked, np.float32(1.0))), p, min_keep)


def min_p(logits: NDArray[np.float32], ids: NDArray[np.int64], log_p: float, min_keep: int) -> NDArray[np.int64]:
    """Tokens that are at least e^log_p times as likely as the most likely one."""
    values = logits[ids].astype(np.float64)
    kept = ids[values >= values.max() + log_p]
    return kept if len(kept) >= min_keep else top_k(logits, ids, min_keep)


def draw(logits: NDArray[np.float32], ids: NDArray[np.int64], temperature: np.float32, word: int) -> int:
    """Pick by probability: the first token, by id, at which the running sum exceeds word / 2^64 of the whole."""
    weights = masses(_distances(logits, ids, temperature))
    sums = np.cumsum(weights)
    target = (word * int(sums[-1])) >> 64
    return int(ids[np.searchsorted(sums, np.uint64(target), side="right")])


def masses(distances: NDArray[np.float32]) -> NDArray[np.uint64]:
    """The weights of tokens whose logits lie `distances` (0 or less) from the largest."""
    weights: NDArray[np.uint64] = (exponentials(distances).astype(np.float64) * _MASS_OF_ONE).astype(np.uint64)
    return weights


def exponentials(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """e^x for x <= 0 within 3e-7, in float32 operations that are the same everywhere; 0 below -31."""
    x = np.asarray(x, dtype=np.float32)
    inside = np.maximum(x, _LOWEST)
    powers = (inside * _LOG2_E + _ROUND) - _ROUND
    rest = (inside - powers * _LN2_HIGH) - powers * _LN2_LOW
    result = np.full_like(rest, _TAYLOR[0])
    for coefficient in _TAYLOR[1:]:
        result = result * rest + coefficient
    scale: NDArray[np.float32] = ((powers.astype(np.int32) + 127) << 23).view(np.float32)
    return np.where(x < _LOWEST, np.float32(0.0), result * scale)


def random_word(seed: int, position: int) -> int:
    """64 random bits for one token: Philox 4x32-10 (Salmon et al., SC11), key = seed, counter = position.

    The first two words of the result are used, the first as the high half.
    """
    words = philox4x32((position & _WORD, position >> 32 & _WORD, 0, 0), (seed & _WORD, seed >> 32 & _WORD))
    return words[0] << 32 | words[1]


_WORD = 0xFFFFFFFF


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


def _ranked(logits: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """`ids` with the largest logit first, equal ones by id."""
    return ids[np.argsort(-logits[ids], kind="stable")]


def _distances(logits: NDArray[np.float32], ids: NDArray[np.int64], temperature: np.float32) -> NDArray[np.float32]:
    values = logits[ids]
    result: NDArray[np.float32] = (values - values.max()) / temperature
    return result


def _smallest_with_mass(
    ids: NDArray[np.int64], weights: NDArray[np.uint64], p: float, min_keep: int
) -> NDArray[np.int64]:
    """The shortest beginning of `ids` whose weight reaches p of the whole, but at least `min_keep`."""
    sums = np.cumsum(weights)
    target = min(math.ceil(p * float(sums[-1])), int(sums[-1]))
    count = int(np.searchsorted(sums, np.uint64(target), side="left")) + 1
    return np.sort(ids[: max(count, min_keep)])


def _at_most_largest(value: np.float32) -> np.float32:
    return min(value, _LARGEST)
