"""The native sampler chooses exactly what the numpy definition chooses."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quipu import _native
from quipu.engine.native_sampler import NativeSampler
from quipu.engine.sampler import NOT_A_NUMBER, NOTHING_ALLOWED, ChainStep, Sampler, chain_steps
from quipu.engine.sampling_reference import ReferenceSampler
from quipu.types import SamplingParams

NO_HISTORY = np.zeros(0, dtype=np.int32)


def choose(
    sampler: Sampler,
    logits: NDArray[np.float32],
    sampling: SamplingParams,
    history: NDArray[np.int32] = NO_HISTORY,
    num_draws: int = 8,
) -> list[int]:
    """The tokens for the same logits at several positions."""
    chain = sampler.chain(chain_steps(sampling), sampling.logit_bias)
    rows = np.ascontiguousarray(np.broadcast_to(logits, (num_draws, len(logits))))
    seeds = np.full(num_draws, sampling.seed or 0, dtype=np.uint64)
    positions = np.arange(num_draws, dtype=np.int64)
    return sampler.sample_batch(rows, [chain] * num_draws, [history] * num_draws, seeds, positions)


def assert_same(
    logits: NDArray[np.float32], sampling: SamplingParams, history: NDArray[np.int32] = NO_HISTORY, num_draws: int = 8
) -> list[int]:
    before = logits.copy()
    native = choose(NativeSampler(), logits, sampling, history, num_draws)
    assert native == choose(ReferenceSampler(), logits, sampling, history, num_draws)
    assert np.array_equal(before, logits, equal_nan=True)
    return native


probability = st.one_of(st.sampled_from([0.0, 0.5, 1.0 - 2.0**-53, 1.0]), st.floats(0.0, 1.0))


@st.composite
def sampling_params(draw: st.DrawFn) -> SamplingParams:
    def maybe(strategy: st.SearchStrategy[Any], off: Any) -> Any:
        return draw(st.one_of(st.just(off), strategy))

    return SamplingParams(
        temperature=draw(st.sampled_from([0.0, 1e-9, 0.3, 0.8, 1.0, 5.0, 1e5])),
        top_k=maybe(st.integers(1, 300), 0),
        top_p=maybe(probability, 1.0),
        min_p=maybe(probability, 0.0),
        typical_p=maybe(probability, 1.0),
        repeat_penalty=maybe(st.sampled_from([0.5, 1.3, 1e-6, 1e6]), 1.0),
        presence_penalty=maybe(st.floats(-2, 2), 0.0),
        frequency_penalty=maybe(st.floats(-2, 2), 0.0),
        seed=draw(st.integers(0, 2**64 - 1)),
        logit_bias=maybe(
            st.dictionaries(st.integers(0, 4), st.sampled_from([float("-inf"), 3.0, -1e30, 1e30, 0.25])), {}
        ),
        min_keep=maybe(st.integers(1, 20), 1),
    )


@st.composite
def rows_of_logits(draw: st.DrawFn) -> NDArray[np.float32]:
    size = draw(st.one_of(st.integers(5, 40), st.sampled_from([64, 1023, 1024, 1025, 3000])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["normal", "peaked", "ties", "flat", "wide", "forbidden"]))
    if kind == "ties":
        return rng.integers(-3, 4, size).astype(np.float32)
    if kind == "flat":
        return np.full(size, 1.5, dtype=np.float32)
    logits = rng.standard_normal(size).astype(np.float32)
    if kind == "forbidden":
        logits[rng.random(size) < 0.9] = -np.inf
        logits[rng.integers(size)] = 0.0
    return logits * np.float32({"peaked": 10.0, "wide": 1e37}.get(kind, 2.0))


@settings(max_examples=400, deadline=None)
@given(rows_of_logits(), sampling_params(), st.integers(0, 100))
def test_native_equals_reference(logits: NDArray[np.float32], sampling: SamplingParams, num_recent: int) -> None:
    history = np.random.default_rng(num_recent).integers(0, len(logits), num_recent).astype(np.int32)
    assert_same(logits, sampling, history)


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(seed=1),
        SamplingParams(seed=2, top_k=0),
        SamplingParams(seed=3, top_k=0, top_p=1.0, min_p=0.0),
        SamplingParams(seed=4, top_k=0, top_p=1.0, min_p=0.01, min_keep=500),
        SamplingParams(seed=5, top_k=0, top_p=0.5, typical_p=0.7),
        SamplingParams(seed=6, temperature=0.0, repeat_penalty=1.5),
        SamplingParams(seed=7, top_k=2000, top_p=0.9, repeat_penalty=1.1, frequency_penalty=0.3),
    ],
    ids=lambda sampling: f"case {sampling.seed}",
)
def test_real_vocabulary(sampling: SamplingParams) -> None:
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal(151_936) * 2.5).astype(np.float32)
    history = rng.integers(0, len(logits), 64).astype(np.int32)
    assert_same(logits, sampling, history, num_draws=3)


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.0625, 0.0625], dtype=np.float32))
    plain = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=11)
    drawn = choose(NativeSampler(), logits, plain, num_draws=20_000)
    shares = np.bincount(drawn, minlength=5) / 20_000
    assert shares == pytest.approx([0.5, 0.25, 0.125, 0.0625, 0.0625], abs=0.012)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_bad_logits_end_only_their_own_row(bad: float, temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 100)).astype(np.float32)
    sampling = SamplingParams(temperature=temperature, seed=1)
    alone = [choose(NativeSampler(), row, sampling, num_draws=1)[0] for row in logits]
    logits[1, 70] = bad
    for sampler in (NativeSampler(), ReferenceSampler()):
        chain = sampler.chain(chain_steps(sampling), {})
        seeds, positions = np.ones(3, dtype=np.uint64), np.zeros(3, dtype=np.int64)
        chosen = sampler.sample_batch(logits, [chain] * 3, [NO_HISTORY] * 3, seeds, positions)
        assert chosen == [alone[0], NOT_A_NUMBER, alone[2]]


def test_nothing_allowed() -> None:
    logits = np.zeros(3, dtype=np.float32)
    sampling = SamplingParams(logit_bias=dict.fromkeys(range(3), float("-inf")))
    assert set(assert_same(logits, sampling)) == {NOTHING_ALLOWED}
    assert set(assert_same(np.full(9, -np.inf, dtype=np.float32), SamplingParams())) == {NOTHING_ALLOWED}


def test_misuse_is_refused() -> None:
    none = np.zeros(0, dtype=np.int32)
    for steps in ([], [("top_k", [1.0])], [("dist", []), ("dist", [])], [("sorcery", [])], [("top_k", [])]):
        with pytest.raises(ValueError, match="SamplerChain"):
            _native.SamplerChain([*steps], none, np.zeros(0, dtype=np.float32))
    sampler = NativeSampler()
    chain = sampler.chain([ChainStep("greedy", [])], {7: 1.0})
    arguments = (np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.int64))
    with pytest.raises(ValueError, match="out of range"):
        sampler.sample_batch(np.zeros((1, 5), dtype=np.float32), [chain], [NO_HISTORY], *arguments)
    with pytest.raises(ValueError, match="per row"):
        sampler.sample_batch(np.zeros((2, 8), dtype=np.float32), [chain], [NO_HISTORY], *arguments)


def test_threads_can_sample_at_once() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 50_000)).astype(np.float32)
    sampler = NativeSampler()
    chain = sampler.chain(chain_steps(SamplingParams(repeat_penalty=1.1, top_k=0)), {3: 1.0})
    history = np.arange(50, dtype=np.int32)
    seeds, positions = np.arange(4, dtype=np.uint64), np.arange(4, dtype=np.int64)
    results: list[list[int]] = []

    def work() -> None:
        for _ in range(10):
            results.append(sampler.sample_batch(logits, [chain] * 4, [history] * 4, seeds, positions))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 30
    assert all(result == results[0] for result in results)
