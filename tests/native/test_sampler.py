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
from quipu.engine.sampler import NOT_A_NUMBER, NOTHING_ALLOWED, ChainStep, Draw, chain_steps
from quipu.engine.sampling_reference import ReferenceSampler
from quipu.types import SAMPLERS, SamplingParams
from sampling_draws import END, NO_TOKENS, PIECES, choose, generate, make_draw, mask_of, texts, tokens

NATIVE, REFERENCE = NativeSampler(), ReferenceSampler()


def assert_same(
    logits: NDArray[np.float32],
    sampling: SamplingParams,
    history: Any = (),
    num_draws: int = 8,
    masks: NDArray[np.int32] | None = None,
) -> list[int]:
    """Tokens and log probabilities of both are the same to the last bit, and the logits are left alone."""
    before = logits.copy()
    native = choose(NATIVE, logits, sampling, history, num_draws, masks)
    assert native == choose(REFERENCE, logits, sampling, history, num_draws, masks)
    assert np.array_equal(before, logits, equal_nan=True)
    return tokens(native)


probability = st.one_of(st.sampled_from([0.0, 0.5, 1.0 - 2.0**-53, 1.0]), st.floats(0.0, 1.0))


@st.composite
def sampling_params(draw: st.DrawFn) -> SamplingParams:
    def maybe(strategy: st.SearchStrategy[Any], off: Any) -> Any:
        return draw(st.one_of(st.just(off), strategy))

    names = draw(st.permutations([name for name in SAMPLERS if name not in ("infill", "adaptive_p")]))
    end = draw(st.sampled_from(["dist"] * 5 + ["mirostat", "mirostat 2", "adaptive_p", "infill"]))
    if end == "infill":
        names.insert(draw(st.integers(0, len(names))), "infill")
    return SamplingParams(
        temperature=draw(st.sampled_from([0.0, 1e-9, 0.3, 0.8, 1.0, 5.0, 1e5])),
        top_k=maybe(st.integers(1, 300), 0),
        top_p=maybe(probability, 1.0),
        min_p=maybe(probability, 0.0),
        typical_p=maybe(probability, 1.0),
        repeat_penalty=maybe(st.sampled_from([0.5, 1.3, 1e-6, 1e6]), 1.0),
        presence_penalty=maybe(st.floats(-2, 2), 0.0),
        frequency_penalty=maybe(st.floats(-2, 2), 0.0),
        repeat_last_n=draw(st.sampled_from([-1, 0, 3, 64])),
        seed=draw(st.integers(0, 2**64 - 1)),
        logit_bias=maybe(
            st.dictionaries(st.integers(0, 4), st.sampled_from([float("-inf"), 3.0, -1e30, 1e30, 0.25])), {}
        ),
        min_keep=maybe(st.integers(1, 20), 1),
        min_tokens=maybe(st.integers(1, 5), 0),
        samplers=names if draw(st.booleans()) else SamplingParams().samplers,
        top_n_sigma=maybe(st.floats(0.01, 3.0), -1.0),
        xtc_probability=maybe(st.sampled_from([0.3, 1.0]), 0.0),
        xtc_threshold=draw(st.sampled_from([0.0, 1e-9, 0.01, 0.1, 0.5])),
        dynatemp_range=maybe(st.sampled_from([0.2, 1.0, 1e5]), 0.0),
        dynatemp_exponent=draw(st.sampled_from([0.0, 1.0, 2.5, 1e3])),
        dry_multiplier=maybe(st.sampled_from([0.8, 1e6]), 0.0),
        dry_base=draw(st.sampled_from([1.0, 1.75, 1e5])),
        dry_allowed_length=draw(st.integers(0, 3)),
        dry_penalty_last_n=draw(st.sampled_from([-1, 10, 64])),
        dry_sequence_breakers=draw(st.sampled_from([(), ("\n",), ("end of text", ":", "b")])),
        mirostat={"mirostat": 1, "mirostat 2": 2}.get(end, 0),
        mirostat_tau=draw(st.sampled_from([0.1, 3.0, 5.0, 1e6])),
        mirostat_eta=draw(st.sampled_from([0.0, 0.1, 10.0])),
        adaptive_target=draw(st.sampled_from([0.0, 0.3, 1.0])) if end == "adaptive_p" else -1.0,
        adaptive_decay=draw(st.sampled_from([0.0, 0.9, 0.99])),
        logprobs=maybe(st.integers(0, 30), None),
        post_sampling_probs=draw(st.booleans()),
    )


