"""One constrained sequence: which tokens may come next, by the library's matcher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from quipu.chat.constraints.problems import problem_sentence
from quipu.chat.constraints.vocabulary import GrammarVocabulary
from quipu.errors import EngineError


class GrammarConstraint:
    """A grammar from the first token on.

    Args:
        matcher: at the beginning of the text; belongs to this object.
        vocabulary: whose tokens.

    Attributes:
        is_active: always, for this kind.
    """

    is_active = True

    def __init__(self, matcher: LLMatcher, vocabulary: GrammarVocabulary) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._has_ended = False

    @property
    def is_complete(self) -> bool:
        """Whether nothing but a token that ends the answer may follow."""
        return self._has_ended or (self._matcher.is_stopped() and self._matcher.is_accepting())

    def fill_masks(self, drafts: Sequence[int], masks: NDArray[np.int32]) -> int:
        """Write which tokens may follow: row i after the first i drafts.

        Args:
            drafts: token ids that may be chosen next, one after the other.
            masks: int32 [len(drafts) + 1, ceil(vocabulary / 32)], C order. Bit t % 32 of word t // 32 is set where
                token t is allowed.

        Returns:
            k, how many of the drafts are allowed. Rows 0 ... k are written, those after them are not.

        Raises:
            EngineError: the grammar has become too complex to follow, or came to a dead end, before any draft.
        """
        assert masks.dtype == np.int32
        assert masks.flags.c_contiguous
        assert len(masks) > len(drafts)
        self._fill(masks[0])
        # On a copy, since a matcher does not recover from an error, and a draft need not come true.
        trial = GrammarConstraint(self._matcher.deep_copy(), self._vocabulary) if len(drafts) else self
        for row, draft in enumerate(drafts):
            if not masks[row][draft >> 5] >> (draft & 31) & 1:
                return row
            if draft in self._vocabulary.end_ids:
                set_only(masks[row + 1], self._vocabulary.end_ids)
                return row + 1
            try:
                trial._consume(draft)
                trial._fill(masks[row + 1])
            except EngineError:
                return row  # it comes up again if the draft is chosen
        return len(drafts)

    def accept(self, token_ids: Sequence[int]) -> None:
        """Take tokens that were chosen.

        Raises:
            EngineError: one of them does not fit, or the grammar has become too complex to follow.
        """
        for token_id in token_ids:
            if self._has_ended or token_id in self._vocabulary.end_ids:
                # The library would count an end token in when tokens are taken back, and not be where it was.
                self._has_ended = True
                continue
            self._consume(token_id)

    def validate(self, token_ids: Sequence[int]) -> int:
        """How many of the tokens may follow, one after the other."""
        ends = (index for index, token in enumerate(token_ids) if token in self._vocabulary.end_ids)
        end = next(ends, len(token_ids))
        allowed = 0 if self._has_ended else self._matcher.validate_tokens(list(token_ids[:end]))
        return int(allowed)

    def forced_tokens(self, limit: int) -> list[int]:
        """Up to `limit` tokens that the grammar leaves no other text for, as the tokenizer would cut it."""
        if self._has_ended or limit <= 0:
            return []
        tokens = self._matcher.compute_ff_tokens()[:limit]
        return list(tokens[: self.validate(tokens)])

    def _fill(self, mask: NDArray[np.int32]) -> None:
        if self._has_ended:
            set_only(mask, self._vocabulary.end_ids)
            return
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self._check()
        if self._matcher.is_stopped() and not self._matcher.is_accepting():
            raise EngineError(
                "the constraint came to a dead end: no text can follow; check its grammar for endless rules"
            )

    def _consume(self, token_id: int) -> None:
        self._matcher.consume_token(token_id)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EngineError(f"the constraint cannot be followed: {problem_sentence(self._matcher.get_error())}")


def set_only(mask: NDArray[np.int32], token_ids: frozenset[int]) -> None:
    """Allow these tokens and no others. `mask` is int32 [ceil(vocabulary / 32)]."""
    mask[:] = 0
    bits = mask.view(np.uint32)
    for token_id in token_ids:
        bits[token_id >> 5] |= np.uint32(1 << (token_id & 31))
