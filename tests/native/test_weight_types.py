"""Products of every quantized weight type with rounded activations, against the numpy definition of the types."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import BLOCK_ERRORS, SCALE_OFFSETS, random_weight, run_on_rows, set_scales
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quipu.backends.cpu import CPUBackend
from quipu.backends.program import Weight
from quipu.gguf.types import GGMLType
from quipu.quant import dequantize

every_type = pytest.mark.parametrize("weight_type", SCALE_OFFSETS, ids=lambda t: t.name)
TOKENS = [*range(1, 18), 33]


@pytest.fixture(scope="module")
def one_thread() -> CPUBackend:
    return CPUBackend(1)


def rounded(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Activations as the kernels see them: 8 bits and one scale per 32 values."""
    groups = x.reshape(len(x), -1, 32)
    largest = np.abs(groups).max(-1, keepdims=True)
    scale = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    return (np.rint(groups * scale).astype(np.float64) * (largest / np.float32(127))).reshape(x.shape)


def widths(weight_type: GGMLType) -> list[int]:
    """One group or block, an odd number of them, and widths of real models where they are whole blocks."""
    step = max(weight_type.block_size, 32)
    return [step, 3 * step, *(width for width in (896, 4864) if width % step == 0)]


def multiply(backend: CPUBackend, weight: Weight, x: NDArray[np.float32]) -> NDArray[np.float32]:
    return run_on_rows(backend, x, lambda recorder, v: recorder.linear(v, [weight])[0])


def assert_close(got: NDArray[np.float32], x: NDArray[np.float32], weight: Weight, note: object) -> None:
    """Within float32 rounding of sums as large as if each weight were the largest of its 32: zero points are exact in
    integers, but are taken off in floats."""
    seen, exact = rounded(x), dequantize(weight.data, weight.type).astype(np.float64)
    group, tolerance = 32, 3e-6
    if weight.type in BLOCK_ERRORS:
        group, tolerance = 256, BLOCK_ERRORS[weight.type]
    largest = np.repeat(np.abs(exact).reshape(len(exact), -1, group).max(-1), group, -1)
    possible = np.abs(seen) @ largest.T
    error = np.abs(got - seen @ exact.T)
    assert (error <= tolerance * possible + 1e-30).all(), (note, float((error / np.maximum(possible, 1e-30)).max()))


@every_type
def test_products_of_random_blocks(one_thread: CPUBackend, weight_type: GGMLType) -> None:
    rng = np.random.default_rng(int(weight_type))
    row_counts = itertools.cycle((1, 7, 49, 53, 98))
    for cols in widths(weight_type):
        for num_tokens in TOKENS:
            rows = next(row_counts)
            weight, _ = random_weight(rng, "w", weight_type, rows, cols)
            x = rng.standard_normal((num_tokens, cols)).astype(np.float32)
            assert_close(multiply(one_thread, weight, x), x, weight, (cols, num_tokens, rows))


@every_type
def test_up_to_eight_tokens_give_the_bits_of_one(one_thread: CPUBackend, weight_type: GGMLType) -> None:
    rng = np.random.default_rng(int(weight_type))
    for cols in widths(weight_type)[1:]:
        weight, _ = random_weight(rng, "w", weight_type, 37, cols)
        x = rng.standard_normal((8, cols)).astype(np.float32)
        alone = np.concatenate([multiply(one_thread, weight, x[t : t + 1]) for t in range(8)])
        for num_tokens in range(2, 9):
            np.testing.assert_array_equal(multiply(one_thread, weight, x[:num_tokens]), alone[:num_tokens])


def blocks_of(weight_type: GGMLType, rows: int, cols: int, fill: int) -> Weight:
    data = np.full((rows, cols // weight_type.block_size, weight_type.block_bytes), fill, np.uint8)
    set_scales(data, weight_type, np.full(data.shape[:2], 0.01, np.float16))
    return Weight("w", weight_type, (rows, cols), data.reshape(rows, -1))


@every_type
@pytest.mark.parametrize("num_tokens", [1, 3, 16, 24])
def test_integer_sums_are_exact_at_the_extremes(one_thread: CPUBackend, weight_type: GGMLType, num_tokens: int) -> None:
    """Largest codes against largest activations, all of one sign or each of its weight's: a sum that saturates or wraps
    would be far off."""
    cols = max(256, weight_type.block_size)
    fills = [0x00, 0xFF, 0x80, 0x7F, 0x55, 0xAA, 0x0F, 0xF0]
    for fill in fills:
        weight = blocks_of(weight_type, 5, cols, fill)
        values = dequantize(weight.data, weight_type)
        signs = np.where(values[:1] < 0, np.float32(-1), np.float32(1))
        for pattern in (np.ones_like(signs), signs):
            x = np.repeat(pattern, num_tokens, 0) * np.where(np.arange(num_tokens) % 2, -1, 1)[:, None]
            x = x.astype(np.float32)
            assert_close(multiply(one_thread, weight, x), x, weight, hex(fill))


@every_type
def test_largest_products_of_random_blocks(one_thread: CPUBackend, weight_type: GGMLType) -> None:
    """Each token has the signs of one row's weights, so that all products of that row add up."""
    rng = np.random.default_rng(int(weight_type))
    cols = max(512, weight_type.block_size)
    weight, values = random_weight(rng, "w", weight_type, 33, cols)
    x = np.sign(values).astype(np.float32)
    x[x == 0] = 1
    for num_tokens in (1, 8, 33):
        assert_close(multiply(one_thread, weight, x[:num_tokens]), x[:num_tokens], weight, num_tokens)


@settings(max_examples=60, deadline=None)
@given(
    weight_type=st.sampled_from(list(SCALE_OFFSETS)),
    num_blocks=st.integers(1, 20),
    num_tokens=st.integers(1, 40),
    rows=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    outlier=st.sampled_from([0.0, 1e-20, 1.0, 1e4]),
)
def test_any_size(
    one_thread: CPUBackend,
    weight_type: GGMLType,
    num_blocks: int,
    num_tokens: int,
    rows: int,
    seed: int,
    outlier: float,
) -> None:
    rng = np.random.default_rng(seed)
    cols = num_blocks * max(weight_type.block_size, 32)
    weight, _ = random_weight(rng, "w", weight_type, rows, cols)
    x = rng.standard_normal((num_tokens, cols)).astype(np.float32)
    x[:, :: rng.integers(1, 64)] *= np.float32(outlier)
    assert_close(multiply(one_thread, weight, x), x, weight, None)
