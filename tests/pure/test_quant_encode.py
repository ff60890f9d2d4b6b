"""Encoding values as the KV cache stores them, against the `gguf` package and against the definition of each type."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import quants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quipu.errors import UsageError
from quipu.gguf.types import GGMLType
from quipu.quant import ENCODABLE_TYPES, dequantize, encode
from quipu.quant.grids import IQ4_NL_LEVELS

QUANTIZED = [type_ for type_ in ENCODABLE_TYPES if type_.block_size == 32]
# Largest distance of a value from what it decodes to, in scales: half a step, and a whole one at the end of the codes
# that the value of largest magnitude leaves over. IQ4_NL: half the widest gap between its levels at one end, all that
# lies beyond the last one at the other (113 of 127), and the change from the first scale to the final one.
STEPS = {
    GGMLType.Q8_0: 0.51,
    GGMLType.Q5_1: 0.51,
    GGMLType.Q4_1: 0.51,
    GGMLType.Q5_0: 1.01,
    GGMLType.Q4_0: 1.01,
    GGMLType.IQ4_NL: 24,
}


def samples(rng: np.random.Generator) -> NDArray[np.float32]:
    """Rows of many sizes, one sign, zeros, and single peaks; no scale is subnormal."""
    x = (rng.standard_normal((200, 256)) * np.exp(rng.uniform(-2, 6, (200, 1)))).astype(np.float32)
    x[0] = 0
    x[1] = np.abs(x[1])
    x[2] = -np.abs(x[2])
    x[3] = 0.25
    x[4, ::32] = -1000
    x[5] = np.arange(256) % 16
    return x


@pytest.mark.parametrize("type_", [t for t in ENCODABLE_TYPES if t != GGMLType.IQ4_NL], ids=lambda t: t.name)
def test_the_gguf_package_writes_the_same_bytes(type_: GGMLType) -> None:
    x = samples(np.random.default_rng(1))
    expected = quants.quantize(x, gguf.GGMLQuantizationType(type_))
    np.testing.assert_array_equal(encode(x, type_), expected.view(np.uint8).reshape(len(x), -1))


@pytest.mark.parametrize("type_", QUANTIZED, ids=lambda t: t.name)
def test_no_value_is_further_off_than_a_step(type_: GGMLType) -> None:
    x = samples(np.random.default_rng(2))
    stored = encode(x, type_)
    scale = np.abs(stored.reshape(-1, type_.block_bytes)[:, :2].copy().view(np.float16).astype(np.float64))
    error = np.abs(dequantize(stored, type_).astype(np.float64) - x).reshape(-1, 32)
    # Scale and minimum are rounded to halves, by 2^-11 at most.
    rounding = 2.0**-10 * np.abs(x).reshape(-1, 32).max(-1, keepdims=True)
    assert (error <= STEPS[type_] * scale + rounding).all()


def test_iq4_nl_keeps_its_levels_and_has_the_best_scale() -> None:
    levels = np.array(IQ4_NL_LEVELS, np.float32)
    x = np.concatenate([levels, levels[::-1]])[None] * np.float32(0.5)
    np.testing.assert_array_equal(dequantize(encode(x, "IQ4_NL"), "IQ4_NL"), x)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((500, 32)).astype(np.float32)
    stored = encode(x, "IQ4_NL")
    weight = x.astype(np.float64) ** 2

    def error(blocks: NDArray[np.uint8]) -> NDArray[np.float64]:
        return (weight * (dequantize(blocks, "IQ4_NL") - x.astype(np.float64)) ** 2).sum(-1)

    for factor in (0.99, 1.01):
        other = stored.copy()
        other[:, :2] = (
            (stored[:, :2].copy().view(np.float16).astype(np.float64) * factor).astype(np.float16).view(np.uint8)
        )
        assert (error(stored) <= error(other) + 1e-9).all()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    type_=st.sampled_from(ENCODABLE_TYPES),
    values=st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=32, max_size=32),
)
def test_encoding_never_fails_and_never_loses_a_nan(type_: GGMLType, values: list[float]) -> None:
    x = np.array([values], np.float32)
    decoded = dequantize(encode(x, type_), type_)
    assert np.isnan(decoded[np.isnan(x)]).all()
    if type_.block_size == 32 and not np.isfinite(x).all():
        assert np.isnan(decoded).all()


def test_rows_keep_their_shape_and_wrong_requests_are_refused() -> None:
    x = np.zeros((2, 3, 64), np.float32)
    assert encode(x, "Q5_1").shape == (2, 3, 48)
    assert encode(x, GGMLType.F16).shape == (2, 3, 128)
    with pytest.raises(UsageError, match="whole Q8_0 blocks"):
        encode(x[..., :40], "Q8_0")
    with pytest.raises(UsageError, match="one block at a time"):
        encode(x, "Q4_K")
    with pytest.raises(UsageError, match="no tensor type"):
        encode(x, "Q9_9")