@st.composite
def rows_of_logits(draw: st.DrawFn) -> NDArray[np.float32]:
    size = draw(st.one_of(st.integers(5, 40), st.sampled_from([64, 255, 256, 257, 1025, 3000])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["normal", "peaked", "ties", "flat", "wide", "forbidden", "far"]))
    if kind == "ties":
        return rng.integers(-3, 4, size).astype(np.float32)
    if kind == "flat":
        return np.full(size, 1.5, dtype=np.float32)
    logits = rng.standard_normal(size).astype(np.float32)
    if kind == "far":
        return logits + np.float32(1e6)
    if kind == "forbidden":
        logits[rng.random(size) < 0.9] = -np.inf
        logits[rng.integers(size)] = 0.0
    return logits * np.float32({"peaked": 10.0, "wide": 1e29}.get(kind, 2.0))


@st.composite
def masks_of(draw: st.DrawFn, size: int) -> NDArray[np.int32] | None:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([None, None, None, 0.01, 0.5, 0.999, 1.0]))
    if share is None:
        return None
    allowed = rng.random(size) < share
    allowed[rng.integers(size)] = True
    return mask_of(allowed[None])


@settings(max_examples=800, deadline=None)
@given(st.data())
def test_native_equals_reference(data: st.DataObject) -> None:
    logits = data.draw(rows_of_logits())
    sampling = data.draw(sampling_params())
    num_recent = data.draw(st.integers(0, 100))
    rng = np.random.default_rng(num_recent)
    # Few different tokens, so that much is repeated.
    history = rng.integers(0, min(len(logits), data.draw(st.sampled_from([2, 4, 3000]))), num_recent)
    assert_same(logits, sampling, history, masks=data.draw(masks_of(len(logits))))


LARGE = {
    "default": SamplingParams(),
    "without top-k": SamplingParams(top_k=0),
    "all": SamplingParams(top_k=0, top_p=1.0, min_p=0.0),
    "many kept": SamplingParams(top_k=0, top_p=1.0, min_p=0.01, min_keep=500),
    "nucleus of most": SamplingParams(top_k=0, top_p=0.999, min_p=0.0, temperature=2.0),
    "typical": SamplingParams(top_k=0, top_p=0.5, typical_p=0.7),
    "typical of most": SamplingParams(top_k=0, top_p=1.0, typical_p=0.99, min_p=0.0),
    "greedy": SamplingParams(temperature=0.0, repeat_penalty=1.5),
    "large k": SamplingParams(top_k=2000, top_p=0.9, repeat_penalty=1.1, frequency_penalty=0.3),
    "larger k": SamplingParams(top_k=90_000, top_p=1.0, min_p=0.0),
    "sigma": SamplingParams(top_n_sigma=1.0, top_k=0, top_p=0.99),
    "xtc": SamplingParams(xtc_probability=1.0, xtc_threshold=1e-4, top_k=0, top_p=1.0, min_p=0.0),
    "dynamic": SamplingParams(dynatemp_range=0.5, top_k=0, top_p=1.0, min_p=0.0),
    "temperature first": SamplingParams(samplers="tkpm", top_k=0, temperature=1.7),
    "penalties last": SamplingParams(samplers="kte", repeat_penalty=1.5, top_k=0),
    "mirostat": SamplingParams(mirostat=1),
    "mirostat 2": SamplingParams(mirostat=2),
    "adaptive": SamplingParams(adaptive_target=0.2, top_k=0),
    "adaptive of all": SamplingParams(adaptive_target=0.2, top_k=0, top_p=1.0, min_p=0.0),
    "dry": SamplingParams(dry_multiplier=0.8, dry_penalty_last_n=-1, top_k=0),
}


