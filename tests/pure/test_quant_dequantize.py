"""The numpy definition of the tensor types, against the `gguf` package, plain loops, and bytes that llama.cpp wrote."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quipu.errors import UsageError
from quipu.gguf.types import GGMLType
from quipu.quant import QUANT_TYPES, dequantize, quant_type

DATA = Path(__file__).parents[1] / "data" / "quant"

# Half-precision patterns that scales get in turn: zeros, subnormals, the largest, infinities, quiet and signalling NaN.
SPECIAL_HALVES = (0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFFFF)


def random_blocks(type_: GGMLType, num_blocks: int, *, special: bool) -> npt.NDArray[np.uint8]:
    """uint8 [num_blocks, block bytes] of random bytes; with `special`, every f16 field is one of SPECIAL_HALVES."""
    generator = np.random.default_rng(int(type_))
    data = generator.integers(0, 256, (num_blocks, type_.block_bytes), dtype=np.uint8)
    if special:
        blocks = data.view(np.dtype(list(quant_type(type_).layout.items())))[:, 0]
        for name in ("d", "dmin", "m", "x"):
            if name in blocks.dtype.names and blocks.dtype[name] == np.float16:
                blocks[name] = generator.choice(np.array(SPECIAL_HALVES, np.uint16), num_blocks).view(np.float16)
    return data


def assert_same_bits(values: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Equal to the bit, -0 included; all NaN are the same."""
    assert values.dtype == expected.dtype == np.float32
    assert values.shape == expected.shape
    same = (values.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(values) & np.isnan(expected))
    assert same.all(), f"{np.count_nonzero(~same)} of {same.size} differ"


def gguf_can(type_: GGMLType) -> bool:
    row = np.zeros((1, type_.block_bytes), np.uint8)
    try:
        gguf.quants.dequantize(row, gguf.GGMLQuantizationType(int(type_)))
    except (NotImplementedError, ValueError):
        return False
    return True


def half(block: bytes, offset: int = 0) -> np.float32:
    return np.float32(struct.unpack_from("<e", block, offset)[0])


