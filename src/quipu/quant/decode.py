"""What the bytes of each tensor type mean: one function per type, from blocks to float32 values.

Every function takes the blocks as a record array [n], whose fields `table.py` gives, and returns float32
[n, values per block].

The order of the float operations is part of the definition: it is the order in which ggml rounds, and every other
implementation is compared with this one bit by bit. Factors are therefore multiplied from left to right, and a product
is rounded before a minimum is subtracted from it.

Two ways of packing small integers recur. In `_planes` a byte holds values that are far apart: the low bits of all bytes
come first, then the next bits. In `_fields` a byte holds neighbours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quipu.quant.grids import E2M1_DOUBLED_LEVELS, IQ1_SHIFT, IQ4_NL_LEVELS, grid_values

Blocks = npt.NDArray[np.void]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.integer]


def _f32(values: npt.NDArray[np.number]) -> Floats:
    return values.astype(np.float32, copy=False)


def _scale(blocks: Blocks, name: str = "d") -> Floats:
    """The f16 field `name` as float32 [n, 1]."""
    return _f32(blocks[name])[:, np.newaxis]


def _planes(packed: Integers, width: int) -> Integers:
    """[..., k] bytes of `width`-bit values -> [..., 8 / width, k]."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    return packed[..., np.newaxis, :] >> shifts[:, np.newaxis] & np.uint8(2**width - 1)


def _fields(packed: Integers, width: int) -> Integers:
    """[..., k] bytes of `width`-bit values -> [..., k, 8 / width]."""
    return packed[..., np.newaxis] >> np.arange(0, 8, width, dtype=np.uint8) & np.uint8(2**width - 1)


# ---- Plain numbers ----


def number(blocks: Blocks) -> Floats:
    """F32, F16, F64 and the integer types: rounded to the nearest float32."""
    return _f32(blocks["x"])[:, np.newaxis]


def bf16(blocks: Blocks) -> Floats:
    return (blocks["x"].astype(np.uint32) << np.uint32(16)).view(np.float32)[:, np.newaxis]


# ---- One scale per short block ----


def _nibbles(blocks: Blocks) -> Integers:
    return _planes(blocks["qs"], 4).reshape(len(blocks), -1)


def _five_bits(blocks: Blocks) -> Integers:
    return _nibbles(blocks) | _fields(blocks["qh"], 1).reshape(len(blocks), -1) << 4


def q4_0(blocks: Blocks) -> Floats:
    return _scale(blocks) * (_f32(_nibbles(blocks)) - 8)


def q4_1(blocks: Blocks) -> Floats:
    return _scale(blocks) * _f32(_nibbles(blocks)) + _scale(blocks, "m")


def q5_0(blocks: Blocks) -> Floats:
    return _scale(blocks) * (_f32(_five_bits(blocks)) - 16)


def q5_1(blocks: Blocks) -> Floats:
    return _scale(blocks) * _f32(_five_bits(blocks)) + _scale(blocks, "m")


def q8_0(blocks: Blocks) -> Floats:
    return _scale(blocks) * _f32(blocks["qs"])


def iq4_nl(blocks: Blocks) -> Floats:
    return _scale(blocks) * np.array(IQ4_NL_LEVELS, np.float32)[_nibbles(blocks)]


def mxfp4(blocks: Blocks) -> Floats:
    """The scale is E8M0, an exponent, halved for the doubled levels; its NaN code 255 reads as 2^127, as in ggml."""
    scale = np.ldexp(np.ones(len(blocks), np.float32), blocks["e"].astype(np.int32) - 128)
    return scale[:, np.newaxis] * np.array(E2M1_DOUBLED_LEVELS, np.float32)[_nibbles(blocks)]


def nvfp4(blocks: Blocks) -> Floats:
    """Four groups of 16 with a UE4M3 scale each (bias 7, halved); its NaN code 0x7F reads as zero, as in ggml.

    The top bit of the scale is unused. The optional scale of the whole tensor is a tensor of its own.
    """
    exponent = (blocks["d"] >> 3 & 15).astype(np.int32)
    mantissa = _f32(blocks["d"] & 7)
    subnormal = np.ldexp(mantissa, -10)
    scale = np.where(exponent == 0, subnormal, np.ldexp(mantissa + 8, exponent - 11))
    scale = np.where(blocks["d"] == 0x7F, np.float32(0), scale)
    codes = _planes(blocks["qs"], 4).reshape(-1, 4, 16)
    return (scale[:, :, np.newaxis] * np.array(E2M1_DOUBLED_LEVELS, np.float32)[codes]).reshape(-1, 64)


def q1_0(blocks: Blocks) -> Floats:
    bits = _fields(blocks["qs"], 1).reshape(len(blocks), -1)
    return np.where(bits == 1, _scale(blocks), -_scale(blocks))


def q2_0(blocks: Blocks) -> Floats:
    return _scale(blocks) * (_f32(_fields(blocks["qs"], 2).reshape(len(blocks), -1)) - 1)


