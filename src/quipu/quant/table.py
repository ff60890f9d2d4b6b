"""The table of tensor types, and what looks them up: `dequantize`, and `encode` for those that need no search."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quipu.errors import UsageError
from quipu.gguf.types import GGMLType
from quipu.quant import decode, encoders

# Values per slice of the work: intermediates stay within a few MB whatever the size of the tensor.
_CHUNK_VALUES = 1 << 18


class QuantType(NamedTuple):
    """One row of the table of types.

    Attributes:
        type: its id, name and sizes.
        layout: the fields of a block in the order of the file, each with numpy's name of its type; the same as in
            `native/blocks.h`. Source: `ggml-common.h` of llama.cpp (MIT licence).
        decode: blocks as a record array [n] -> float32 [n, values per block].
    """

    type: GGMLType
    layout: dict[str, str]
    decode: Callable[[decode.Blocks], decode.Floats]


QUANT_TYPES: dict[GGMLType, QuantType] = {
    row.type: row
    for row in (
        QuantType(GGMLType.F32, {"x": "<f4"}, decode.number),
        QuantType(GGMLType.F16, {"x": "<f2"}, decode.number),
        QuantType(GGMLType.BF16, {"x": "<u2"}, decode.bf16),
        QuantType(GGMLType.F64, {"x": "<f8"}, decode.number),
        QuantType(GGMLType.I8, {"x": "i1"}, decode.number),
        QuantType(GGMLType.I16, {"x": "<i2"}, decode.number),
        QuantType(GGMLType.I32, {"x": "<i4"}, decode.number),
        QuantType(GGMLType.I64, {"x": "<i8"}, decode.number),
        QuantType(GGMLType.Q4_0, {"d": "<f2", "qs": "16u1"}, decode.q4_0),
        QuantType(GGMLType.Q4_1, {"d": "<f2", "m": "<f2", "qs": "16u1"}, decode.q4_1),
        QuantType(GGMLType.Q5_0, {"d": "<f2", "qh": "4u1", "qs": "16u1"}, decode.q5_0),
        QuantType(GGMLType.Q5_1, {"d": "<f2", "m": "<f2", "qh": "4u1", "qs": "16u1"}, decode.q5_1),
        QuantType(GGMLType.Q8_0, {"d": "<f2", "qs": "32i1"}, decode.q8_0),
        QuantType(GGMLType.Q2_K, {"scales": "16u1", "qs": "64u1", "d": "<f2", "dmin": "<f2"}, decode.q2_k),
        QuantType(GGMLType.Q3_K, {"hmask": "32u1", "qs": "64u1", "scales": "12u1", "d": "<f2"}, decode.q3_k),
        QuantType(GGMLType.Q4_K, {"d": "<f2", "dmin": "<f2", "scales": "12u1", "qs": "128u1"}, decode.q4_k),
        QuantType(
            GGMLType.Q5_K, {"d": "<f2", "dmin": "<f2", "scales": "12u1", "qh": "32u1", "qs": "128u1"}, decode.q5_k
        ),
        QuantType(GGMLType.Q6_K, {"ql": "128u1", "qh": "64u1", "scales": "16i1", "d": "<f2"}, decode.q6_k),
        QuantType(GGMLType.IQ1_S, {"d": "<f2", "qs": "32u1", "qh": "8<u2"}, decode.iq1_s),
        QuantType(GGMLType.IQ1_M, {"qs": "32u1", "qh": "16u1", "scales": "4<u2"}, decode.iq1_m),
        QuantType(GGMLType.IQ2_XXS, {"d": "<f2", "qs": "(8,2)<u4"}, decode.iq2_xxs),
        QuantType(GGMLType.IQ2_XS, {"d": "<f2", "qs": "32<u2", "scales": "8u1"}, decode.iq2_xs),
        QuantType(
            GGMLType.IQ2_S, {"d": "<f2", "qs": "32u1", "signs": "32u1", "qh": "8u1", "scales": "8u1"}, decode.iq2_s
        ),
        QuantType(GGMLType.IQ3_XXS, {"d": "<f2", "qs": "64u1", "signs": "8<u4"}, decode.iq3_xxs),
        QuantType(
            GGMLType.IQ3_S, {"d": "<f2", "qs": "64u1", "qh": "8u1", "signs": "32u1", "scales": "4u1"}, decode.iq3_s
        ),
        QuantType(GGMLType.IQ4_NL, {"d": "<f2", "qs": "16u1"}, decode.iq4_nl),
        QuantType(GGMLType.IQ4_XS, {"d": "<f2", "scales_h": "<u2", "scales_l": "4u1", "qs": "128u1"}, decode.iq4_xs),
        QuantType(GGMLType.TQ1_0, {"qs": "48u1", "qh": "4u1", "d": "<f2"}, decode.tq1_0),
        QuantType(GGMLType.TQ2_0, {"qs": "64u1", "d": "<f2"}, decode.tq2_0),
        QuantType(GGMLType.MXFP4, {"e": "u1", "qs": "16u1"}, decode.mxfp4),
        QuantType(GGMLType.NVFP4, {"d": "4u1", "qs": "(4, 8)u1"}, decode.nvfp4),
        QuantType(GGMLType.Q1_0, {"d": "<f2", "qs": "16u1"}, decode.q1_0),
        QuantType(GGMLType.Q2_0, {"d": "<f2", "qs": "16u1"}, decode.q2_0),
    )
}


def quant_type(name: str | GGMLType) -> QuantType:
    """The row of the type called `name`, such as "Q4_K".

    Raises:
        UsageError: there is no such type.
    """
    if not isinstance(name, GGMLType):
        try:
            name = GGMLType[name]
        except KeyError:
            known = ", ".join(type_.name for type_ in QUANT_TYPES)
            raise UsageError(f"there is no tensor type {name!r}; choose one of {known}") from None
    return QUANT_TYPES[name]


def dequantize(
    data: npt.NDArray[np.uint8] | bytes | bytearray | memoryview, type_name: str | GGMLType
) -> npt.NDArray[np.float32]:
    """The values that the stored bytes of a tensor stand for.

    This is the definition of every type that quipu reads; each faster implementation gives the same bits. F64 values
    and integers that float32 cannot hold are rounded or become infinite. A NaN or infinite scale is not an error.

    Args:
        data: uint8 [..., row bytes], each row a whole number of blocks; or a bytes-like object, taken as one row.
        type_name: a `GGMLType` or its name, such as "Q4_K".

    Returns:
        float32 [..., values per row], newly allocated.

    Raises:
        UsageError: unknown type, data that is not uint8, or a row that is not a whole number of blocks.
    """
    row = quant_type(type_name)
    array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    block_size, block_bytes = row.type.block_size, row.type.block_bytes
    if array.dtype != np.uint8 or array.ndim == 0:
        raise UsageError(f"stored tensor data must be a uint8 array of rows, not {array.dtype} {list(array.shape)}")
    if array.shape[-1] % block_bytes:
        raise UsageError(
            f"a row of {array.shape[-1]} bytes is not a whole number of {row.type.name} blocks of {block_bytes} bytes"
        )
    blocks = np.ascontiguousarray(array).reshape(-1).view(np.dtype(list(row.layout.items())))
    values = np.empty((len(blocks), block_size), np.float32)
    chunk = max(1, _CHUNK_VALUES // block_size)
    # Scales in files may be NaN or infinite; what arithmetic makes of them is part of the definition.
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), chunk):
            values[start : start + chunk] = row.decode(blocks[start : start + chunk])
    return values.reshape(*array.shape[:-1], array.shape[-1] // block_bytes * block_size)


_ENCODERS: dict[GGMLType, Callable[[encoders.Floats, encoders.Blocks], None]] = {
    GGMLType.F32: encoders.f32,
    GGMLType.F16: encoders.f16,
    GGMLType.BF16: encoders.bf16,
    GGMLType.Q8_0: encoders.q8_0,
    GGMLType.Q5_1: encoders.q5_1,
    GGMLType.Q5_0: encoders.q5_0,
    GGMLType.Q4_1: encoders.q4_1,
    GGMLType.Q4_0: encoders.q4_0,
    GGMLType.IQ4_NL: encoders.iq4_nl,
}
ENCODABLE_TYPES = tuple(_ENCODERS)
"""The types that `encode` writes."""


def encode(values: npt.NDArray[np.floating], type_name: str | GGMLType) -> npt.NDArray[np.uint8]:
    """The bytes that stand for `values`, each rounded by itself or within its block, in one pass.

    Args:
        values: float [..., values per row], each row a whole number of blocks.
        type_name: one of `ENCODABLE_TYPES`, or its name.

    Returns:
        uint8 [..., row bytes], newly allocated.

    Raises:
        UsageError: a type that is not written this way, or a row that is not a whole number of blocks.
    """
    row = quant_type(type_name)
    if row.type not in _ENCODERS:
        names = ", ".join(type_.name for type_ in ENCODABLE_TYPES)
        raise UsageError(f"{row.type.name} values are not encoded one block at a time; choose one of {names}")
    block_size, block_bytes = row.type.block_size, row.type.block_bytes
    if values.ndim == 0 or values.shape[-1] % block_size:
        raise UsageError(
            f"rows of shape {list(values.shape)} are not whole {row.type.name} blocks of {block_size} values"
        )
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, block_size)
    blocks = np.zeros(len(flat), np.dtype(list(row.layout.items())))
    chunk = max(1, _CHUNK_VALUES // block_size)
    with np.errstate(all="ignore"):
        for start in range(0, len(flat), chunk):
            _ENCODERS[row.type](flat[start : start + chunk], blocks[start : start + chunk])
    row_bytes = values.shape[-1] // block_size * block_bytes
    return blocks.view(np.uint8).reshape(*values.shape[:-1], row_bytes)
