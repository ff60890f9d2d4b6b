"""The sampler that is used: chains held and carried out by the native module, all rows of a step in one call."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from quipu import _native
from quipu.engine.sampler import ChainStep, Draw, Drawn, Sampler
from quipu.engine.sampling_reference import ReferenceSampler
from quipu.engine.token_texts import TokenTexts
from quipu.errors import UsageError
from quipu.types import TokenLogprobs


class NativeSampler:
    """Carries out chains outside the interpreter lock; chooses the same tokens as `ReferenceSampler`."""

    def __init__(self) -> None:
        self._pool = _native.SamplerPool()
        self._pieces: WeakKeyDictionary[TokenTexts, _native.TokenPieces] = WeakKeyDictionary()

    def chain(
        self,
        steps: Sequence[ChainStep],
        bias: Mapping[int, float],
        *,
        early_forbidden: Collection[int] = (),
        early_end: int = 0,
        post_sampling_probs: bool = False,
    ) -> _native.SamplerChain:
        return _native.SamplerChain(
            [(step.name, step.values, step.sequences, self._pieces_of(step.texts)) for step in steps],
            np.fromiter(bias.keys(), dtype=np.int32, count=len(bias)),
            np.fromiter(bias.values(), dtype=np.float32, count=len(bias)),
            np.fromiter(early_forbidden, dtype=np.int32, count=len(early_forbidden)),
            early_end,
            post_sampling_probs,
        )

    def state(self, chain: _native.SamplerChain) -> _native.SamplerState:
        return _native.SamplerState(chain)

    def sample_batch(self, logits: NDArray[np.float32], draws: Sequence[Draw]) -> list[Drawn]:
        return [
            Drawn(ids, None if found is None else [_token_logprobs(*item) for item in found])
            for ids, found in self._pool.sample_batch(logits, draws)
        ]

    def logprobs(self, logits: NDArray[np.float32], token_ids: NDArray[np.int32], num_top: int) -> list[TokenLogprobs]:
        return [_token_logprobs(*item) for item in self._pool.logprobs(logits, token_ids, num_top)]

    def _pieces_of(self, texts: TokenTexts | None) -> _native.TokenPieces | None:
        if texts is None:
            return None
        pieces = self._pieces.get(texts)
        if pieces is None:
            offsets = np.cumsum([0, *map(len, texts.pieces)], dtype=np.int64)
            pieces = _native.TokenPieces(b"".join(texts.pieces), offsets, np.array(texts.end_ids, dtype=np.int32))
            self._pieces[texts] = pieces
        return pieces


def _token_logprobs(token_id: int, logprob: float, top: Sequence[tuple[int, float]]) -> TokenLogprobs:
    return TokenLogprobs(token_id, logprob, tuple(top))


def choose_sampler() -> Sampler:
    """The native sampler, unless QUIPU_SAMPLER=reference asks for the numpy one.

    Raises:
        UsageError: the variable has another value.
    """
    name = os.environ.get("QUIPU_SAMPLER", "native")
    if name not in ("native", "reference"):
        raise UsageError(f"QUIPU_SAMPLER must be native or reference, not {name!r}")
    return NativeSampler() if name == "native" else ReferenceSampler()
