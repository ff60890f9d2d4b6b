"""The model of a step's time: it finds the coefficients, keeps them, follows changes, and is hard to fool."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.engine.step_time import StepTimeModel

BASE_S, PER_TOKEN_S, PER_PRODUCT_S = 0.03, 0.005, 2e-6


def seconds(num_tokens: int, context: float, scale: float = 1.0) -> float:
    return scale * (BASE_S + num_tokens * (PER_TOKEN_S + PER_PRODUCT_S * context))


def observe_some(model: StepTimeModel, rng: random.Random, count: int, noise: float = 0.0, scale: float = 1.0) -> None:
    for _ in range(count):
        num_tokens, context = rng.choice([1, 2, 8, 100, 512]), rng.choice([10.0, 300.0, 4000.0])
        factor = math.exp(rng.gauss(0.0, noise))
        model.observe(num_tokens, context, seconds(num_tokens, context, scale) * factor)


def test_exact_data_gives_the_coefficients() -> None:
    model = StepTimeModel()
    observe_some(model, random.Random(1), 60)
    assert model.times == pytest.approx((BASE_S, PER_TOKEN_S, PER_PRODUCT_S), rel=1e-3)
    assert model.predict(64, 1000.0) == pytest.approx(seconds(64, 1000.0), rel=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.15))
def test_noise_is_averaged(seed: int, noise: float) -> None:
    model = StepTimeModel()
    observe_some(model, random.Random(seed), 300, noise)
    for num_tokens, context in ((1, 10.0), (8, 300.0), (100, 300.0), (512, 4000.0)):
        assert model.predict(num_tokens, context) == pytest.approx(seconds(num_tokens, context), rel=0.03 + 1.5 * noise)


def test_thousands_of_small_steps_do_not_push_out_the_large_ones() -> None:
    model = StepTimeModel()
    observe_some(model, random.Random(1), 60)
    for count in range(5000):
        model.observe(1, 300.0 + count % 50, seconds(1, 300.0 + count % 50))
    assert model.predict(512, 300.0) == pytest.approx(seconds(512, 300.0), rel=0.02)


def test_a_delayed_step_changes_little() -> None:
    model = StepTimeModel()
    rng = random.Random(1)
    observe_some(model, rng, 100, noise=0.01)
    for num_tokens in (1, 100, 512):
        model.observe(num_tokens, 300.0, 50 * seconds(num_tokens, 300.0))
        assert model.predict(num_tokens, 300.0) == pytest.approx(seconds(num_tokens, 300.0), rel=0.15)


def test_a_machine_that_stays_slower_is_followed() -> None:
    model = StepTimeModel()
    rng = random.Random(1)
    observe_some(model, rng, 100, noise=0.01)
    observe_some(model, rng, 300, noise=0.01, scale=3.0)
    assert model.predict(100, 300.0) == pytest.approx(seconds(100, 300.0, scale=3.0), rel=0.1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(0.0, 1e6), st.floats(0.0, 1e4)), max_size=40),
    st.floats(0.0, 1e3),
    st.integers(0, 10**6),
)
def test_whatever_is_observed_answers_make_sense(
    steps: list[tuple[int, float, float]], limit_s: float, num_computed: int
) -> None:
    model = StepTimeModel()
    for step in steps:
        model.observe(*step)
    assert all(value >= 0 and math.isfinite(value) for value in model.times)
    num_tokens = model.num_tokens_within(limit_s, num_computed)
    assert num_tokens >= 0
    _, per_token_s, per_product_s = model.times
    cost_s = num_tokens * (per_token_s + per_product_s * (num_computed + num_tokens / 2))
    assert cost_s <= limit_s * (1 + 1e-6) + 1e-12
    if num_tokens < 2**31:
        more = num_tokens + 1
        assert more * (per_token_s + per_product_s * (num_computed + more / 2)) >= limit_s * (1 - 1e-6)


def test_before_anything_is_known() -> None:
    model = StepTimeModel()
    assert model.predict(100, 100.0) == 0.0
    assert model.num_tokens_within(1.0, 0) == 2**31


def test_what_one_step_leaves_open_is_put_down_to_its_tokens() -> None:
    model = StepTimeModel()
    model.observe(100, 50.0, 2.0)
    assert model.predict(200, 50.0) == pytest.approx(4.0)
    model.observe(1, 50.0, 0.1)
    assert model.predict(100, 50.0) == pytest.approx(2.0, rel=0.01)
    assert model.predict(1, 50.0) == pytest.approx(0.1, rel=0.01)