@pytest.mark.parametrize("width", [0.05, 2.5, 8.0], ids=["flat", "middle", "peaked"])
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("after", [False, True], ids=["model's", "post"])
def test_large_vocabulary(name: str, width: float, after: bool) -> None:
    rng = np.random.default_rng(7)
    logits = (rng.standard_normal(151_936) * width).astype(np.float32)
    history = rng.integers(0, 30, 64)
    parameters = {field: getattr(LARGE[name], field) for field in SamplingParams.__slots__}
    sampling = SamplingParams(**{**parameters, "seed": 3, "logprobs": 5, "post_sampling_probs": after})
    assert_same(logits, sampling, history, num_draws=2)


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.0625, 0.0625], dtype=np.float32))
    plain = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=11)
    drawn = tokens(choose(NATIVE, logits, plain, num_draws=20_000))
    shares = np.bincount(drawn, minlength=5) / 20_000
    assert shares == pytest.approx([0.5, 0.25, 0.125, 0.0625, 0.0625], abs=0.012)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e31])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_bad_logits_end_only_their_own_row(bad: float, temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 100)).astype(np.float32)
    sampling = SamplingParams(temperature=temperature, seed=1, logprobs=2)
    alone = [choose(NATIVE, row, sampling)[0] for row in logits]
    logits[1, 70] = bad
    for sampler in (NATIVE, REFERENCE):
        drawn = sampler.sample_batch(logits, [make_draw(sampler, sampling) for _ in range(3)])
        assert drawn[0] == alone[0]
        assert drawn[1].token_ids == [NOT_A_NUMBER]
        assert drawn[1].logprobs == []
        assert drawn[2] == alone[2]
        (found,) = sampler.logprobs(logits[1:2], np.zeros(1, dtype=np.int32), 3)
        assert np.isnan(found.logprob)


def test_nothing_allowed() -> None:
    logits = np.zeros(3, dtype=np.float32)
    sampling = SamplingParams(logit_bias=dict.fromkeys(range(3), float("-inf")))
    assert set(assert_same(logits, sampling)) == {NOTHING_ALLOWED}
    assert set(assert_same(np.full(9, -np.inf, dtype=np.float32), SamplingParams())) == {NOTHING_ALLOWED}
    nothing = np.zeros((1, 1), dtype=np.int32)
    assert set(assert_same(np.zeros(9, dtype=np.float32), SamplingParams(), masks=nothing)) == {NOTHING_ALLOWED}


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_masks_let_nothing_out(data: st.DataObject) -> None:
    sampling = data.draw(sampling_params())
    logits = data.draw(rows_of_logits())
    logits[logits == -np.inf] = -5.0
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    allowed = rng.random(len(logits)) < data.draw(st.sampled_from([0.001, 0.1, 0.5]))
    allowed[rng.integers(5, len(logits)) if len(logits) > 5 else 0] = True
    drawn = tokens(choose(NATIVE, logits, sampling, num_draws=8, masks=mask_of(allowed[None])))
    assert all(token == NOTHING_ALLOWED or allowed[token] for token in drawn)
    if not sampling.logit_bias and not sampling.min_tokens:
        assert NOTHING_ALLOWED not in drawn


# --- drafts ---------------------------------------------------------------------------------------------------------


def rows_after(history: list[int]) -> NDArray[np.float32]:
    value = 7
    for token in history[-3:]:
        value = (value * 31 + token + 1) % 2_147_483_647
    return (np.random.default_rng(value).standard_normal(len(PIECES) + 20) * 3).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(sampling_params(), st.integers(0, 2**32), st.booleans())
def test_drafts_change_nothing(sampling: SamplingParams, seed: int, has_masks: bool) -> None:
    """Right, wrong and no drafts at all: the same tokens, log probabilities and state, by both samplers."""

    def masks(history: list[int]) -> NDArray[np.int32]:
        allowed = np.random.default_rng(len(history) + seed).random(len(PIECES) + 20) < 0.7
        allowed[14:] |= True
        return mask_of(allowed)

    masked = masks if has_masks else None
    plain, logprobs, state = generate(NATIVE, rows_after, sampling, 30, masks=masked)
    rng = np.random.default_rng(seed)

    def drafts(history: list[int]) -> list[int]:
        guesses = plain[len(history) : len(history) + int(rng.integers(0, 6))]
        return [token if rng.random() < 0.8 else int(rng.integers(len(PIECES))) for token in guesses if token >= 0]

    for sampler in (NATIVE, REFERENCE):
        drafted, its_logprobs, its_state = generate(sampler, rows_after, sampling, 30, drafts, masked)
        length = min(len(plain), len(drafted))
        assert drafted[:length] == plain[:length]
        assert its_logprobs[: len(logprobs)] == logprobs[: len(its_logprobs)]
        if len(drafted) == len(plain) and isinstance(sampler, NativeSampler):
            assert its_state.values == state.values


def test_rows_after_a_wrong_draft_are_not_looked_at() -> None:
    rows = np.zeros((4, 10), dtype=np.float32)
    rows[0, 3] = rows[1, 4] = rows[2, 5] = 9.0
    rows[3] = np.nan
    sampling = SamplingParams(temperature=0.0)
    for sampler in (NATIVE, REFERENCE):
        for drafts, expected in (([3, 4, 6], [3, 4, 5]), ([2, 4, 5], [3]), ([3, 4, 5], [3, 4, 5, NOT_A_NUMBER])):
            (drawn,) = sampler.sample_batch(rows, [make_draw(sampler, sampling, drafts=drafts)])
            assert drawn.token_ids == expected


