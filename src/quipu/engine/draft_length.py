"""How many tokens to draft: as many as raise the expected tokens per second, which may be none.

A drafted token comes true with the probability p that earlier ones of its kind did, and a later one only with all that
precede it: of k drafts, p + p^2 + ... + p^k are expected. They make the step longer, by its measured and fitted time.
With one sequence a token more is cheap, since the weights are read once; where many sequences share the step it costs
nearly as much as a step's share of its own, and nothing is drafted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

from quipu.engine.step_time import StepTimeModel, StepTimes

_PRIORS = {"ngram1": 0.2, "ngram2": 0.4, "ngram3": 0.6, "ngram4": 0.7, "ngram8": 0.85, "draft": 0.75, "forced": 0.9}
_LEARNING = 0.15  # per draft that was checked
_RETURN = 1 / 256  # per token without drafts that could have been checked: what did not pay once may pay later
_MOST_RATE = 0.98
_MARGIN = 1.03  # by which the expected tokens per second have to rise: the estimates have errors
_MOST_SIZE = 64  # tokens of steps whose time is remembered by itself
_TIME_LEARNING = 0.2
_TIME_RETURN = 0.01
_LARGEST_CHANGE = 1.5  # that one step makes to a remembered time: the system may have delayed it


class Acceptance:
    """How often drafts come true, for one sequence and each kind of draft."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}

    def rate(self, kind: str) -> float:
        """The probability that the next draft of a kind comes true, if all before it do."""
        return min(self._rates.get(kind, _PRIORS[kind]), _MOST_RATE)

    def observe(self, kind: str, token_ids: Sequence[int], chosen: Sequence[int]) -> None:
        """Learn from a proposal and the tokens that were chosen. Tokens that nobody computed for cost nothing to
        compare: the first token of a proposal is always followed by a chosen one."""
        for drafted, actual in zip(token_ids, chosen, strict=False):
            rate = self._rates.get(kind, _PRIORS[kind])
            self._rates[kind] = rate + _LEARNING * ((drafted == actual) - rate)
            if drafted != actual:
                return

    def relax(self, kind: str) -> None:
        """A token came without a draft of this kind, and nothing was learned."""
        rate = self._rates.get(kind, _PRIORS[kind])
        self._rates[kind] = rate + _RETURN * (_PRIORS[kind] - rate)


class StepCosts:
    """The time of small steps: by size where steps of it were observed, by the fitted model elsewhere.

    The first few tokens of a step are far from a straight line: the second costs more than the eighth.
    """

    def __init__(self, step_time: StepTimeModel) -> None:
        self._step_time = step_time
        self._seconds: dict[int, float] = {}  # by tokens, without the part that depends on the context

    def observe(self, num_tokens: int, context: float, seconds: float) -> None:
        """Learn from a step of `num_tokens` that attended to `context` tokens each, on average."""
        if num_tokens > _MOST_SIZE:
            return
        times = self._step_time.last_times
        seconds -= num_tokens * context * times.per_product_s
        known = self._seconds.get(num_tokens)
        if known is None:
            self._seconds[num_tokens] = max(seconds, 0.0)
            return
        for size, value in self._seconds.items():
            # Sizes that are not tried any more: the machine may have changed, or one slow step misled.
            self._seconds[size] = value + _TIME_RETURN * (times.base_s + size * times.per_token_s - value)
        change = min(max(seconds, known / _LARGEST_CHANGE), known * _LARGEST_CHANGE) - known
        self._seconds[num_tokens] = known + _TIME_LEARNING * change

    def predict(self, num_tokens: int, context: float) -> float:
        """Seconds of a step; 0 before anything is known."""
        times = self._step_time.last_times
        products_s = num_tokens * context * times.per_product_s
        known = self._seconds.get(num_tokens)
        if known is not None:
            return known + products_s
        below = max((size for size in self._seconds if size < num_tokens), default=None)
        above = min((size for size in self._seconds if size > num_tokens), default=None)
        if below is not None and above is not None:
            share = (num_tokens - below) / (above - below)
            return self._seconds[below] + share * (self._seconds[above] - self._seconds[below]) + products_s
        if below is not None:
            return self._seconds[below] + (num_tokens - below) * times.per_token_s + products_s
        if above is not None:
            seconds = self._seconds[above]
            return max(seconds - (above - num_tokens) * times.per_token_s, seconds * num_tokens / above) + products_s
        return times.base_s + num_tokens * times.per_token_s + products_s


class Candidate(NamedTuple):
    """A sequence that could have drafts.

    Attributes:
        rate: the probability that each of them comes true if all before it do.
        limit: most of them.
        costs_time: they have to be computed, by the draft model.
    """

    rate: float
    limit: int
    costs_time: bool = False


def draft_lengths(
    candidates: Sequence[Candidate],
    step_s: Callable[[int], float],
    *,
    num_chosen: int,
    most: int,
    draft_times: StepTimes = StepTimes(0.0, 0.0, 0.0),  # noqa: B008 - immutable
) -> list[int]:
    """Drafts for each candidate, such that the step gives the most tokens per second.

    Tokens are added by falling probability; of all totals the best is taken, not the first that is no gain: the second
    token of a step may not pay where the fourth does.

    Args:
        step_s: seconds of the step with so many drafts in all.
        num_chosen: tokens that it chooses without any.
        most: drafts in all.
        draft_times: of a step of the draft model.
    """
    alone_s = step_s(0)
    lengths = [0] * len(candidates)
    if alone_s <= 0:
        return lengths
    heap = [(-candidate.rate, index) for index, candidate in enumerate(candidates) if candidate.limit > 0]
    heapq.heapify(heap)
    best, best_total = _MARGIN * num_chosen / alone_s, 0
    expected, drafting_s = float(num_chosen), 0.0
    order: list[int] = []
    deepest = 0
    while heap and len(order) < most:
        probability, index = heapq.heappop(heap)
        order.append(index)
        lengths[index] += 1
        expected -= probability
        if candidates[index].costs_time:
            drafting_s += draft_times.per_token_s
            if lengths[index] > deepest:  # another step of the draft model, which all sequences share
                deepest = lengths[index]
                drafting_s += draft_times.base_s
        if lengths[index] < candidates[index].limit:
            heapq.heappush(heap, (probability * candidates[index].rate, index))
        rate = expected / (step_s(len(order)) + drafting_s)
        if rate > best:
            best, best_total = rate, len(order)
    for index in order[best_total:]:
        lengths[index] -= 1
    return lengths
