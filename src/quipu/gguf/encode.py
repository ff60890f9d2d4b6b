"""Metadata values to bytes: the counterpart of `cursor`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from quipu.gguf.cursor import MAX_DEPTH, NestedArray
from quipu.gguf.values import NUMBER_DTYPES, TYPE_OF_DTYPE, StringArray, ValueType

# What a metadata value may be. A numpy scalar or array keeps its type; for Python values see `encode_value`.
WritableValue: TypeAlias = (
    "bool | int | float | str | bytes | np.generic | npt.NDArray[Any] | StringArray | NestedArray | Sequence[Any]"
)


def encode_string(text: str | bytes) -> bytes:
    """Length and UTF-8 bytes; a lone surrogate that stands for a broken byte (see `StringArray`) becomes it again."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def encode_value(value: WritableValue) -> bytes:
    """A metadata value with its type in front.

    Python values take the types that GGUF files usually have: int is uint32, where that does not fit int32, then int64,
    then uint64; float is float32; bytes are a string. A list takes the first of bool, int32, int64, uint64, float32,
    string and array that fits all its elements. To choose another type give a numpy scalar or array.

    Raises:
        TypeError: there is no type for such a value.
        ValueError: an integer beyond 64 bits, a float beyond float32, text with lone surrogates that stand for no byte,
            arrays nested too deep.
    """
    if isinstance(value, str | bytes):
        return _tag(ValueType.STRING) + encode_string(value)
    if isinstance(value, bool | int | float | np.generic):
        number = _to_number(value)
        return _tag(_number_type(number.dtype)) + number.tobytes()
    return _tag(ValueType.ARRAY) + _encode_array(value, 1)


def _tag(value_type: ValueType) -> bytes:
    return struct.pack("<I", value_type)


def _head(element_type: ValueType, count: int) -> bytes:
    return struct.pack("<IQ", element_type, count)


def _to_number(value: bool | int | float | np.generic) -> np.generic:
    if isinstance(value, np.generic):
        return value
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, float):
        single: np.float32 = _to_floats([value])[0]
        return single
    for integer_type in (np.uint32, np.int32, np.int64, np.uint64):
        if np.iinfo(integer_type).min <= value <= np.iinfo(integer_type).max:
            return integer_type(value)
    raise ValueError(f"{value} does not fit into 64 bits")


def _number_type(dtype: np.dtype[Any]) -> ValueType:
    value_type = TYPE_OF_DTYPE.get(dtype.newbyteorder("<"))
    if value_type is None:
        raise TypeError(f"GGUF metadata has no type for {dtype}; use one of {', '.join(map(str, TYPE_OF_DTYPE))}")
    return value_type


def _encode_array(value: Any, depth: int) -> bytes:
    """Element type, count and elements."""
    if depth > MAX_DEPTH:
        raise ValueError(f"arrays are nested more than {MAX_DEPTH} deep")
    if isinstance(value, StringArray):
        return _head(ValueType.STRING, len(value)) + value.stored_bytes()
    if isinstance(value, NestedArray):
        return _head(ValueType.ARRAY, len(value)) + value.stored_bytes()
    if isinstance(value, np.ndarray):
        if value.ndim != 1:
            raise TypeError(f"a metadata array has one dimension, this one has the shape {value.shape}")
        value_type = _number_type(value.dtype)
        return _head(value_type, len(value)) + value.astype(NUMBER_DTYPES[value_type], copy=False).tobytes()
    if not isinstance(value, Sequence):
        raise TypeError(f"GGUF metadata has no type for {type(value).__name__}")
    return _encode_sequence(value, depth)


def _encode_sequence(value: Sequence[Any], depth: int) -> bytes:
    if not value:
        raise TypeError("the element type of an empty list is unknown; give an empty numpy array")
    if all(isinstance(item, str | bytes) for item in value):
        return _head(ValueType.STRING, len(value)) + b"".join(map(encode_string, value))
    if all(isinstance(item, bool | np.bool_) for item in value):
        return _encode_array(np.array(value, dtype=np.bool_), depth)
    if any(isinstance(item, bool | np.bool_ | str | bytes) for item in value):
        raise TypeError("the elements of a metadata array have to be of one kind")
    if all(isinstance(item, int | np.integer) for item in value):
        return _encode_array(_to_integers(value), depth)
    if all(isinstance(item, int | float | np.integer | np.floating) for item in value):
        return _encode_array(_to_floats(value), depth)
    return _head(ValueType.ARRAY, len(value)) + b"".join(_encode_array(item, depth + 1) for item in value)


def _to_floats(values: Sequence[Any]) -> npt.NDArray[np.float32]:
    doubles = np.array(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        singles = doubles.astype(np.float32)
    if (np.isinf(singles) & np.isfinite(doubles)).any():
        raise ValueError("a float is too large for float32; give a numpy float64")
    return singles


def _to_integers(values: Sequence[Any]) -> npt.NDArray[Any]:
    smallest, largest = min(values), max(values)
    for integer_type in (np.int32, np.int64, np.uint64):
        if np.iinfo(integer_type).min <= smallest and largest <= np.iinfo(integer_type).max:
            return np.array(values, dtype=integer_type)
    raise ValueError(f"the integers from {smallest} to {largest} do not fit into one 64-bit type")
