"""Unpacking on the native side gives the bits of the numpy definition, for every type."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from quipu import _native
from quipu.gguf.types import GGMLType
from quipu.quant import dequantize, quant_type

SPECIAL_HALVES = np.array(
    [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFFFF], np.uint16
)

by_name = pytest.mark.parametrize("type_", GGMLType, ids=lambda type_: type_.name)


def unpack(data: npt.NDArray[np.uint8], type_: GGMLType) -> npt.NDArray[np.float32]:
    out = np.full(data.size // type_.block_bytes * type_.block_size, np.float32(-7.0))
    _native.unpack(int(type_), data, out)
    return out


def assert_same_bits(values: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Equal to the bit, -0 included; all NaN are the same."""
    assert values.shape == expected.shape
    same = (values.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(values) & np.isnan(expected))
    assert same.all(), f"{np.count_nonzero(~same)} of {same.size} differ"


@by_name
def test_sizes(type_: GGMLType) -> None:
    assert _native.format_info(int(type_)) == (type_.name, type_.block_size, type_.block_bytes)


@by_name
def test_random_bytes(type_: GGMLType) -> None:
    data = np.random.default_rng(int(type_)).integers(0, 256, 4096 * type_.block_bytes, dtype=np.uint8)
    assert_same_bits(unpack(data, type_), dequantize(data, type_))


@by_name
def test_special_scales(type_: GGMLType) -> None:
    """Zero, subnormal, largest, infinite and NaN scales and minima."""
    generator = np.random.default_rng(int(type_))
    data = generator.integers(0, 256, 2048 * type_.block_bytes, dtype=np.uint8)
    blocks = data.view(np.dtype(list(quant_type(type_).layout.items())))
    for name in ("d", "dmin", "m", "x"):
        if name in blocks.dtype.names and blocks.dtype[name] == np.float16:
            blocks[name] = generator.choice(SPECIAL_HALVES, len(blocks)).view(np.float16)
    assert_same_bits(unpack(data, type_), dequantize(data, type_))


@pytest.mark.parametrize("type_", [GGMLType.F16, GGMLType.BF16], ids=lambda type_: type_.name)
def test_every_sixteen_bit_float(type_: GGMLType) -> None:
    data = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    assert_same_bits(unpack(data, type_), dequantize(data, type_))


@by_name
def test_unaligned_bytes(type_: GGMLType) -> None:
    memory = np.random.default_rng(int(type_)).integers(0, 256, 3 * type_.block_bytes + 1, dtype=np.uint8)
    assert_same_bits(unpack(memory[1:], type_), dequantize(memory[1:], type_))


def test_no_blocks() -> None:
    assert unpack(np.empty(0, np.uint8), GGMLType.Q4_K).size == 0


def test_read_only_data() -> None:
    data = np.frombuffer(bytes(34), np.uint8)
    np.testing.assert_array_equal(unpack(data, GGMLType.Q8_0), np.zeros(32, np.float32))


@pytest.mark.parametrize("type_id", [-1, 4, 9, 15, 31, 43, 1000])
def test_unknown_id(type_id: int) -> None:
    with pytest.raises(ValueError, match=f"no tensor type with id {type_id}"):
        _native.unpack(type_id, np.zeros(0, np.uint8), np.zeros(0, np.float32))
    with pytest.raises(ValueError, match=f"no tensor type with id {type_id}"):
        _native.format_info(type_id)


@pytest.mark.parametrize(
    ("num_bytes", "num_values", "message"),
    [(17, 32, "whole number of blocks"), (18, 31, "one value for each"), (18, 33, "one value for each")],
)
def test_wrong_sizes(num_bytes: int, num_values: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _native.unpack(int(GGMLType.Q4_0), np.zeros(num_bytes, np.uint8), np.zeros(num_values, np.float32))


def test_wrong_kinds_of_array() -> None:
    data, out = np.zeros(18, np.uint8), np.zeros(32, np.float32)
    for wrong_data, wrong_out in [
        (data.astype(np.int8), out),
        (np.zeros(36, np.uint8)[::2], out),
        (data.reshape(1, 18), out),
        (data, out.astype(np.float64)),
        (data, np.zeros(64, np.float32)[::2]),
    ]:
        with pytest.raises(TypeError):
            _native.unpack(int(GGMLType.Q4_0), wrong_data, wrong_out)