# ---- Ternary super-blocks ----


def _trits(packed: Integers, count: int) -> Integers:
    """[n, k] bytes holding `count` base-3 digits each -> [n, count * k], digit by digit.

    A byte is ceil(number * 256 / 243), a fraction: multiplied by 3 modulo 256, its next digit is what overflows.
    """
    powers = np.array([1, 3, 9, 27, 81], np.uint8)[:count, np.newaxis]
    fraction = packed[:, np.newaxis, :] * powers
    return (fraction.astype(np.uint16) * 3 >> 8).reshape(len(packed), -1)


def tq1_0(blocks: Blocks) -> Floats:
    qs = blocks["qs"]
    digits = np.concatenate([_trits(qs[:, :32], 5), _trits(qs[:, 32:], 5), _trits(blocks["qh"], 4)], axis=1)
    return _scale(blocks) * (_f32(digits) - 1)


def tq2_0(blocks: Blocks) -> Floats:
    codes = _planes(blocks["qs"].reshape(-1, 2, 32), 2).reshape(-1, 256)
    return _scale(blocks) * (_f32(codes) - 1)


# ---- K super-blocks: integer scales of 8 or 16 groups times an f16 ----


def _scaled_groups(scales: Floats, codes: Integers | Floats, minima: Floats | None = None) -> Floats:
    """scales [n, g] times codes [n, 256], minus minima [n, g]; group i is the i-th run of 256 / g values."""
    num_blocks, num_groups = scales.shape
    values = scales[:, :, np.newaxis] * _f32(codes).reshape(num_blocks, num_groups, -1)
    if minima is not None:
        values -= minima[:, :, np.newaxis]
    return values.reshape(num_blocks, -1)


def _scales_and_minima(blocks: Blocks) -> tuple[Floats, Floats]:
    """The 8 scales and 8 minima of Q4_K and Q5_K.

    Of the 12 bytes, the first four hold scales 0 to 3 and the next four minima 0 to 3, in the low six bits; the last
    four hold the low nibbles of scales and minima 4 to 7, whose high bits are the spare top bits of the first eight.
    """
    first, second, third = np.split(blocks["scales"], 3, axis=1)
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    minima = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return _scale(blocks) * _f32(scales), _scale(blocks, "dmin") * _f32(minima)


def q2_k(blocks: Blocks) -> Floats:
    scales = _scale(blocks) * _f32(blocks["scales"] & 15)
    minima = _scale(blocks, "dmin") * _f32(blocks["scales"] >> 4)
    return _scaled_groups(scales, _planes(blocks["qs"].reshape(-1, 2, 32), 2), minima)


def q3_k(blocks: Blocks) -> Floats:
    """The third bit of a code is inverted: codes run from -4 (bit clear, low bits 0) to 3."""
    low_scales, high_scales = np.split(blocks["scales"], [8], axis=1)
    scales = _planes(low_scales, 4).reshape(-1, 16) | _planes(high_scales, 2).reshape(-1, 16) << 4
    low = _planes(blocks["qs"].reshape(-1, 2, 32), 2).reshape(-1, 256)
    high = _planes(blocks["hmask"], 1).reshape(-1, 256)
    return _scaled_groups(_scale(blocks) * (_f32(scales) - 32), _f32(low | high << 2) - 4)


def q4_k(blocks: Blocks) -> Floats:
    scales, minima = _scales_and_minima(blocks)
    return _scaled_groups(scales, _planes(blocks["qs"].reshape(-1, 4, 32), 4), minima)


def q5_k(blocks: Blocks) -> Floats:
    scales, minima = _scales_and_minima(blocks)
    low = _planes(blocks["qs"].reshape(-1, 4, 32), 4).reshape(-1, 256)
    high = _planes(blocks["qh"], 1).reshape(-1, 256)
    return _scaled_groups(scales, low | high << 4, minima)


def q6_k(blocks: Blocks) -> Floats:
    low = _planes(blocks["ql"].reshape(-1, 2, 64), 4).reshape(-1, 256)
    high = _planes(blocks["qh"].reshape(-1, 2, 32), 2).reshape(-1, 256)
    return _scaled_groups(_scale(blocks) * _f32(blocks["scales"]), _f32(low | high << 4) - 32)


def iq4_xs(blocks: Blocks) -> Floats:
    high_scales = blocks["scales_h"][:, np.newaxis] >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    scales = _fields(blocks["scales_l"], 4).reshape(-1, 8) | high_scales << 4
    codes = _planes(blocks["qs"].reshape(-1, 8, 16), 4)
    return _scaled_groups(_scale(blocks) * (_f32(scales) - 32), np.array(IQ4_NL_LEVELS, np.float32)[codes])


# ---- Grid super-blocks: an index stands for 4 or 8 magnitudes; signs apart ----


