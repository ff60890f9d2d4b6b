"""The definition of every sampling step, in plain numpy. It stays for ever as the oracle of the native sampler.

A step changes logits, or the set of tokens in play. Tokens with equal logits are ranked by their ids, the lower first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from quipu.engine.sampler import NOT_A_NUMBER, NOTHING_ALLOWED, ChainStep, Draw, Drawn
from quipu.engine.sampling_numbers import (
    LARGEST_LOGIT,
    MASS_OF_ONE,
    limited,
    masses,
    mean_distance,
    random_fraction,
    random_word,
    standard_deviation,
    target_mass,
)
from quipu.engine.sampling_repetition import last, penalize, penalize_repetition
from quipu.types import TokenLogprobs

_LOWEST_TEMPERATURE = 1e-6
_XTC_STREAM = 1  # of random numbers
_MIROSTAT_TOKENS = 100  # that the first version estimates the slope from
_INFILL_TOKENS = 256  # the likeliest ones, among which beginnings are compared
# The shape of adaptive-p's preference, constants of its definition in llama.cpp (MIT), pull request 17927.
_WIDTH, _PEAK, _SHARPNESS = np.float32(1.0) / np.float32(0.3), np.float32(5.0), np.float32(10.0)


@dataclass(frozen=True)
class ReferenceChain:
    """One request's steps."""

    steps: tuple[ChainStep, ...]
    bias: Mapping[int, float]
    early_forbidden: tuple[int, ...]
    early_end: int
    post_sampling_probs: bool


@dataclass
class ReferenceState:
    """What the last step remembers of a sequence: mirostat's mu, or adaptive-p's weighted sum and total weight."""

    values: list[float]


@dataclass
class Play:
    """One row on its way through a chain.

    Attributes:
        logits: float32 [vocab].
        ids: the tokens in play, ascending.
        seed, position: what random numbers are made of.
        is_allowed: bool [vocab], which tokens are not forbidden from the beginning.
    """

    logits: NDArray[np.float32]
    ids: NDArray[np.int64]
    seed: int
    position: int
    is_allowed: NDArray[np.bool_]

    @property
    def distances(self) -> NDArray[np.float32]:
        """Logits of the tokens in play, less the largest."""
        values = self.logits[self.ids]
        result: NDArray[np.float32] = values - values.max()
        return result

    @property
    def ranked(self) -> NDArray[np.int64]:
        """The tokens in play, the likeliest first."""
        return self.ids[np.argsort(-self.logits[self.ids], kind="stable")]

    def keep(self, ids: NDArray[np.int64]) -> None:
        """Only these stay in play."""
        self.ids = np.sort(ids)

    def take_out(self, ids: NDArray[np.int64]) -> None:
        """These do not stay in play."""
        self.ids = np.setdiff1d(self.ids, ids)


@dataclass
class Choice:
    """A token, and the distribution it was drawn from.

    Attributes:
        ids: with a probability above 0, ascending.
        weights: of `ids`, up to a common factor.
        ranks: of `ids`, larger for likelier ones; weights are rounded.
    """

    token_id: int
    ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    weights: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    ranks: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))


class ReferenceSampler:
    """Carries out chains step by step over whole arrays."""

    def chain(
        self,
        steps: Sequence[ChainStep],
        bias: Mapping[int, float],
        *,
        early_forbidden: Collection[int] = (),
        early_end: int = 0,
        post_sampling_probs: bool = False,
    ) -> ReferenceChain:
        return ReferenceChain(tuple(steps), dict(bias), tuple(early_forbidden), early_end, post_sampling_probs)

    def state(self, chain: ReferenceChain) -> ReferenceState:
        name, values, *_ = chain.steps[-1]
        if name in ("mirostat", "mirostat_v2"):
            return ReferenceState([2.0 * values[0]])
        if name == "adaptive_p":  # as if the target had been met all along
            return ReferenceState([values[0] / (1.0 - values[1]), 1.0 / (1.0 - values[1])])
        return ReferenceState([])

    def sample_batch(self, logits: NDArray[np.float32], draws: Sequence[Draw]) -> list[Drawn]:
        with np.errstate(over="ignore", invalid="ignore"):
            results = []
            first_row = 0
            for draw in draws:
                rows = logits[first_row : first_row + len(draw.drafts) + 1]
                results.append(_sample_sequence(rows, draw))
                first_row += len(rows)
            assert first_row == len(logits), "rows of logits are left over"
            return results

    def logprobs(self, logits: NDArray[np.float32], token_ids: NDArray[np.int32], num_top: int) -> list[TokenLogprobs]:
        with np.errstate(invalid="ignore"):
            return [model_logprobs(row, token, num_top) for row, token in zip(logits, token_ids.tolist(), strict=True)]