def test_min_tokens_end_within_drafts() -> None:
    rows = np.zeros((3, 20), dtype=np.float32)
    rows[:, END], rows[:, 5] = 9.0, 8.0
    sampling = SamplingParams(temperature=0.0, min_tokens=2)
    for sampler in (NATIVE, REFERENCE):
        found, _, _ = generate(sampler, lambda history: rows[0], sampling, 3, lambda history: [5, 5][len(history) :])
        assert found == [5, 5, END]


# --- the rest -------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(rows_of_logits(), st.integers(0, 40))
def test_model_logprobs(logits: NDArray[np.float32], num_top: int) -> None:
    rows = np.stack([logits, logits[::-1]])
    ids = np.array([0, len(logits) - 1], dtype=np.int32)
    found = NATIVE.logprobs(rows, ids, num_top)
    assert found == REFERENCE.logprobs(rows, ids, num_top)
    exact = rows.astype(np.float64) - rows.max(axis=1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    for row, token, item in zip(exact, ids, found, strict=True):
        assert item.logprob == pytest.approx(row[token], abs=1e-5, rel=1e-6)
        assert [value for _, value in item.top] == pytest.approx(
            sorted(row[row > -np.inf], reverse=True)[:num_top], abs=1e-5, rel=1e-6
        )


def test_misuse_is_refused() -> None:
    empty = np.zeros(0, dtype=np.float32)
    for steps in (
        [],
        [("top_k", [1.0], (), None)],
        [("dist", [], (), None)] * 2,
        [("sorcery", [], (), None)],
        [("top_k", [], (), None)],
        [("infill", [], (), None), ("dist", [], (), None)],
        [("temperature", [0.5], (), None)] * 2 + [("dist", [], (), None)],
        [("top_p", [float("nan"), 1.0], (), None), ("dist", [], (), None)],
        [("dry", [64.0, 1.0, 1.0, 1.0], [[]], None), ("dist", [], (), None)],
    ):
        with pytest.raises(ValueError, match="SamplerChain"):
            _native.SamplerChain(steps, NO_TOKENS, empty, NO_TOKENS, 0, False)
    rows = np.zeros((1, 5), dtype=np.float32)
    draw = make_draw(NATIVE, SamplingParams())
    for bad in (
        draw._replace(chain=NATIVE.chain([ChainStep("greedy", [])], {7: 1.0})),
        draw._replace(history=np.array([5], dtype=np.int32)),
        draw._replace(drafts=np.array([-1], dtype=np.int32)),
    ):
        with pytest.raises(ValueError, match=r"out of range|one row of logits"):
            NATIVE.sample_batch(rows, [bad])
    with pytest.raises(ValueError, match="one row of logits"):
        NATIVE.sample_batch(rows, [draw, draw])
    with pytest.raises(ValueError, match="one bit per token"):
        NATIVE.sample_batch(rows, [draw._replace(masks=np.zeros((1, 2), dtype=np.int32))])
    for end in ([], [0, 2], [1, 0]):
        with pytest.raises(ValueError, match="TokenPieces"):
            _native.TokenPieces(b"a", np.array(end, dtype=np.int64), NO_TOKENS)


def test_loops_are_chosen_for_the_processor() -> None:
    assert _native.sampler_scans() in ("portable", "avx2")


def test_threads_can_sample_at_once() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 50_000)).astype(np.float32)
    chain = NATIVE.chain(chain_steps(SamplingParams(repeat_penalty=1.1, top_k=0)), {3: 1.0})
    history = np.arange(50, dtype=np.int32)
    draws = [Draw(chain, NATIVE.state(chain), history, seed, seed, NO_TOKENS) for seed in range(4)]
    results: list[list[int]] = []

    def work() -> None:
        for _ in range(10):
            results.append(tokens(NATIVE.sample_batch(logits, draws)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 30
    assert all(result == results[0] for result in results)


def test_infill_ends_where_only_an_end_is_left() -> None:
    sampling = SamplingParams(samplers="i", seed=1)
    logits = np.zeros(40, dtype=np.float32)  # all alike: nothing reaches a fifth
    logits[END] = -20.0
    assert set(assert_same(logits, sampling)) == {END}
    forbidden = SamplingParams(samplers="i", seed=1, logit_bias={END: float("-inf")})
    assert END not in assert_same(logits, forbidden)
    assert texts().end_ids == (END,)
