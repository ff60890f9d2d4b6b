"""How long a step takes, learned from the steps that were run: t = a + b * tokens + c * tokens * context.

`a` is what any step costs (reading the weights once), `b` what a token adds, `c` what a token adds for every earlier
token it attends to. The scheduler cuts prompts by it; speculation asks it whether a draft pays.

The three are found by weighted least squares, recursively: each observation is folded into sums that slowly forget.
Errors are relative, so a step of one token says as much as one of five hundred. Two things differ from the textbook:

- Sums are kept, and forgotten, per class of step size. A thousand steps of one token say nothing about prompts, and
  must not push out what is known of them.
- An observation far off is given less weight (Huber 1964), in proportion to how far off steps usually are: one step
  that the system delayed changes little, a machine that stays slower is followed.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

_FORGET = 0.95  # per observation of the same class: about twenty steps count
_TOKENS_SCALE, _PRODUCT_SCALE = 64.0, 65536.0  # keep the three sums of like size
_NUM_SUMS = 10
_NUM_CLASSES = 12  # of steps: 1, 2-3, 4-7, ... tokens
_USUAL_ERROR = 0.1  # relative, before anything is known
_LEAST_ERROR = 0.02  # the clock and the system are no better
_ERROR_RATE = 0.1
_HUBER = 3.0  # usual errors up to which an observation has its full weight
_REFIT = 8  # observations after which the coefficients are found anew, unless somebody asks before
_FEWEST_KNOWN = 3  # observations of a class before one can be far off
_RIDGE = 1e-6  # of the largest sum: decides where observations leave a coefficient open
_SHORTEST_S = 1e-9
_UNLIMITED = 1 << 31


class StepTimes(NamedTuple):
    """The coefficients, in seconds; none is negative."""

    base_s: float
    per_token_s: float
    per_product_s: float  # per token and token of its context


class StepTimeModel:
    """Observes steps and predicts them.

    Attributes:
        num_observed: steps that were observed.
        last_times: the coefficients when they were last needed; what other threads may read.
    """

    def __init__(self) -> None:
        self.num_observed = 0
        self._sums = [[0.0] * _NUM_SUMS for _ in range(_NUM_CLASSES)]
        self._counts = [0] * _NUM_CLASSES
        self._usual_error = _USUAL_ERROR
        self.last_times = StepTimes(0.0, 0.0, 0.0)
        self._num_fitted = 0  # observations that the coefficients know of

    @property
    def times(self) -> StepTimes:
        """The coefficients as of now; all 0 before the first step."""
        if self._num_fitted < self.num_observed:
            self._fit()
        return self.last_times

    def predict(self, num_tokens: float, context: float) -> float:
        """Seconds of a step of `num_tokens` that attend to `context` tokens each, on average; 0 before the first."""
        base_s, per_token_s, per_product_s = self.times
        return base_s + num_tokens * (per_token_s + per_product_s * context)

    def num_tokens_within(self, seconds: float, num_computed: int) -> int:
        """Most tokens, after `num_computed` others of their sequence, that lengthen a step by at most `seconds`.

        A chunk of n tokens attends to num_computed + n / 2 tokens on average, hence a quadratic equation.
        """
        _, per_token_s, per_product_s = self.times
        linear = per_token_s + per_product_s * num_computed
        # n * linear + n^2 * per_product_s / 2 = seconds, solved in the form that cancels nothing.
        divisor = linear + math.sqrt(linear * linear + 2 * per_product_s * seconds)
        if divisor > 0:
            return int(min(2 * seconds / divisor, _UNLIMITED))
        return 0 if linear + per_product_s > 0 else _UNLIMITED

    def observe(self, num_tokens: int, context: float, seconds: float) -> None:
        """Learn from a step of `num_tokens` that attended to `context` tokens each, on average."""
        seconds = max(seconds, _SHORTEST_S)
        weight = 1.0
        size_class = min(num_tokens.bit_length() - 1, _NUM_CLASSES - 1)
        if self._counts[size_class] >= _FEWEST_KNOWN:
            # The coefficients need not be the latest: solving for them at each step would cost more than all the rest.
            known = self.last_times
            predicted_s = known.base_s + num_tokens * (known.per_token_s + known.per_product_s * context)
            error = abs(seconds - predicted_s) / max(min(seconds, predicted_s), _SHORTEST_S)
            limit = _HUBER * max(self._usual_error, _LEAST_ERROR)
            weight = min(1.0, limit / error) if error > 0 else 1.0
            # A single step cannot raise the usual error at will, a lasting change can.
            self._usual_error += _ERROR_RATE * (min(error, 2 * limit) - self._usual_error)
        y, z = num_tokens / _TOKENS_SCALE, num_tokens * context / _PRODUCT_SCALE
        sums = self._sums[size_class]
        products = (1.0, y, z, y * y, y * z, z * z, seconds, y * seconds, z * seconds, seconds * seconds)
        for i, value in enumerate(products):
            sums[i] = _FORGET * sums[i] + weight * value
        self._counts[size_class] += 1
        self.num_observed += 1
        if self.num_observed - self._num_fitted >= min(_REFIT, self.num_observed // 2):
            self._fit()

    def _fit(self) -> None:
        self._num_fitted = self.num_observed
        # Each class divided by its mean squared time: errors are relative.
        relative = [[value * sums[0] / sums[-1] for value in sums] for sums in self._sums if sums[0] > 0]
        self.last_times = _best_times([sum(column) for column in zip(*relative, strict=True)])


def _best_times(sums: list[float]) -> StepTimes:
    """The non-negative coefficients that fit best: of every choice of those that are not 0, the best valid one.

    Where the steps so far leave it open, time is put down to the tokens: then nothing large is believed to be free.

    Args:
        sums: of 1, y, z, y*y, y*z, z*z, t, y*t, z*t, t*t for the scaled tokens y, products z and seconds t.
    """
    count, y, z, yy, yz, zz, *right, _ = sums
    matrix = [[count, y, z], [y, yy, yz], [z, yz, zz]]
    every = _solve(matrix, right)
    if every is not None and min(every) >= 0:
        return StepTimes(every[0], every[1] / _TOKENS_SCALE, every[2] / _PRODUCT_SCALE)
    best, best_gain = (0.0, 0.0, 0.0), 0.0
    for size in (1, 2):
        for chosen in itertools.combinations((1, 0, 2), size):
            solution = _solve([[matrix[i][j] for j in chosen] for i in chosen], [right[i] for i in chosen])
            if solution is None or min(solution) < 0:
                continue
            # What the solution takes off the sum of squares, if it solves its equations.
            gain = sum(value * right[i] for value, i in zip(solution, chosen, strict=True))
            if gain > best_gain * (1 + 1e-12):
                values = dict(zip(chosen, solution, strict=True))
                best, best_gain = (values.get(0, 0.0), values.get(1, 0.0), values.get(2, 0.0)), gain
    return StepTimes(best[0], best[1] / _TOKENS_SCALE, best[2] / _PRODUCT_SCALE)


def _solve(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Gaussian elimination of a positive definite system; None where it is close to singular."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i in range(size):
        if rows[i][i] <= _RIDGE * matrix[i][i] or rows[i][i] <= 0:
            return None
        for j in range(i + 1, size):
            factor = rows[j][i] / rows[i][i]
            rows[j] = [b - factor * a for a, b in zip(rows[i], rows[j], strict=True)]
    solution = [0.0] * size
    for i in reversed(range(size)):
        known = sum(rows[i][j] * solution[j] for j in range(i + 1, size))
        solution[i] = (rows[i][size] - known) / rows[i][i]
    return solution