def _sample_sequence(rows: NDArray[np.float32], draw: Draw) -> Drawn:
    """The tokens of one sequence, as long as its drafts come true."""
    drafts = draw.drafts.tolist()
    token_ids: list[int] = []
    found: list[TokenLogprobs] = []
    for number, row in enumerate(rows):
        history = np.concatenate([draw.history, np.array(token_ids, dtype=np.int32)])
        mask = None if draw.masks is None else draw.masks[number]
        choice = sample_row(draw.chain, draw.state, row, history, mask, draw.seed, draw.position + number)
        token_ids.append(choice.token_id)
        if choice.token_id < 0:
            break
        if draw.num_logprobs >= 0:
            if draw.chain.post_sampling_probs:
                found.append(_choice_logprobs(choice, draw.num_logprobs))
            else:
                found.append(model_logprobs(row, choice.token_id, draw.num_logprobs))
        if number == len(drafts) or choice.token_id != drafts[number]:
            break
    return Drawn(token_ids, found if draw.num_logprobs >= 0 else None)


def sample_row(
    chain: ReferenceChain,
    state: ReferenceState,
    row: NDArray[np.float32],
    history: NDArray[np.int32],
    mask: NDArray[np.int32] | None,
    seed: int,
    position: int,
) -> Choice:
    """The token for float32 logits [vocab]."""
    if not is_valid(row):
        return Choice(NOT_A_NUMBER)
    logits = row.copy()
    if mask is not None:
        logits[~allowed_by(mask, len(row))] = -np.inf
    for token, bias in chain.bias.items():
        logits[token] = limited(logits[token] + np.float32(bias))
    if position < chain.early_end:
        logits[list(chain.early_forbidden)] = -np.inf
    play = Play(logits, np.arange(len(row)), seed, position, logits > -np.inf)
    for step in chain.steps:
        if logits[play.ids].max() == -np.inf:
            return Choice(NOTHING_ALLOWED)
        if step.name in _ENDS:
            return _ENDS[step.name](play, state, *step.values)
        _STEPS[step.name](play, step, history)
    raise ValueError("a chain ends with a step that chooses")


def is_valid(row: NDArray[np.float32]) -> bool:
    """Whether logits are numbers that steps can work on."""
    largest = row.max()
    return bool(np.all(row <= LARGEST_LOGIT)) and (largest == -np.inf or largest >= -LARGEST_LOGIT)  # false with NaN


def allowed_by(mask: NDArray[np.int32], vocab_size: int) -> NDArray[np.bool_]:
    """Which tokens have their bit set."""
    return np.unpackbits(mask.view(np.uint8), count=vocab_size, bitorder="little").astype(np.bool_)


# --- steps that change logits ---------------------------------------------------------------------------------------


def _penalties(play: Play, step: ChainStep, history: NDArray[np.int32]) -> None:
    last_n, repeat, frequency, presence = step.values
    _change_those_in_play(
        play, lambda logits: penalize(logits, last(history, int(last_n)), repeat, frequency, presence)
    )


def _dry(play: Play, step: ChainStep, history: NDArray[np.int32]) -> None:
    last_n, multiplier, base, allowed_length = step.values
    tokens = last(history, int(last_n))
    _change_those_in_play(
        play, lambda logits: penalize_repetition(logits, tokens, step.sequences, multiplier, base, int(allowed_length))
    )


def _change_those_in_play(play: Play, change: Callable[[NDArray[np.float32]], None]) -> None:
    changed = play.logits.copy()
    change(changed)
    play.logits[play.ids] = changed[play.ids]


def _temperature(play: Play, step: ChainStep, history: NDArray[np.int32]) -> None:
    play.logits *= np.float32(1.0 / step.values[0])


