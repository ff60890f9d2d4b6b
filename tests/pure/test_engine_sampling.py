"""The definition of sampling, against probabilities in float64, published vectors of the generator, and statistics."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import sampling_draws
from quipu.engine import sampling_numbers as numbers
from quipu.engine import sampling_reference as reference
from quipu.engine.sampler import ChainStep, chain_steps, num_penalized
from quipu.engine.sampling_reference import Play, ReferenceSampler, ReferenceState
from quipu.engine.sampling_repetition import longest_repetitions, penalize, repetition_limit
from quipu.engine.token_texts import TokenTexts
from quipu.errors import InvalidRequestError
from quipu.tokenizer import Tokenizer
from quipu.types import DEFAULT_SAMPLERS, SamplingParams, parse_samplers
from sampling_draws import NO_TOKENS, choose, tokens

# What llama.cpp's samplers (llama-cpp-python 0.3.36: penalties, top_k, typical, top_p, min_p, temp, dist) leave of 60
# random rows: the tokens still in play, and their probabilities.
DATA = Path(__file__).resolve().parents[1] / "data" / "sampling"
CHAINS = DATA / "llama_cpp_chains.npz"
# The same of the other samplers, each alone; written by make_steps.py beside it.
STEPS = DATA / "llama_cpp_steps.npz"


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
    assert numbers.philox4x32(counter, key) == expected


def test_random_words_are_even() -> None:
    words = np.array([numbers.random_word(seed, place) / 2**64 for seed in range(40) for place in range(100)])
    assert abs(words.mean() - 0.5) < 0.02
    counts = np.histogram(words, bins=16, range=(0, 1))[0]
    assert ((counts - 250) ** 2 / 250).sum() < 40  # chi-squared with 15 degrees of freedom, p about 0.0005
    assert len(set(words)) == len(words)


def test_exponentials() -> None:
    x = -np.random.default_rng(0).uniform(0, 31, 10_000).astype(np.float32)
    assert np.allclose(numbers.exponentials(x), np.exp(x.astype(np.float64)), rtol=3e-7, atol=0)
    edges = np.array([0, -0.0, -31, -31.5, -1e30, -np.inf], dtype=np.float32)
    assert numbers.exponentials(edges).tolist()[:2] == [1.0, 1.0]
    assert numbers.masses(edges).tolist() == [2**44, 2**44, 1, 0, 0, 0]


def play_of(logits: NDArray[np.float32], ids: NDArray[np.int64] | None = None) -> Play:
    logits = logits.copy()
    return Play(logits, np.arange(len(logits)) if ids is None else ids, 0, 0, logits > -np.inf)


def left_by(logits: NDArray[np.float32], name: str, *values: float) -> list[int]:
    """The tokens that one step leaves."""
    play = play_of(logits)
    reference._STEPS[name](play, ChainStep(name, list(values)), NO_TOKENS)
    return play.ids[play.logits[play.ids] > -np.inf].tolist()


def test_mean_distance() -> None:
    distances = -np.random.default_rng(0).uniform(0, 12, 5000).astype(np.float32)
    mean, log_sum = numbers.mean_distance(distances)
    weights = np.exp(distances.astype(np.float64))
    assert mean == pytest.approx((weights * distances).sum() / weights.sum(), abs=1e-4)
    assert log_sum == pytest.approx(np.log(weights.sum()), abs=1e-6)


@given(st.integers(0, 2**32), st.floats(1e-6, 1e6), st.integers(1, 3000))
def test_standard_deviation(seed: int, width: float, size: int) -> None:
    values = (np.random.default_rng(seed).standard_normal(size) * width).astype(np.float32)
    values -= values.max()
    exact = values.astype(np.float64).std()
    assert numbers.standard_deviation(values) == pytest.approx(exact, rel=1e-5, abs=1e-5 * width)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), st.floats(0.01, 0.999))
def test_truncation_follows_its_definition(seed: int, k: int, p: float) -> None:
    logits = some_logits(seed)
    ids = np.arange(len(logits))
    order = np.argsort(-logits)
    chances = probabilities(logits)
    assert set(left_by(logits, "top_k", k)) == set(order[:k])
    sums = np.cumsum(chances[order])
    near = np.abs(sums - p).min() < 1e-5  # float32 rounding may decide either way
    count = int(np.searchsorted(sums, p)) + 1
    assert near or set(left_by(logits, "top_p", p, 1)) == set(order[:count])
    near = np.abs(chances / chances.max() - p).min() < 1e-5
    assert near or set(left_by(logits, "min_p", math.log(p), 1)) == set(ids[chances >= p * chances.max()])
    lowest = logits.max() - 3 * p * logits.astype(np.float64).std()
    near = np.abs(logits - lowest).min() < 1e-4
    assert near or set(left_by(logits, "top_n_sigma", 3 * p)) == set(ids[logits >= lowest])
    near = np.abs(chances - p / 4).min() < 1e-6
    likely = order[chances[order] >= p / 4]
    assert near or set(ids) - set(left_by(logits, "xtc", 1.0, p / 4, 1)) == set(likely[:-1])
    surprise = -np.log(chances)
    distance = np.abs(surprise - (chances * surprise).sum())
    by_distance = np.argsort(distance)
    sums = np.cumsum(chances[by_distance])
    gaps = np.diff(np.sort(distance)).min() < 1e-4 or np.abs(sums - p).min() < 1e-5
    count = int(np.searchsorted(sums, p)) + 1
    assert gaps or set(left_by(logits, "typical", p, 1)) == set(by_distance[:count])


def remaining(logits: NDArray[np.float32], sampling: SamplingParams, history: NDArray[np.int32]) -> dict[int, float]:
    """The tokens that a chain leaves, with their probabilities."""
    play = play_of(logits)
    for step in chain_steps(sampling)[:-1]:
        reference._STEPS[step.name](play, step, history)
    return chances_of(play)


def chances_of(play: Play) -> dict[int, float]:
    weights = numbers.masses(play.distances).astype(np.float64)
    chances = (weights / weights.sum()).tolist()
    return {token: chance for token, chance in zip(play.ids.tolist(), chances, strict=True) if chance > 0}


def test_chains_leave_what_llama_cpp_leaves() -> None:
    with np.load(CHAINS) as arrays:
        for number, parameters in enumerate(json.loads(str(arrays["parameters"]))):
            if parameters.get("min_keep", 1) > parameters.get("top_k", 40):
                continue
            history = arrays[f"history/{number}"].astype(np.int32)
            left = remaining(arrays[f"logits/{number}"], SamplingParams(**parameters), history)
            assert list(left) == arrays[f"ids/{number}"].tolist(), parameters
            assert list(left.values()) == pytest.approx(arrays[f"probabilities/{number}"].tolist(), abs=1e-6)


def cases(*names: str) -> list[Any]:
    """(ids, logits, history, description, (ids left, probabilities) of each round)."""
    with np.load(STEPS) as arrays:
        found = []
        for number, case in enumerate(json.loads(str(arrays["cases"]))):
            if case["name"] not in names:
                continue
            rounds = [
                (arrays[f"left/{number}/{turn}"], arrays[f"probabilities/{number}/{turn}"])
                for turn in range(len(case["chosen"]))
            ]
            inputs = [arrays[f"{kind}/{number}"] for kind in ("ids", "logits", "history")]
            found.append((*inputs, case, rounds))
    return found


def assert_left(play: Play, expected: tuple[NDArray[np.int32], NDArray[np.float32]]) -> None:
    left, chances = expected
    mine = chances_of(play)
    assert list(mine) == [token for token, chance in zip(left.tolist(), chances, strict=True) if chance > 1e-13]
    assert list(mine.values()) == pytest.approx(chances[chances > 1e-13].tolist(), abs=2e-6, rel=2e-4)


@pytest.mark.parametrize("name", ["top_n_sigma", "xtc", "dynamic_temperature"])
def test_steps_leave_what_llama_cpp_leaves(name: str) -> None:
    for _, logits, history, case, rounds in cases(name):
        play = play_of(logits)
        reference._STEPS[name](play, ChainStep(name, case["values"]), history)
        play.ids = play.ids[play.logits[play.ids] > -np.inf]
        assert_left(play, rounds[0])


def test_mirostat_follows_llama_cpp() -> None:
    for _, logits, _, case, rounds in cases("mirostat", "mirostat_v2"):
        tau, eta = case["values"]
        state = ReferenceState([2.0 * tau])
        for expected, chosen in zip(rounds, case["chosen"], strict=True):
            play = play_of(logits)
            mu = state.values[0]
            reference._ENDS[case["name"]](play, state, tau, eta)
            assert_left(play, expected)
            state.values[0] = mu - eta * (-math.log2(chances_of(play)[chosen]) - tau)


def test_adaptive_p_follows_llama_cpp() -> None:
    for _, logits, _, case, rounds in cases("adaptive_p"):
        chain = ReferenceSampler().chain([ChainStep("adaptive_p", case["values"])], {})
        state = ReferenceSampler().state(chain)
        for (_, chances), chosen in zip(rounds, case["chosen"], strict=True):
            weighted_sum, total_weight = state.values
            choice = reference._ENDS["adaptive_p"](play_of(logits), state, *case["values"])
            mine = dict(zip(choice.ids.tolist(), (choice.weights / choice.weights.sum()).tolist(), strict=True))
            assert [mine.get(token, 0.0) for token in range(300)] == pytest.approx(chances.tolist(), abs=2e-6)
            decay = case["values"][1]
            model = float(probabilities(logits)[chosen])
            state.values[:] = [model + decay * weighted_sum, 1.0 + decay * total_weight]


def gpt2_texts() -> TokenTexts:
    path = Path(os.environ.get("QUIPU_TEST_DATA", "")) / "vocab" / "ggml-vocab-gpt-2.gguf"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in the folder that QUIPU_TEST_DATA names")
    return TokenTexts(Tokenizer.from_gguf(path))


def test_dry_follows_llama_cpp() -> None:
    breakers = gpt2_texts().breakers(["\n", ":", '"', "*", "abc"])
    changed = 0
    for _, logits, history, case, rounds in cases("dry"):
        play = play_of(logits)
        reference._STEPS["dry"](play, ChainStep("dry", case["values"], breakers), history)
        assert_left(play, rounds[0])
        changed += not np.array_equal(play.logits, logits)
    assert changed > 4


def test_infill_follows_llama_cpp() -> None:
    texts = gpt2_texts()
    for ids, logits, history, _, rounds in cases("infill"):
        row = np.full(50257, -np.inf, dtype=np.float32)
        row[ids] = logits
        play = play_of(row, ids.astype(np.int64))
        reference._STEPS["infill"](play, ChainStep("infill", [], (), texts), history)
        assert_left(play, rounds[0])


def test_breakers_are_found_across_tokens() -> None:
    texts = sampling_draws.texts()
    assert texts.breakers(["\n"]) == ((6,), (7,))
    # "end of" and then " text"; the rest of the text is split as the tokenizer does it, here into bytes.
    assert texts.breakers(["abc"]) == ((4,), (1, 2, 5), (3, 5))
    assert texts.breakers(["\n", "\n"]) == ((6,), (7,))
    assert texts.breakers(["nowhere"]) == ()
    assert texts.breakers(["\u00e9"]) == ()  # its bytes are two tokens, neither of which holds it


def test_repetitions() -> None:
    # c followed "a b", then y followed "a b c"; the text ends with "a b c".
    history = [1, 2, 3, 3, 2, 3, 9, 1, 2, 3]
    assert longest_repetitions(history, 100) == {1: 0, 2: 1, 3: 3, 9: 2}
    assert longest_repetitions(history, 1) == {1: 0, 2: 1, 3: 1, 9: 1}
    assert repetition_limit(history, [(9,)]) == 3
    assert repetition_limit(history, [(9, 1), (3,)]) == 0
    assert repetition_limit(history, [(9, 1), (9, 1, 2)]) == 1
    assert repetition_limit(history, [(8,)]) == 10


def test_min_keep() -> None:
    logits = np.array([9.0, 1.0, 5.0, 0.0], dtype=np.float32)
    assert left_by(logits, "top_p", 0.0, 1) == [0]
    assert left_by(logits, "top_p", 0.0, 3) == [0, 1, 2]
    assert left_by(logits, "min_p", 0.0, 2) == [0, 2]
    assert len(left_by(logits, "typical", 0.0, 2)) == 2
    assert left_by(logits, "xtc", 1.0, 0.0, 1) == [3]
    assert left_by(logits, "xtc", 1.0, 0.0, 2) == [0, 1, 2, 3]


def test_ties_go_to_the_lower_id() -> None:
    logits = np.array([1.0, 2.0, 2.0, 2.0, 1.0], dtype=np.float32)
    assert left_by(logits, "top_k", 2) == [1, 2]
    assert left_by(logits, "top_k", 4) == [0, 1, 2, 3]
    assert left_by(logits, "top_p", 0.5, 1) == [1, 2]


def test_penalties() -> None:
    logits = np.array([2.0, -2.0, 1.0, -np.inf], dtype=np.float32)
    penalize(logits, np.array([0, 0, 1, 3], dtype=np.int32), 2.0, 0.5, 0.25)
    assert logits.tolist() == [2.0 / 2 - 2 * 0.5 - 0.25, -2.0 * 2 - 0.5 - 0.25, 1.0, -np.inf]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_probabilities(temperature: float) -> None:
    logits = some_logits(1, 12, 1.5)
    expected = probabilities(logits / np.float32(temperature))
    sampling = SamplingParams(temperature=temperature, top_k=0, top_p=1.0, min_p=0.0, seed=5)
    drawn = tokens(choose(ReferenceSampler(), logits, sampling, num_draws=8000))
    counts = np.bincount(drawn, minlength=12)
    assert (((counts - 8000 * expected) ** 2) / (8000 * expected)).sum() < 33  # 11 degrees of freedom, p about 0.0005


def test_xtc_happens_as_often_as_asked() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.1], dtype=np.float32))
    sampling = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, xtc_probability=0.5, xtc_threshold=0.2)
    drawn = tokens(choose(ReferenceSampler(), logits, sampling, num_draws=6000))
    # Half of the time as it is, half of the time 3 : 1 among the last two.
    assert np.bincount(drawn) / 6000 == pytest.approx([0.3, 0.525, 0.175], abs=0.02)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_holds_the_surprise(version: int) -> None:
    logits = some_logits(3, 2000, 2.0)
    sampling = SamplingParams(temperature=1.0, mirostat=version, mirostat_tau=4.0, logprobs=0, post_sampling_probs=True)
    found = sampling_draws.generate(ReferenceSampler(), lambda history: logits, sampling, 400)[1]
    surprises = [-item.logprob / math.log(2) for item in found[100:]]
    assert np.mean(surprises) == pytest.approx(4.0, abs=0.25)


def test_adaptive_p_holds_the_probability() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.15, 0.1, 0.05], dtype=np.float32))
    for target in (0.15, 0.35):
        sampling = SamplingParams(adaptive_target=target, temperature=1.0, top_p=1.0, min_p=0.0, logprobs=0)
        found = sampling_draws.generate(ReferenceSampler(), lambda history: logits, sampling, 600)[1]
        assert np.mean([math.exp(item.logprob) for item in found]) == pytest.approx(target, abs=0.04)


def test_order_of_steps() -> None:
    everything = {
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.1,
        "typical_p": 0.8,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.5,
        "dry_multiplier": 0.5,
        "top_n_sigma": 2.0,
        "xtc_probability": 0.1,
    }
    names = [step.name for step in chain_steps(SamplingParams(**everything))]
    steps = ["penalties", "dry", "top_n_sigma", "top_k", "typical", "top_p", "min_p", "xtc", "temperature"]
    assert names == [*steps, "dist"]
    names = [step.name for step in chain_steps(SamplingParams(**everything, samplers="tmk", adaptive_target=0.5))]
    assert names == ["temperature", "min_p", "top_k", "adaptive_p"]
    assert [step.name for step in chain_steps(SamplingParams(**everything, mirostat=2))] == [
        "temperature",
        "mirostat_v2",
    ]
    everything |= {"temperature": 0.0}
    names = [step.name for step in chain_steps(SamplingParams(**everything))]
    assert names == [*steps[:-1], "greedy"]  # typical and XTC may take the best token away
    everything |= {"typical_p": 1.0, "xtc_probability": 0.0}
    assert [step.name for step in chain_steps(SamplingParams(**everything))] == ["penalties", "dry", "greedy"]
    everything |= {"dynatemp_range": 0.5}
    assert chain_steps(SamplingParams(**everything))[-2] == ChainStep("dynamic_temperature", [0.0, 0.5, 1.0])


def test_steps_that_do_nothing_vanish() -> None:
    plain = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    assert chain_steps(plain) == [ChainStep("dist", [])]
    assert chain_steps(SamplingParams(samplers=())) == [ChainStep("dist", [])]
    assert chain_steps(SamplingParams(temperature=0.0)) == [ChainStep("greedy", [])]
    assert num_penalized(SamplingParams(repeat_last_n=30)) == 0
    assert num_penalized(SamplingParams(repeat_last_n=30, presence_penalty=0.1)) == 30
    assert num_penalized(SamplingParams(repeat_last_n=30, presence_penalty=0.1, dry_multiplier=0.1)) == 64
    assert num_penalized(SamplingParams(repeat_last_n=-1, presence_penalty=0.1, dry_multiplier=0.1)) == -1
    assert num_penalized(SamplingParams(presence_penalty=0.1, mirostat=1)) == 0
    assert num_penalized(SamplingParams(presence_penalty=0.1, samplers="kt")) == 0
    forgetful = SamplingParams(repeat_last_n=0, repeat_penalty=2.0, temperature=0.0)
    assert chain_steps(forgetful) == [ChainStep("greedy", [])]


def test_infill_needs_texts() -> None:
    with pytest.raises(InvalidRequestError, match="infill") as caught:
        chain_steps(SamplingParams(samplers="ki"))
    assert caught.value.field == "samplers"


def test_names_of_samplers() -> None:
    assert parse_samplers("edskypmxt") == DEFAULT_SAMPLERS == SamplingParams().samplers
    assert parse_samplers(["typ-p", "nucleus", "temp", "adaptive-p"]) == (
        "typical_p",
        "top_p",
        "temperature",
        "adaptive_p",
    )
    assert parse_samplers(["top-k", " TopK"][0]) == ("top_k",)
    assert parse_samplers("penalties;dry;xtc") == ("penalties", "dry", "xtc")
    assert parse_samplers("") == ()
    for bad in ("q", "top_k;top_k", "kk", ["top_k", 5], ["magic"], "k" * 1000, 5, None):
        with pytest.raises(InvalidRequestError, match="samplers") as caught:
            parse_samplers(bad)  # type: ignore[arg-type]
        assert caught.value.field == "samplers"


def test_bias_is_added_first() -> None:
    sampling = SamplingParams(temperature=0.0, logit_bias={3: 100.0, 4: -math.inf})
    assert tokens(choose(ReferenceSampler(), some_logits(0), sampling)) == [3]


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
        ("stop", 5),
        ("stop", tuple(f"stop {number}" for number in range(5000))),
        ("samplers", ("sorcery",)),
        ("samplers", "kqt"),
        ("top_n_sigma", math.inf),
        ("xtc_probability", 1.5),
        ("xtc_threshold", -0.1),
        ("dynatemp_range", -1.0),
        ("dynatemp_exponent", "1"),
        ("dry_multiplier", -1.0),
        ("dry_base", math.nan),
        ("dry_allowed_length", -1),
        ("dry_penalty_last_n", -2),
        ("dry_sequence_breakers", ("",)),
        ("dry_sequence_breakers", ("x" * 50,)),
        ("dry_sequence_breakers", ("x",) * 100),
        ("mirostat", 3),
        ("mirostat", True),
        ("mirostat_tau", -1.0),
        ("mirostat_eta", math.inf),
        ("adaptive_target", 1.5),
        ("adaptive_decay", 1.0),
        ("logprobs", -1),
        ("logprobs", 10**6),
        ("prompt_logprobs", 0.5),
        ("post_sampling_probs", 1),
        ("ignore_eos", "yes"),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidRequestError, match=field) as caught:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"mirostat": 1, "adaptive_target": 0.5}, "adaptive_target"),
        ({"mirostat": 2, "samplers": "kti"}, "samplers"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError, match=field) as caught:
        SamplingParams(**values)
    assert caught.value.field == field
