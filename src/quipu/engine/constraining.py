"""Constrained requests: compiled while they wait, masked in every step, moved on by the tokens that are chosen.

A grammar may take long to compile, so it happens in threads, and the scheduler passes the request over until it is
done. What cannot be compiled ends its own request and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from quipu.engine.sequence import SequenceState
from quipu.errors import EngineError, InvalidRequestError, QuipuError
from quipu.types import ConstraintSpec

_NUM_THREADS = 2


class TokenConstraint(Protocol):
    """Which tokens may come next in one sequence. Mutable; used by one thread at a time."""

    @property
    def is_active(self) -> bool:
        """Whether a mask is needed: not before a trigger."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing but a token that ends the answer may follow."""

    def fill_masks(self, drafts: Sequence[int], masks: NDArray[np.int32]) -> int:
        """Write rows 0 ... k of int32 [len(drafts) + 1, ceil(vocab / 32)], for the k drafts that are allowed."""

    def accept(self, token_ids: Sequence[int]) -> None:
        """Take tokens that were chosen."""

    def forced_tokens(self, limit: int) -> list[int]:
        """Up to `limit` tokens that no other text leads around."""


CompileConstraint = Callable[[ConstraintSpec], TokenConstraint]


class Refusal(NamedTuple):
    """A request that cannot go on because of its constraint.

    Attributes:
        sequence: the request.
        error: one sentence.
        field: where the request is at fault, the name of the field.
    """

    sequence: SequenceState
    error: str
    field: str = ""


class Compiling:
    """A constraint that is being made: done once `Constraining.settle` has seen it come out well."""

    def __init__(self) -> None:
        self.is_ready = False

    def done(self) -> bool:
        return self.is_ready


class Constraining:
    """The constraints of an engine's requests.

    `submit` may be called from any thread; all else by the one that steps.

    Args:
        compile_constraint: makes a constraint; may take long, and is called in other threads.
        vocab_size: tokens that a mask covers.
    """

    def __init__(self, compile_constraint: CompileConstraint | None, vocab_size: int) -> None:
        self._compile = compile_constraint
        self._num_words = (vocab_size + 31) // 32
        self._threads: ThreadPoolExecutor | None = None
        self._compiling: dict[SequenceState, tuple[Future[TokenConstraint], Compiling]] = {}
        self._constraints: dict[SequenceState, TokenConstraint] = {}
        self._masks = np.zeros((0, self._num_words), dtype=np.int32)

    def check(self, spec: ConstraintSpec | None) -> None:
        """
        Raises:
            InvalidRequestError: the engine works without a vocabulary, which constraints need.
        """
        if spec is not None and self._compile is None:
            raise InvalidRequestError(
                "constraints need the model's vocabulary, and this engine has none; leave the constraint out",
                field=spec.field,
            )

    def submit(self, sequence: SequenceState, spec: ConstraintSpec) -> Compiling:
        """Begin to compile the constraint of a sequence, which is to wait for what this returns."""
        assert self._compile is not None, "`check` refuses them"
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="constraints")
        compiling = Compiling()
        self._compiling[sequence] = self._threads.submit(self._compile, spec), compiling
        return compiling

    def settle(self) -> list[Refusal]:
        """Let constraints that have come out since the last call take effect; those that are refused."""
        refused: list[Refusal] = []
        for sequence, (future, compiling) in tuple(self._compiling.items()):
            if not future.done():
                continue
            del self._compiling[sequence]
            try:
                self._constraints[sequence] = future.result()
                compiling.is_ready = True
            except InvalidRequestError as error:
                refused.append(Refusal(sequence, str(error), error.field or "constraint"))
            except QuipuError as error:
                refused.append(Refusal(sequence, str(error)))
        return refused

    def forced_tokens(self, sequence: SequenceState, limit: int) -> list[int]:
        """Free drafts for a sequence: what its constraint leaves no choice about."""
        constraint = self._constraints.get(sequence)
        return [] if constraint is None else constraint.forced_tokens(limit)

    def fill(
        self, sequences: Iterable[tuple[SequenceState, Sequence[int]]]
    ) -> tuple[dict[SequenceState, NDArray[np.int32]], list[Refusal]]:
        """The masks of a step.

        Args:
            sequences: those for which tokens are about to be chosen, and their drafts.

        Returns:
            For each sequence that needs one a mask, int32 [k + 1, ceil(vocab / 32)] for the k drafts that are allowed
            (the others are not to be looked at); and the sequences that cannot go on. The masks hold until the next
            call.
        """
        if not self._constraints:
            return {}, []
        active = [
            (sequence, drafts, self._constraints[sequence])
            for sequence, drafts in sequences
            if sequence in self._constraints and (len(drafts) or self._constraints[sequence].is_active)
        ]
        num_rows = sum(len(drafts) + 1 for _, drafts, _ in active)
        if num_rows > len(self._masks):
            self._masks = np.empty((num_rows, self._num_words), dtype=np.int32)
        masks: dict[SequenceState, NDArray[np.int32]] = {}
        refused: list[Refusal] = []
        first = 0
        for sequence, drafts, constraint in active:
            rows = self._masks[first : first + len(drafts) + 1]
            first += len(rows)
            try:
                masks[sequence] = rows[: constraint.fill_masks(drafts, rows) + 1]
            except EngineError as error:
                refused.append(Refusal(sequence, str(error)))
        return masks, refused

    def accept(self, sequence: SequenceState, token_ids: Sequence[int]) -> bool:
        """Take the tokens that were chosen for a sequence, and say whether its answer is complete by that.

        Raises:
            EngineError: a token does not fit the constraint.
        """
        constraint = self._constraints.get(sequence)
        if constraint is None:
            return False
        constraint.accept(token_ids)
        return constraint.is_complete

    def drop(self, sequence: SequenceState) -> None:
        """Forget a sequence that has ended."""
        self._constraints.pop(sequence, None)
        future, _ = self._compiling.pop(sequence, (None, None))
        if future is not None:
            future.cancel()

    def reset(self) -> None:
        """Forget all requests."""
        for sequence in (*self._compiling, *self._constraints):
            self.drop(sequence)

    def close(self) -> None:
        """End the threads, after what they are at."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