def _signs(sign_bytes: Integers) -> Floats:
    """[n, 32] bytes -> +1 or -1 [n, 256]; bit j of byte i is set where value 8 * i + j is negative."""
    return 1 - 2 * _f32(_fields(sign_bytes, 1)).reshape(len(sign_bytes), -1)


def _even_signs(words: Integers) -> Floats:
    """[n, 32] sign words of 7 bits -> +1 or -1 [n, 256]; the eighth sign makes the number of minus signs even."""
    bits = _fields(words.astype(np.uint8), 1)
    bits[..., 7] = bits.sum(axis=-1) & 1
    return 1 - 2 * _f32(bits).reshape(len(words), -1)


def _sign_words(words: npt.NDArray[np.uint32]) -> Integers:
    """The four 7-bit sign words in the low 28 bits of each of the [n, 8] words -> [n, 32]."""
    return (words[..., np.newaxis] >> np.array([0, 7, 14, 21], np.uint32) & 127).reshape(len(words), -1)


def _half_integer_scales(blocks: Blocks, codes: Integers, step: float) -> Floats:
    """The scales d * (code + 1/2) * step of groups, from codes [n, ...], as [n, groups]."""
    codes = codes.reshape(len(blocks), -1)
    return _scale(blocks) * (_f32(codes) + np.float32(0.5)) * np.float32(step)


def iq2_xxs(blocks: Blocks) -> Floats:
    indices, words = blocks["qs"][..., 0], blocks["qs"][..., 1]
    bytes_of_indices = indices[..., np.newaxis] >> np.array([0, 8, 16, 24], np.uint32) & 255
    scales = _half_integer_scales(blocks, words >> 28, 0.25)
    return _scaled_groups(scales, grid_values("IQ2_XXS")[bytes_of_indices]) * _even_signs(_sign_words(words))


def iq2_xs(blocks: Blocks) -> Floats:
    scales = _half_integer_scales(blocks, _fields(blocks["scales"], 4), 0.25)
    return _scaled_groups(scales, grid_values("IQ2_XS")[blocks["qs"] & 511]) * _even_signs(blocks["qs"] >> 9)


def iq2_s(blocks: Blocks) -> Floats:
    scales = _half_integer_scales(blocks, _fields(blocks["scales"], 4), 0.25)
    indices = blocks["qs"] | _fields(blocks["qh"], 2).reshape(-1, 32).astype(np.uint16) << 8
    return _scaled_groups(scales, grid_values("IQ2_S")[indices]) * _signs(blocks["signs"])


def iq3_xxs(blocks: Blocks) -> Floats:
    scales = _half_integer_scales(blocks, blocks["signs"] >> 28, 0.5)
    return _scaled_groups(scales, grid_values("IQ3_XXS")[blocks["qs"]]) * _even_signs(_sign_words(blocks["signs"]))


def iq3_s(blocks: Blocks) -> Floats:
    scales = _scale(blocks) * (_f32(_fields(blocks["scales"], 4)).reshape(-1, 8) * 2 + 1)
    indices = blocks["qs"] | _fields(blocks["qh"], 1).reshape(-1, 64).astype(np.uint16) << 8
    return _scaled_groups(scales, grid_values("IQ3_S")[indices]) * _signs(blocks["signs"])


def _shifted_grid(low: Integers, high: Integers, minus: npt.NDArray[np.bool_]) -> Floats:
    """Ternary grid values plus or minus the shift, [n, 256], from [n, 32] low index bytes, high bits, shift signs."""
    values = grid_values("IQ1_S")[low | high.astype(np.uint16) << 8]
    shifts = np.where(minus, np.float32(-IQ1_SHIFT), np.float32(IQ1_SHIFT))
    return _f32(values + shifts[..., np.newaxis]).reshape(-1, 256)


def iq1_s(blocks: Blocks) -> Floats:
    qh = blocks["qh"]
    scales = _scale(blocks) * (_f32(qh >> 12 & 7) * 2 + 1)
    high = (qh[..., np.newaxis] >> np.array([0, 3, 6, 9], np.uint16) & 7).reshape(-1, 32)
    return _scaled_groups(scales, _shifted_grid(blocks["qs"], high, np.repeat(qh >= 0x8000, 4, axis=1)))


def iq1_m(blocks: Blocks) -> Floats:
    """The four top nibbles of the scale words, lowest first, are the f16 scale of the block."""
    words = blocks["scales"]
    nibbles = words >> 12 << np.array([0, 4, 8, 12], np.uint16)
    scale = _f32(np.bitwise_or.reduce(nibbles, axis=1).view(np.float16))[:, np.newaxis]
    group_scales = (words[..., np.newaxis] >> np.array([0, 3, 6, 9], np.uint16) & 7).reshape(-1, 16)
    qh = _fields(blocks["qh"], 4).reshape(-1, 32)
    return _scaled_groups(scale * (_f32(group_scales) * 2 + 1), _shifted_grid(blocks["qs"], qh & 7, qh >= 8))
