"""Guesses at the next tokens of a sequence that cost next to nothing: what followed the same tokens earlier.

Known as prompt lookup decoding: answers that quote their prompt, edit its code, or repeat themselves go on as before.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from quipu.engine.sequence import SequenceState

LONGEST_KEY = 4  # tokens that are looked up
_LONG_MATCH = 8  # tokens before the place found that agree: then it is more than chance
_KEY_BITS = 32
_MOST_INDEXED = 1 << 15  # tokens; memory is bounded by these, also for sequences that never end
_NO_TOKENS: NDArray[np.int32] = np.zeros(0, dtype=np.int32)


class Proposal(NamedTuple):
    """Drafted tokens.

    Attributes:
        kind: what speaks for them; how often drafts come true is counted for each kind by itself.
        token_ids: int32, the guess at the tokens that follow the known ones.
    """

    kind: str
    token_ids: NDArray[np.int32]


NO_PROPOSAL = Proposal("", _NO_TOKENS)


class Drafter(Protocol):
    """Guesses at the next tokens of one sequence."""

    def propose(self, sequence: SequenceState, limit: int) -> Proposal:
        """Up to `limit` tokens, 1 or more, that may follow the known ones."""


class NgramDrafter:
    """Finds the last place where the last 4, 3, 2 or 1 tokens stood before, and proposes what followed there.

    One per sequence. The index grows with the sequence: for every length, the tokens before a place lead to the latest
    such place. A token costs one entry for each length, whether the prompt is long or short.
    """

    def __init__(self) -> None:
        self._places: list[dict[int, int]] = [{} for _ in range(LONGEST_KEY)]
        self._begin = 0  # the first token of the index
        self._end = 0  # the place of the first token that nothing in the index leads to
        self._num_dropped = 0

    @property
    def num_entries(self) -> int:
        """Entries of the index."""
        return sum(map(len, self._places))

    def propose(self, sequence: SequenceState, limit: int) -> Proposal:
        self._update(sequence)
        end = sequence.num_known
        last = sequence.tokens(max(self._begin, end - LONGEST_KEY), end).tolist()
        for length in range(len(last), 0, -1):
            place = self._places[length - 1].get(_key(last[-length:]))
            if place is not None:
                return Proposal(f"ngram{self._agreeing(sequence, place, length)}", _following(sequence, place, limit))
        return NO_PROPOSAL

    def _update(self, sequence: SequenceState) -> None:
        """Take in the tokens that became known."""
        if sequence.num_dropped != self._num_dropped or sequence.num_known - self._begin > 2 * _MOST_INDEXED:
            for places in self._places:
                places.clear()
            self._num_dropped = sequence.num_dropped
            self._begin = self._end = max(0, sequence.num_known - _MOST_INDEXED)
        # The last tokens have no follower yet, so that they do not find themselves.
        first = max(self._begin, self._end - LONGEST_KEY)
        tokens = sequence.tokens(first, sequence.num_known).tolist()
        for place in range(max(self._end, self._begin + 1), sequence.num_known):
            key = 0
            for length in range(1, min(LONGEST_KEY, place - self._begin) + 1):
                key |= tokens[place - length - first] << (_KEY_BITS * (length - 1))
                self._places[length - 1][key] = place
        self._end = sequence.num_known

    def _agreeing(self, sequence: SequenceState, place: int, length: int) -> int:
        """How many tokens before the place are those at the end: `length`, or _LONG_MATCH if at least as many."""
        if length < LONGEST_KEY or place - self._begin < _LONG_MATCH:
            return length
        end = sequence.num_known
        before, last = sequence.tokens(place - _LONG_MATCH, place), sequence.tokens(end - _LONG_MATCH, end)
        return _LONG_MATCH if np.array_equal(before, last) else length


def _key(tokens: list[int]) -> int:
    """A number for the tokens, which are below 2^31: the last one in the lowest bits."""
    key = 0
    for token in tokens:
        key = key << _KEY_BITS | token
    return key


def _following(sequence: SequenceState, place: int, limit: int) -> NDArray[np.int32]:
    """int32 [limit]: the tokens from a place on; where they come to the end, it goes on with what was drafted."""
    tokens = sequence.tokens(place, min(place + limit, sequence.num_known))
    return tokens.copy() if len(tokens) == limit else np.resize(tokens, limit)