def _dynamic_temperature(play: Play, step: ChainStep, history: NDArray[np.int32]) -> None:
    """Between two temperatures, by the entropy as a part of the largest possible one (arXiv:2309.02772)."""
    lowest, highest, exponent = step.values
    if len(play.ids) == 1:
        return
    mean, log_sum = mean_distance(play.distances)
    part = min(max((log_sum - mean) / math.log(float(len(play.ids))), 0.0), 1.0)
    temperature = max(lowest + (highest - lowest) * math.pow(part, exponent), _LOWEST_TEMPERATURE)
    play.logits *= np.float32(1.0 / temperature)


def _top_n_sigma(play: Play, step: ChainStep, history: NDArray[np.int32]) -> None:
    """Forbid what lies more than n standard deviations below the best (arXiv:2411.07641). It stays in play at -inf."""
    distances = play.distances
    largest = float(play.logits[play.ids].max())
    lowest = largest - step.values[0] * standard_deviation(distances[distances > -np.inf])
    play.logits[play.ids[play.logits[play.ids].astype(np.float64) < lowest]] = -np.inf


# --- steps that take tokens out of play -----------------------------------------------------------------------------


def _top_k(play: Play, step: ChainStep, history: NDArray[np.int32]) -> None:
    """The k largest."""
    play.keep(play.ranked[: int(step.values[0])])


def _typical(play: Play, step: ChainStep, history: NDArray[np.int32]) -> None:
    """Locally typical sampling (arXiv:2202.00666): the tokens whose surprise is nearest to the expected one.

    The surprise of a token is log(sum) - x, hence its distance from the mean is |x - mean of x|.
    """
    p, min_keep = step.values
    distances = play.distances
    scores = np.abs(distances - np.float32(mean_distance(distances)[0]))
    order = np.lexsort((play.ids, scores))
    play.keep(_smallest_with_mass(play.ids[order], masses(distances)[order], p, int(min_keep)))


def _top_p(play: Play, step: ChainStep, history: NDArray[np.int32]) -> None:
    """Nucleus sampling (arXiv:1904.09751): the fewest of the most likely tokens whose probability reaches p."""
    p, min_keep = step.values
    ranked = play.ranked
    weights = masses(play.logits[ranked] - play.logits[ranked[0]])
    play.keep(_smallest_with_mass(ranked, weights, p, int(min_keep)))


def _smallest_with_mass(
    ids: NDArray[np.int64], weights: NDArray[np.uint64], p: float, min_keep: int
) -> NDArray[np.int64]:
    """The shortest beginning of `ids` whose weight reaches p of the whole, but at least `min_keep`."""
    sums = np.cumsum(weights)
    target = target_mass(p, int(sums[-1]))
    count = int(np.searchsorted(sums, np.uint64(target), side="left")) + 1
    return ids[: max(count, min_keep)]


def _min_p(play: Play, step: ChainStep, history: NDArray[np.int32]) -> None:
    """Tokens that are at least e^log_p times as likely as the most likely one."""
    log_p, min_keep = step.values
    values = play.logits[play.ids].astype(np.float64)
    kept = play.ids[values >= values.max() + log_p]
    play.keep(kept if len(kept) >= min_keep else play.ranked[: int(min_keep)])


def _xtc(play: Play, step: ChainStep, history: NDArray[np.int32]) -> None:
    """Exclude top choices (by p-e-w): sometimes, of the tokens with a certain probability only the last stays."""
    probability, threshold, min_keep = step.values
    if len(play.ids) < 2 or random_fraction(play.seed, play.position, _XTC_STREAM) >= probability:
        return
    ranked = play.ranked
    weights = masses(play.logits[ranked] - play.logits[ranked[0]]).astype(np.float64)
    likely = ranked[(weights > 0) & (weights >= threshold * float(int(weights.astype(np.uint64).sum())))]
    taken = likely[:-1]
    if len(taken) > 0 and len(ranked) - len(taken) >= min_keep:
        play.take_out(taken)


