"""The definition of sampling, against probabilities in float64, published vectors of the generator, and statistics."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quipu.engine import sampling_reference as reference
from quipu.engine.sampler import ChainStep, chain_steps, num_penalized
from quipu.engine.sampling_reference import ReferenceSampler
from quipu.errors import InvalidRequestError
from quipu.types import SamplingParams

# What llama.cpp's samplers (llama-cpp-python 0.3.36: penalties, top_k, typical, top_p, min_p, temp, dist) leave of 60
# random rows: the tokens still in play, and their probabilities.
CHAINS = Path(__file__).resolve().parents[1] / "data" / "sampling" / "llama_cpp_chains.npz"


def some_logits(seed: int, size: int = 300, scale: float = 3.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # Known answers that come with Random123, the authors' implementation.
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_generator(counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert reference.philox4x32(counter, key) == expected


def test_random_words_are_even() -> None:
    words = np.array([reference.random_word(seed, place) / 2**64 for seed in range(40) for place in range(100)])
    assert abs(words.mean() - 0.5) < 0.02
    counts = np.histogram(words, bins=16, range=(0, 1))[0]
    assert ((counts - 250) ** 2 / 250).sum() < 40  # chi-squared with 15 degrees of freedom, p about 0.0005
    assert len(set(words)) == len(words)


def test_exponentials() -> None:
    x = -np.random.default_rng(0).uniform(0, 31, 10_000).astype(np.float32)
    assert np.allclose(reference.exponentials(x), np.exp(x.astype(np.float64)), rtol=3e-7, atol=0)
    edges = np.array([0, -0.0, -31, -31.001, -1e30, -np.inf], dtype=np.float32)
    assert reference.exponentials(edges).tolist()[:2] == [1.0, 1.0]
    assert reference.masses(edges).tolist() == [2**44, 2**44, 0, 0, 0, 0]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), st.floats(0.01, 0.999))
def test_truncation_follows_its_definition(seed: int, k: int, p: float) -> None:
    logits = some_logits(seed)
    ids = np.arange(len(logits))
    order = np.argsort(-logits)
    chances = probabilities(logits)
    assert set(reference.top_k(logits, ids, k)) == set(order[:k])
    sums = np.cumsum(chances[order])
    near = np.abs(sums - p).min() < 1e-5  # float32 rounding may decide either way
    count = int(np.searchsorted(sums, p)) + 1
    assert near or set(reference.top_p(logits, ids, p, 1)) == set(order[:count])
    near = np.abs(chances / chances.max() - p).min() < 1e-5
    assert near or set(reference.min_p(logits, ids, math.log(p), 1)) == set(ids[chances >= p * chances.max()])
    surprise = -np.log(chances)
    distance = np.abs(surprise - (chances * surprise).sum())
    by_distance = np.argsort(distance)
    sums = np.cumsum(chances[by_distance])
    gaps = np.diff(np.sort(distance)).min() < 1e-6 or np.abs(sums - p).min() < 1e-5
    count = int(np.searchsorted(sums, p)) + 1
    assert gaps or set(reference.typical(logits, ids, p, 1)) == set(by_distance[:count])


def remaining(
    logits: NDArray[np.float32], sampling: SamplingParams, history: NDArray[np.int32]
) -> Iterator[tuple[int, float]]:
    """The tokens that a chain leaves, with their probabilities."""
    ids = np.arange(len(logits))
    temperature = np.float32(1.0)
    for name, values in chain_steps(sampling):
        if name == "penalties":
            reference.penalize(logits, history[-sampling.repeat_last_n :], *values)
        elif name == "top_k":
            ids = reference.top_k(logits, ids, int(values[0]))
        elif name == "temperature":
            temperature = np.float32(values[0])
        elif name != "dist":
            ids = getattr(reference, name)(logits, ids, values[0], int(values[1]))
    weights = reference.masses((logits[ids] - logits[ids].max()) / temperature).astype(np.float64)
    yield from zip(ids.tolist(), (weights / weights.sum()).tolist(), strict=True)


def test_chains_leave_what_llama_cpp_leaves() -> None:
    with np.load(CHAINS) as arrays:
        for number, parameters in enumerate(json.loads(str(arrays["parameters"]))):
            history = arrays[f"history/{number}"].astype(np.int32)
            left = dict(remaining(arrays[f"logits/{number}"].copy(), SamplingParams(**parameters), history))
            assert list(left) == arrays[f"ids/{number}"].tolist(), parameters
            assert list(left.values()) == pytest.approx(arrays[f"probabilities/{number}"].tolist(), abs=1e-6)


def test_min_keep() -> None:
    logits = np.array([9.0, 1.0, 5.0, 0.0], dtype=np.float32)
    ids = np.arange(4)
    assert reference.top_p(logits, ids, 0.0, 1).tolist() == [0]
    assert reference.top_p(logits, ids, 0.0, 3).tolist() == [0, 1, 2]
    assert reference.min_p(logits, ids, 0.0, 2).tolist() == [0, 2]
    assert len(reference.typical(logits, ids, 0.0, 2)) == 2
    assert ("top_k", [5]) in chain_steps(SamplingParams(top_k=2, min_keep=5))


def test_ties_go_to_the_lower_id() -> None:
    logits = np.array([1.0, 2.0, 2.0, 2.0, 1.0], dtype=np.float32)
    ids = np.arange(5)
    assert reference.top_k(logits, ids, 2).tolist() == [1, 2]
    assert reference.top_k(logits, ids, 4).tolist() == [0, 1, 2, 3]
    assert reference.top_p(logits, ids, 0.5, 1).tolist() == [1, 2]


def test_penalties() -> None:
    logits = np.array([2.0, -2.0, 1.0, 1.0], dtype=np.float32)
    reference.penalize(logits, np.array([0, 0, 1], dtype=np.int32), 2.0, 0.5, 0.25)
    assert logits.tolist() == [2.0 / 2 - 2 * 0.5 - 0.25, -2.0 * 2 - 0.5 - 0.25, 1.0, 1.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_probabilities(temperature: float) -> None:
    logits = some_logits(1, 12, 1.5)
    expected = probabilities(logits / np.float32(temperature))
    drawn = [
        reference.draw(logits, np.arange(12), np.float32(temperature), reference.random_word(5, place))
        for place in range(8000)
    ]
    counts = np.bincount(drawn, minlength=12)
    assert (((counts - 8000 * expected) ** 2) / (8000 * expected)).sum() < 33  # 11 degrees of freedom, p about 0.0005


def test_order_of_steps() -> None:
    everything = SamplingParams(
        temperature=0.7, top_k=5, top_p=0.9, min_p=0.1, typical_p=0.8, repeat_penalty=1.1, presence_penalty=0.5
    )
    names = [step.name for step in chain_steps(everything)]
    assert names == ["penalties", "top_k", "typical", "top_p", "min_p", "temperature", "dist"]


def test_steps_that_do_nothing_vanish() -> None:
    plain = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    assert chain_steps(plain) == [ChainStep("dist", [])]
    assert chain_steps(SamplingParams(temperature=0.0)) == [ChainStep("greedy", [])]
    assert num_penalized(SamplingParams(repeat_last_n=30)) == 0
    assert num_penalized(SamplingParams(repeat_last_n=30, presence_penalty=0.1)) == 30
    forgetful = SamplingParams(repeat_last_n=0, repeat_penalty=2.0, temperature=0.0)
    assert chain_steps(forgetful) == [ChainStep("greedy", [])]


def test_bias_is_added_first() -> None:
    sampling = SamplingParams(temperature=0.0, logit_bias={3: 100.0, 4: -math.inf})
    sampler = ReferenceSampler()
    chain = sampler.chain(chain_steps(sampling), sampling.logit_bias)
    one = (np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.int64))
    assert sampler.sample_batch(some_logits(0)[None], [chain], [np.zeros(0, dtype=np.int32)], *one) == [3]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", math.nan),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("typical_p", 2),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_k", 2**40),
        ("repeat_penalty", 0.0),
        ("repeat_last_n", -2),
        ("frequency_penalty", 1e300),
        ("max_tokens", -1),
        ("min_tokens", -1),
        ("min_keep", 0),
        ("seed", 0.5),
        ("stop", ("",)),
        ("stop", ("x",) * 1000),
        ("stop", ("x" * 5000,)),
        ("logit_bias", {1: math.nan}),
        ("logit_bias", {1: math.inf}),
        ("logit_bias", {"a": 1.0}),
        ("stop_token_ids", ("a",)),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidRequestError, match=field) as caught:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field
