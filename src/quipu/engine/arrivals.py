"""From a request to the sequences that the engine computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from quipu.engine.sampler import Sampler, request_chain
from quipu.engine.sampling_numbers import random_word
from quipu.engine.sequence import Detokenizer, SequenceState
from quipu.engine.sequence_cache import SequenceCache
from quipu.engine.token_texts import TokenTexts
from quipu.errors import InvalidRequestError
from quipu.types import Request

_SEED_BYTES = 4
_CHOICE_POSITIONS = 1 << 63  # no token lies there: the positions whose random words are the seeds of further choices


class EngineTokenizer(Protocol):
    """What the engine needs of a tokenizer; see quipu.tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_of_generation_ids(self) -> frozenset[int]: ...

    def detokenizer(self) -> Detokenizer: ...

    def token_bytes(self, token_id: int) -> bytes: ...

    def encode(self, text: str, *, add_special: bool = True) -> list[int]: ...


class Arrivals:
    """Makes the sequences of requests, numbered as they come.

    Args:
        tokenizer: gives text and the tokens that end a generation; None to work on token ids alone.
        sampler: keeps a state for each sequence.
        cache: hashes their beginnings.
        vocab_size: token ids are below it.
        ctx_size: most tokens of a sequence.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        tokenizer: EngineTokenizer | None,
        sampler: Sampler,
        cache: SequenceCache,
        *,
        vocab_size: int,
        ctx_size: int,
        clock: Callable[[], float],
    ) -> None:
        self._tokenizer = tokenizer
        self._texts = None if tokenizer is None else TokenTexts(tokenizer)
        self._sampler = sampler
        self._cache = cache
        self.vocab_size = vocab_size
        self.ctx_size = ctx_size
        self._clock = clock
        self._num_arrivals = 0

    def check_ids(self, request: Request) -> None:
        """
        Raises:
            InvalidRequestError: something that must be a token id of the vocabulary is none.
        """
        self._check_ids("prompt", request.prompt_token_ids)
        self._check_ids("logit_bias", tuple(request.sampling.logit_bias))
        self._check_ids("stop_token_ids", request.sampling.stop_token_ids)

    def open(self, request: Request) -> list[SequenceState]:
        """The choices of a request that has been checked."""
        sampling = request.sampling
        tokenizer = self._tokenizer
        generation_end_ids = frozenset[int]()
        if tokenizer is not None:
            generation_end_ids = frozenset(id for id in tokenizer.end_of_generation_ids if id < self.vocab_size)
        end_ids = generation_end_ids | frozenset(sampling.stop_token_ids)
        chain = request_chain(
            self._sampler,
            sampling,
            num_prompt=len(request.prompt_token_ids),
            end_ids=end_ids,
            generation_end_ids=generation_end_ids,
            texts=self._texts,
        )
        seed = int.from_bytes(os.urandom(_SEED_BYTES)) if sampling.seed is None else sampling.seed % 2**64
        arrival_s = self._clock()
        choices: list[SequenceState] = []
        for choice in range(request.num_choices):
            self._num_arrivals += 1
            sequence = SequenceState(
                request,
                choice=choice,
                siblings=choices,
                number=self._num_arrivals,
                ctx_size=self.ctx_size,
                seed=choice_seed(seed, choice),
                chain=chain,
                sampler_state=self._sampler.state(chain),
                end_ids=end_ids,
                detokenizer=None if tokenizer is None else tokenizer.detokenizer(),
                text_vocab_size=0 if tokenizer is None else tokenizer.vocab_size,
                arrival_s=arrival_s,
            )
            sequence.prefix = self._cache.chain(request)
            choices.append(sequence)
        return choices

    def _check_ids(self, field: str, token_ids: Sequence[int]) -> None:
        try:
            ids = np.asarray(token_ids)
        except ValueError:  # lists of several lengths
            ids = np.zeros((1, 1))
        if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
            raise InvalidRequestError(f"{field} must be made of token ids, which are whole numbers", field=field)
        outside = ids[(ids < 0) | (ids >= self.vocab_size)]
        if outside.size:
            raise InvalidRequestError(
                f"{field}: token id {outside[0]} is outside the vocabulary of {self.vocab_size} tokens", field=field
            )


def choice_seed(seed: int, choice: int) -> int:
    """The seed of one of a request's choices: the first has the request's own, the others random words of it."""
    return seed if choice == 0 else random_word(seed, _CHOICE_POSITIONS + choice)
