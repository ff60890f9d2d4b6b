"""The sampler that is used: chains held and carried out by the native module, all rows of a step in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from quipu import _native
from quipu.engine.sampler import ChainStep, Sampler
from quipu.engine.sampling_reference import ReferenceSampler
from quipu.errors import UsageError


class NativeSampler:
    """Carries out chains outside the interpreter lock; chooses the same tokens as `ReferenceSampler`."""

    def chain(self, steps: Sequence[ChainStep], bias: Mapping[int, float]) -> _native.SamplerChain:
        ids = np.fromiter(bias.keys(), dtype=np.int32, count=len(bias))
        values = np.fromiter(bias.values(), dtype=np.float32, count=len(bias))
        return _native.SamplerChain(list(steps), ids, values)

    def sample_batch(
        self,
        logits: NDArray[np.float32],
        chains: Sequence[_native.SamplerChain],
        histories: Sequence[NDArray[np.int32]],
        seeds: NDArray[np.uint64],
        positions: NDArray[np.int64],
    ) -> list[int]:
        return list(_native.sample_batch(logits, chains, histories, seeds, positions))


def choose_sampler() -> Sampler:
    """The native sampler, unless QUIPU_SAMPLER=reference asks for the numpy one.

    Raises:
        UsageError: the variable has another value.
    """
    name = os.environ.get("QUIPU_SAMPLER", "native")
    if name not in ("native", "reference"):
        raise UsageError(f"QUIPU_SAMPLER must be native or reference, not {name!r}")
    return NativeSampler() if name == "native" else ReferenceSampler()