def _infill(play: Play, step: ChainStep, history: NDArray[np.int32]) -> None:
    """llama.cpp's sampler for the middle of a text: be certain, or end.

    Where ending is likely, it ends. Else tokens that are beginnings of others are counted as one with them, those that
    are unlikely then are dropped, and where nothing but an end is left, it ends.
    """
    texts = step.texts
    assert texts is not None
    play.keep(play.ranked[:_INFILL_TOKENS])
    play.ids = play.ids[masses(play.distances) > 0]
    ranked = play.ranked
    weights = masses(play.logits[ranked] - play.logits[ranked[0]]).astype(np.int64)
    is_end = np.isin(ranked, texts.end_ids)
    end_mass, text_mass = int(weights[is_end].sum()), int(weights[~is_end].sum())
    if 3 * end_mass * len(ranked) > text_mass:
        play.keep(ranked[is_end])
        return
    pieces = [b"" if end else texts.piece(token) for token, end in zip(ranked.tolist(), is_end, strict=True)]
    combined = _combine_beginnings(weights.tolist(), pieces)
    total = sum(combined)
    is_kept = np.array([end or 5 * mass >= total for mass, end in zip(combined, is_end, strict=True)])
    num_texts = int((is_kept & ~is_end).sum())
    if num_texts == 0:
        end_id = next((token for token in texts.end_ids if token < len(play.logits) and play.is_allowed[token]), None)
        play.keep(ranked[:1] if end_id is None else np.array([end_id]))
        play.logits[play.ids] = np.maximum(play.logits[play.ids], -LARGEST_LOGIT)
        return
    total = sum(mass for mass, kept in zip(combined, is_kept, strict=True) if kept)
    is_kept &= np.array([end or (num_texts + 1) * mass >= total for mass, end in zip(combined, is_end, strict=True)])
    play.keep(ranked[is_kept])


def _combine_beginnings(weights: list[int], pieces: list[bytes]) -> list[int]:
    """Weights, with those of tokens that begin another's text, or go on from it, added to the likelier of the two."""
    combined = list(weights)
    is_gone = [False] * len(weights)
    for first, beginning in enumerate(pieces):
        for second, text in enumerate(pieces):
            if is_gone[first]:
                break
            if first == second or is_gone[second] or not beginning or not text.startswith(beginning):
                continue
            to, source = (second, first) if combined[second] > combined[first] else (first, second)
            combined[to] += combined[source]
            combined[source] = 0
            is_gone[source] = True
    return combined


# --- steps that choose ----------------------------------------------------------------------------------------------


def _dist(play: Play, state: ReferenceState) -> Choice:
    return draw(play, play.distances)


def _greedy(play: Play, state: ReferenceState) -> Choice:
    best = int(play.ids[np.argmax(play.logits[play.ids])])
    return Choice(best, np.array([best]), np.array([1], dtype=np.uint64), np.zeros(1, dtype=np.float32))


def _adaptive_p(play: Play, state: ReferenceState, target: float, decay: float) -> Choice:
    """Prefer tokens whose probability is near a target, which moves against the average of what was chosen."""
    play.ids = play.ids[play.logits[play.ids] > -np.inf]
    weights = masses(play.distances)
    total = float(int(weights.sum()))
    weighted_sum, total_weight = state.values
    aim = np.float32(min(max(2.0 * target - weighted_sum / total_weight, 0.0), 1.0))
    probabilities = (weights.astype(np.float64) / total).astype(np.float32)
    distances = np.abs((probabilities - aim) * _WIDTH)
    preferences = _PEAK - _SHARPNESS * distances * distances / (np.float32(1.0) + distances)
    choice = draw(play, preferences - preferences.max())
    chosen = float(weights[np.searchsorted(play.ids, choice.token_id)]) / total
    state.values[:] = [chosen + decay * weighted_sum, 1.0 + decay * total_weight]
    return choice


def _mirostat(play: Play, state: ReferenceState, tau: float, eta: float) -> Choice:
    """Mirostat (arXiv:2007.14966): top-k, with k from the slope of the likeliest tokens and the surprise aimed at."""
    values = play.logits[play.ranked]
    values = values[values > -np.inf][:_MIROSTAT_TOKENS].astype(np.float64).tolist()
    products = squares = 0.0
    for number, (value, lower) in enumerate(itertools.pairwise(values)):
        step = math.log(float(number + 2) / float(number + 1))
        products += step * (value - lower)
        squares += step * step
    count = _mirostat_count(products, squares, state.values[0], len(play.logits))
    play.keep(play.ranked[: min(max(count, 1), len(play.ids))])
    return _observed(play, state, tau, eta)


