"""Where free text turns into a constrained one: looking for triggers in tokens that arrive one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quipu.chat.constraints.matcher import GrammarConstraint
from quipu.chat.constraints.vocabulary import GrammarVocabulary
from quipu.errors import EngineError


class Triggers(NamedTuple):
    """What ends the free text.

    Attributes:
        texts: as UTF-8, none of them empty. They may have the texts of control tokens in them.
        token_ids: tokens that are triggers by themselves.
        is_included: the grammar describes the trigger too.
        is_required: the answer must not end before a trigger.
        across: tokens with a whole trigger in them and more after it.
    """

    texts: tuple[bytes, ...]
    token_ids: frozenset[int]
    is_included: bool
    is_required: bool
    across: tuple[int, ...]


def tokens_across(texts: Sequence[bytes], vocabulary: GrammarVocabulary) -> tuple[int, ...]:
    """The tokens with a whole trigger in them and more after it."""
    found = []
    for token in range(vocabulary.size):
        data = vocabulary.token_bytes(token)
        ends = [start + len(text) for text in texts if (start := data.find(text)) >= 0]
        if ends and min(ends) < len(data):
            found.append(token)
    return tuple(found)


class LazyConstraint:
    """A grammar that begins at a trigger. Until then anything may come, short of what could not go on after it.

    A token may hold the end of a trigger and text after it; while such a token could come, there is a mask that
    forbids those whose text does not begin the grammar.

    Args:
        begin: makes the constraint, at the beginning of its text.
        triggers: what it begins at.
        vocabulary: whose tokens.
    """

    def __init__(
        self, begin: Callable[[], GrammarConstraint], triggers: Triggers, vocabulary: GrammarVocabulary
    ) -> None:
        self._begin = begin
        self._triggers = triggers
        self._vocabulary = vocabulary
        self._constraint: GrammarConstraint | None = None
        self._tail = b""  # the text so far, as much of it as may begin a trigger
        self._longest = max(map(len, triggers.texts), default=0)
        self._refused: dict[bytes, tuple[int, ...]] = {}  # by tail
        self._has_ended = False

    @property
    def is_active(self) -> bool:
        """Whether a mask is needed."""
        return self._constraint is not None or bool(self._refused_after(self._tail))

    @property
    def is_complete(self) -> bool:
        """Whether nothing but a token that ends the answer may follow."""
        return self._has_ended or (self._constraint is not None and self._constraint.is_complete)

    def fill_masks(self, drafts: Sequence[int], masks: NDArray[np.int32]) -> int:
        """As `GrammarConstraint.fill_masks`; everything is allowed before the trigger."""
        if self._constraint is not None:
            return self._constraint.fill_masks(drafts, masks)
        tail, has_ended = self._tail, self._has_ended
        for row in range(len(drafts) + 1):
            masks[row] = -1
            bits = masks[row].view(np.uint32)
            for token in self._refused_after(tail) if not has_ended else ():
                bits[token >> 5] &= np.uint32(~(1 << (token & 31)) & 0xFFFFFFFF)
            if row == len(drafts) or not masks[row][drafts[row] >> 5] >> (drafts[row] & 31) & 1:
                return row
            has_ended = has_ended or drafts[row] in self._vocabulary.end_ids
            rest = self._rest_after(tail, drafts[row])
            if rest is not None and not has_ended:
                # It begins within the drafts: a constraint for the others, which the step does not keep.
                constraint = self._started(rest)
                assert constraint is not None, "a token with a wrong rest is refused"
                try:
                    return row + 1 + constraint.fill_masks(drafts[row + 1 :], masks[row + 1 :])
                except EngineError:
                    return row  # it comes up again if the draft is chosen
            tail = self._next_tail(tail, drafts[row])
        raise AssertionError("the last row returns")

    def accept(self, token_ids: Sequence[int]) -> None:
        """Take tokens that were chosen, and look for a trigger in them.

        Raises:
            EngineError: one that follows the trigger does not fit.
        """
        for index, token_id in enumerate(token_ids):
            if self._constraint is not None:
                self._constraint.accept(token_ids[index:])
                return
            if token_id in self._vocabulary.end_ids and token_id not in self._triggers.token_ids:
                self._has_ended = True
            rest = None if self._has_ended else self._rest_after(self._tail, token_id)
            if rest is None:
                self._tail = self._next_tail(self._tail, token_id)
                continue
            self._constraint = self._begin()
            self._constraint.accept(rest)

    def validate(self, token_ids: Sequence[int]) -> int:
        """How many of the tokens may follow, one after the other."""
        if self._constraint is not None:
            return self._constraint.validate(token_ids)
        masks = np.empty((len(token_ids) + 1, (self._vocabulary.size + 31) // 32), dtype=np.int32)
        return self.fill_masks(token_ids, masks)

    def forced_tokens(self, limit: int) -> list[int]:
        """As `GrammarConstraint.forced_tokens`; none before the trigger."""
        return [] if self._constraint is None else self._constraint.forced_tokens(limit)

    def _started(self, rest: Sequence[int]) -> GrammarConstraint | None:
        """A constraint that has taken `rest`, or None if it does not fit."""
        constraint = self._begin()
        if constraint.validate(rest) < len(rest):
            return None
        constraint.accept(rest)
        return constraint

    def _next_tail(self, tail: bytes, token_id: int) -> bytes:
        data = self._vocabulary.tokens[token_id]
        return (tail + data)[-(self._longest - 1) :] if self._longest > 1 else b""

    def _rest_after(self, tail: bytes, token_id: int) -> list[int] | None:
        """What the grammar has to take at once if `token_id` completes a trigger; None if it does not."""
        triggers = self._triggers
        if token_id in triggers.token_ids:
            return [token_id] if triggers.is_included else []
        text = tail + self._vocabulary.tokens[token_id]
        found = [(start + len(trigger), start) for trigger in triggers.texts if (start := text.find(trigger)) >= 0]
        if not found:
            return None
        end, start = min(found)
        data = text[start if triggers.is_included else end :]
        return self._vocabulary.tokenize(data) if data else []

    def _refused_after(self, tail: bytes) -> tuple[int, ...]:
        """The tokens that would complete a trigger and go on with what the grammar does not take."""
        if tail not in self._refused:
            if len(self._refused) >= 1024:
                self._refused.clear()
            self._refused[tail] = self._find_refused(tail)
        return self._refused[tail]

    def _find_refused(self, tail: bytes) -> tuple[int, ...]:
        candidates = set(self._triggers.across)
        for trigger in self._triggers.texts:
            for length in range(1, min(len(tail), len(trigger) - 1) + 1):
                if tail.endswith(trigger[:length]):
                    candidates.update(self._vocabulary.extensions_of(trigger[length:]))
        refused = list(self._vocabulary.end_ids - self._triggers.token_ids) if self._triggers.is_required else []
        for token in candidates - set(refused):
            rest = self._rest_after(tail, token)
            if rest is not None and self._started(rest) is None:
                refused.append(token)
        return tuple(refused)
