"""How values are rounded to the small formats that can be written at once: what the KV cache is stored in.

One function per type, from float32 [n, values per block] to blocks as a record array [n] with the fields that
`table.py` gives. These are the plain rules of ggml, one pass without a search; native code gives the same bits. As in
`decode.py` the order of the float operations is part of the definition.

A block with a NaN or an infinity gets NaN as its scale, so that it decodes to NaN and is not lost.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quipu.quant.grids import IQ4_NL_LEVELS

Blocks = npt.NDArray[np.void]
Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]

_IQ4_NL_MIDPOINTS = (np.array(IQ4_NL_LEVELS[1:], np.float32) + np.array(IQ4_NL_LEVELS[:-1], np.float32)) / 2


def f32(values: Floats, blocks: Blocks) -> None:
    blocks["x"] = values[:, 0]


def f16(values: Floats, blocks: Blocks) -> None:
    """To the nearest, ties to even; above 65519 it is infinite."""
    blocks["x"] = values[:, 0].astype(np.float16)


def bf16(values: Floats, blocks: Blocks) -> None:
    """To the nearest, ties to even; a NaN stays one."""
    bits = np.ascontiguousarray(values[:, 0]).view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))
    blocks["x"] = np.where(np.isnan(values[:, 0]), bits | np.uint32(1 << 22), rounded) >> np.uint32(16)


def q8_0(values: Floats, blocks: Blocks) -> None:
    """Codes -127 to 127, halves rounded away from zero."""
    largest = np.abs(values).max(axis=1)
    scaled = _scaled(values, largest / np.float32(127))
    magnitude = np.abs(scaled)
    whole = np.trunc(magnitude)
    whole += magnitude - whole >= np.float32(0.5)
    blocks["d"] = _scale(values, largest / np.float32(127))
    blocks["qs"] = np.copysign(whole, scaled).astype(np.int8)


def q4_0(values: Floats, blocks: Blocks) -> None:
    """The value of largest magnitude becomes code 0, which is -8 scales."""
    _symmetric(values, blocks, 8)


def q5_0(values: Floats, blocks: Blocks) -> None:
    """The value of largest magnitude becomes code 0, which is -16 scales."""
    _symmetric(values, blocks, 16)


def q4_1(values: Floats, blocks: Blocks) -> None:
    _affine(values, blocks, 15)


def q5_1(values: Floats, blocks: Blocks) -> None:
    _affine(values, blocks, 31)


def iq4_nl(values: Floats, blocks: Blocks) -> None:
    """The value of largest magnitude sets a first scale, by which codes are chosen; the scale is then the one with the
    least squared error, weighted by the squared value."""
    levels = np.array(IQ4_NL_LEVELS, np.float32)
    scaled = _scaled(values, _largest(values) / levels[0])
    codes: Codes = np.searchsorted(_IQ4_NL_MIDPOINTS, scaled, side="right").astype(np.uint8)
    products = np.zeros(len(values), np.float32)
    squares = np.zeros(len(values), np.float32)
    for value, level in zip(values.T, levels[codes].T, strict=True):  # one by one: the order of a float sum counts
        weight = value * value
        products += weight * level * value
        squares += weight * level * level
    scale = np.where(squares > 0, products / np.where(squares > 0, squares, np.float32(1)), np.float32(0))
    blocks["d"] = _scale(values, scale)
    blocks["qs"] = _pack_nibbles(codes)


def _symmetric(values: Floats, blocks: Blocks, half: int) -> None:
    scale = _largest(values) / np.float32(-half)
    codes = _rounded(_scaled(values, scale) + np.float32(half + 0.5), 2 * half - 1)
    blocks["d"] = _scale(values, scale)
    _store_codes(codes, blocks)


def _affine(values: Floats, blocks: Blocks, most: int) -> None:
    lowest = values.min(axis=1)
    scale = (values.max(axis=1) - lowest) / np.float32(most)
    codes = _rounded(_scaled(values - lowest[:, np.newaxis], scale) + np.float32(0.5), most)
    blocks["d"] = _scale(values, scale)
    blocks["m"] = np.where(_finite_rows(values), lowest, np.float32(0))
    _store_codes(codes, blocks)


def _largest(values: Floats) -> Floats:
    """The first value of largest magnitude in each row, with its sign."""
    largest: Floats = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
    return largest


def _scale(values: Floats, scale: Floats) -> npt.NDArray[np.float16]:
    return np.where(_finite_rows(values), scale, np.float32(np.nan)).astype(np.float16)


def _finite_rows(values: Floats) -> npt.NDArray[np.bool_]:
    finite: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(values), axis=1)
    return finite


def _scaled(values: Floats, scale: Floats) -> Floats:
    """values times the reciprocal of scale; zeros where there is none, or where a value is not finite."""
    reciprocal = np.float32(1) / scale
    usable = np.logical_and(_finite_rows(values), np.isfinite(reciprocal))
    reciprocal = np.where(usable, reciprocal, np.float32(0))
    scaled: Floats = np.where(usable[:, np.newaxis], values, np.float32(0)) * reciprocal[:, np.newaxis]
    return scaled


def _rounded(shifted: Floats, most: int) -> Codes:
    """Truncated to a code from 0 to `most`; half a step was added before."""
    return np.minimum(np.trunc(shifted), np.float32(most)).astype(np.uint8)


def _store_codes(codes: Codes, blocks: Blocks) -> None:
    blocks["qs"] = _pack_nibbles(codes & np.uint8(15))
    assert blocks.dtype.names is not None
    if "qh" in blocks.dtype.names:
        blocks["qh"] = np.packbits(codes >> np.uint8(4), axis=1, bitorder="little")


def _pack_nibbles(codes: Codes) -> Codes:
    """Value j in the low half of byte j, value j + 16 in the high half."""
    return codes[:, :16] | codes[:, 16:] << np.uint8(4)