def _mirostat_count(products: float, squares: float, mu: float, vocab_size: int) -> int:
    """The number of tokens whose surprise is about mu, where probabilities fall by Zipf's law."""
    slope = products / squares if squares > 0.0 else 0.0
    excess = slope - 1.0
    if slope <= 0.0:
        return vocab_size
    whole = 1.0 - math.pow(float(vocab_size), -excess)
    if whole == 0.0:
        return vocab_size
    # Both have the sign of excess. The logarithm keeps huge powers finite.
    log_count = (math.log(excess / whole) + mu * math.log(2.0)) / slope
    return vocab_size if log_count > 20.0 else int(math.exp(log_count))


def _mirostat_v2(play: Play, state: ReferenceState, tau: float, eta: float) -> Choice:
    """Mirostat 2.0: drop what is more surprising than mu."""
    total = float(int(masses(play.distances).sum()))
    lowest = math.log(total / MASS_OF_ONE) - state.values[0] * math.log(2.0)
    kept = play.ids[play.distances.astype(np.float64) >= lowest]
    play.keep(kept if len(kept) > 0 else play.ranked[:1])
    return _observed(play, state, tau, eta)


def _observed(play: Play, state: ReferenceState, tau: float, eta: float) -> Choice:
    """Draw, and move mu by how far the surprise was from tau."""
    choice = draw(play, play.distances)
    chosen = float(choice.weights[np.searchsorted(choice.ids, choice.token_id)])
    surprise = -math.log2(chosen / float(int(choice.weights.sum())))
    state.values[0] -= eta * (surprise - tau)
    return choice


def draw(play: Play, distances: NDArray[np.float32]) -> Choice:
    """Pick by probability: the first token, by id, at which the running sum exceeds word / 2^64 of the whole.

    Args:
        distances: of the tokens in play from the likeliest; 0 or less.
    """
    weights = masses(distances)
    sums = np.cumsum(weights)
    target = (random_word(play.seed, play.position) * int(sums[-1])) >> 64
    token = int(play.ids[np.searchsorted(sums, np.uint64(target), side="right")])
    has_weight = weights > 0
    return Choice(token, play.ids[has_weight], weights[has_weight], distances[has_weight])


_STEPS: Mapping[str, Callable[[Play, ChainStep, NDArray[np.int32]], None]] = MappingProxyType(
    {
        "penalties": _penalties,
        "dry": _dry,
        "top_n_sigma": _top_n_sigma,
        "top_k": _top_k,
        "typical": _typical,
        "top_p": _top_p,
        "min_p": _min_p,
        "xtc": _xtc,
        "temperature": _temperature,
        "dynamic_temperature": _dynamic_temperature,
        "infill": _infill,
    }
)
_ENDS: Mapping[str, Callable[..., Choice]] = MappingProxyType(
    {
        "dist": _dist,
        "greedy": _greedy,
        "adaptive_p": _adaptive_p,
        "mirostat": _mirostat,
        "mirostat_v2": _mirostat_v2,
    }
)


# --- log probabilities ----------------------------------------------------------------------------------------------


def model_logprobs(row: NDArray[np.float32], token_id: int, num_top: int) -> TokenLogprobs:
    """Of the logits as the model gave them; NaN if they hold one."""
    if not is_valid(row):
        return TokenLogprobs(token_id, math.nan)
    distances = row - row.max()
    log_sum = math.log(float(int(masses(distances).sum())) / MASS_OF_ONE)
    best = np.argsort(-row, kind="stable")[:num_top]
    best = best[row[best] > -np.inf]
    top = tuple((token, float(distances[token]) - log_sum) for token in best.tolist())
    return TokenLogprobs(token_id, float(distances[token_id]) - log_sum, top)


def _choice_logprobs(choice: Choice, num_top: int) -> TokenLogprobs:
    """Of the distribution that a token was drawn from."""
    total = float(int(choice.weights.sum()))
    logprobs = [math.log(weight / total) for weight in choice.weights.astype(np.float64).tolist()]
    order = np.argsort(-choice.ranks, kind="stable")[:num_top]
    top = tuple((int(choice.ids[index]), logprobs[index]) for index in order.tolist())
    return TokenLogprobs(choice.token_id, logprobs[int(np.searchsorted(choice.ids, choice.token_id))], top)