def q1_0_loop(block: bytes) -> list[np.float32]:
    """An f16 scale d, then one bit per value, lowest first: set is d, clear is -d."""
    d = half(block)
    return [d if block[2 + index // 8] & (1 << index % 8) else np.float32(-1) * d for index in range(128)]


def q2_0_loop(block: bytes) -> list[np.float32]:
    """An f16 scale d, then two bits per value, lowest first: 0, 1, 2, 3 are -d, 0, d, 2d."""
    d = half(block)
    values = []
    for byte in block[2:]:
        for _ in range(4):
            byte, code = divmod(byte, 4)
            values.append(d * np.float32((-1, 0, 1, 2)[code]))
    return values


def number_loop(code: str) -> Callable[[bytes], list[np.float32]]:
    return lambda block: [np.float32(struct.unpack("<" + code, block)[0])]


# Second implementations for what the gguf package does not decode.
LOOPS = {
    GGMLType.Q1_0: q1_0_loop,
    GGMLType.Q2_0: q2_0_loop,
    GGMLType.I8: number_loop("b"),
    GGMLType.I16: number_loop("h"),
    GGMLType.I32: number_loop("i"),
    GGMLType.I64: number_loop("q"),
    GGMLType.F64: number_loop("d"),
}
IN_GGUF = [type_ for type_ in GGMLType if gguf_can(type_)]


def test_every_type_has_an_oracle() -> None:
    assert set(IN_GGUF) | set(LOOPS) == set(GGMLType) == set(QUANT_TYPES)


@pytest.mark.parametrize("type_", GGMLType, ids=lambda type_: type_.name)
def test_layout_has_the_size_of_the_block(type_: GGMLType) -> None:
    assert np.dtype(list(QUANT_TYPES[type_].layout.items())).itemsize == type_.block_bytes


@pytest.mark.parametrize("special", [False, True], ids=["random", "special"])
@pytest.mark.parametrize("type_", IN_GGUF, ids=lambda type_: type_.name)
def test_equals_the_gguf_package(type_: GGMLType, special: bool) -> None:
    data = random_blocks(type_, 4096, special=special)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(int(type_)))
    values = dequantize(data, type_)
    assert_same_bits(values, expected)
    if special:
        assert np.isfinite(values).any()


@pytest.mark.parametrize("special", [False, True], ids=["random", "special"])
@pytest.mark.parametrize("type_", LOOPS, ids=lambda type_: type_.name)
def test_equals_plain_loops(type_: GGMLType, special: bool) -> None:
    data = random_blocks(type_, 256, special=special)
    with np.errstate(all="ignore"):
        expected = np.array([LOOPS[type_](block.tobytes()) for block in data], np.float32)
    assert_same_bits(dequantize(data, type_), expected)


@pytest.mark.parametrize("code", range(256))
def test_eight_bit_scales(code: int) -> None:
    """E8M0 and UE4M3, from their definitions; code 1 of the 4-bit float is 0.5."""
    mxfp4 = dequantize(bytes([code] + [0x11] * 16), "MXFP4")
    assert mxfp4[0] == 0.5 * 2.0 ** (code - 127)
    exponent, mantissa = code >> 3 & 15, code & 7
    scale = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    nvfp4 = dequantize(bytes([code] * 4 + [0x11] * 32), "NVFP4")
    assert nvfp4[0] == (0 if code == 0x7F else 0.5 * scale)


# Relative error of llama.cpp's quantizers on normally distributed values, plain or with an importance matrix (which
# weights the errors otherwise), measured with `dequantize` and rounded up.
MAX_RELATIVE_ERROR = {
    "BF16": 0.002, "Q8_0": 0.006, "Q6_K": 0.020, "Q5_K": 0.040, "Q5_1": 0.040, "Q5_0": 0.047, "Q4_K": 0.080,
    "Q4_1": 0.084, "Q4_0": 0.093, "IQ4_NL": 0.082, "IQ4_XS": 0.083, "NVFP4": 0.11, "MXFP4": 0.125, "Q3_K": 0.165,
    "IQ3_S": 0.180, "IQ3_XXS": 0.225, "IQ2_S": 0.28, "Q2_K": 0.315, "IQ2_XS": 0.34, "IQ2_XXS": 0.40, "IQ1_S": 0.56,
    "IQ1_M": 0.62, "Q1_0": 0.63, "Q2_0": 0.78, "TQ1_0": 0.85, "TQ2_0": 0.85,
}  # fmt: skip


@pytest.mark.parametrize("type_name", MAX_RELATIVE_ERROR)
def test_bytes_written_by_llama_cpp_are_near_what_it_was_given(type_name: str) -> None:
    with np.load(DATA / "quantize_bytes_normal.npz") as archive:
        given_values = archive["input/normal"]
        stored = [archive[name] for name in archive.files if name.startswith(f"bytes/{type_name}/")]
    assert stored
    for data in stored:
        error = np.linalg.norm(dequantize(data, type_name) - given_values) / np.linalg.norm(given_values)
        assert error < MAX_RELATIVE_ERROR[type_name]


@pytest.mark.skipif("QUIPU_TEST_DATA" not in os.environ, reason="QUIPU_TEST_DATA is not set")
def test_constant_zero_and_sparse_rows_written_by_llama_cpp() -> None:
    """Rows on which the distribution does not matter: every type keeps zeros, most keep constants."""
    exact_constants = {
        "Q4_0",
        "Q4_1",
        "Q5_0",
        "Q5_1",
        "Q8_0",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "IQ4_NL",
        "TQ1_0",
        "TQ2_0",
        "Q2_0",
    }
    with np.load(Path(os.environ["QUIPU_TEST_DATA"]) / "quantize_bytes.npz") as archive:
        names = [name for name in archive.files if name.startswith("bytes/")]
        assert {name.split("/")[1] for name in names} == set(MAX_RELATIVE_ERROR)
        for name in names:
            _, type_name, _, case = name.split("/")
            values = dequantize(archive[name], type_name)
            assert np.isfinite(values).all(), name
            if case == "zero":
                assert not values.any(), name
            if case == "constant" and type_name in exact_constants:
                np.testing.assert_allclose(values, archive["input/constant"], rtol=1e-3, err_msg=name)


@given(
    type_=st.sampled_from(list(GGMLType)),
    shape=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    fill=st.integers(0, 255),
)
def test_shapes(type_: GGMLType, shape: list[int], fill: int) -> None:
    """Leading axes stay; each row decodes as it would alone, whether or not the memory is contiguous."""
    *leading, num_blocks = shape
    data = np.full((*leading, num_blocks * type_.block_bytes), fill, np.uint8)
    values = dequantize(data, type_)
    assert values.shape == (*leading, num_blocks * type_.block_size)
    assert_same_bits(dequantize(np.asfortranarray(data), type_), values)
    for index in np.ndindex(*leading):
        assert_same_bits(dequantize(data[index].tobytes(), type_), values[index])


@pytest.mark.parametrize("type_name", ["F16", "Q4_K", "Q8_0"])
def test_long_rows_are_worked_off_in_parts(type_name: str) -> None:
    type_ = GGMLType[type_name]
    data = random_blocks(type_, 3 * (1 << 18) // type_.block_size + 1, special=False)
    values = dequantize(data.reshape(-1), type_)
    middle = len(data) // 2
    assert_same_bits(
        values, np.concatenate([dequantize(data[:middle], type_).ravel(), dequantize(data[middle:], type_).ravel()])
    )


def test_result_is_new_and_data_untouched() -> None:
    data = np.arange(16, dtype=np.uint8)
    data.flags.writeable = False
    values = dequantize(data, GGMLType.F32)
    assert values.flags.writeable
    assert not np.shares_memory(values, data)


@pytest.mark.parametrize(
    ("data", "type_name", "message"),
    [
        (np.zeros(18, np.uint8), "Q4_9", "there is no tensor type 'Q4_9'"),
        (np.zeros(19, np.uint8), "Q4_0", "19 bytes is not a whole number of Q4_0 blocks of 18 bytes"),
        (np.zeros(4, np.float32), "F32", "uint8 array of rows, not float32"),
        (np.array(3, np.uint8), "I8", "uint8 array of rows"),
    ],
)  # fmt: skip
def test_bad_input(data: npt.NDArray[np.uint8], type_name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dequantize(data, type_name)
