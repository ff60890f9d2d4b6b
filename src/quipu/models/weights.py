"""Handing out the tensors of a file by name, so that each is used once, with the shape the model expects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quipu.backends.program import Weight
from quipu.errors import ModelFileError, UnsupportedModelError
from quipu.gguf import GGMLType, GGUFReader
from quipu.quant import dequantize

# Tensors that old converters wrote and that hold nothing the metadata does not say.
IGNORABLE_SUFFIXES = (".attn_rot_embd", ".rope.freqs", ".attn.rotary_emb.inv_freq")
_NOT_WEIGHTS = (GGMLType.I8, GGMLType.I16, GGMLType.I32, GGMLType.I64, GGMLType.F64)


class TensorBook:
    """Tensors of an open file. What is left over at the end is an error: a model must not run without a part of it."""

    def __init__(self, reader: GGUFReader) -> None:
        self._reader = reader
        self._unused = set(reader.tensors)

    def matrix(self, name: str, rows: int, cols: int) -> Weight:
        """The required tensor `name` with logical shape [rows, cols]."""
        weight = self.optional(name, rows, cols)
        if weight is None:
            raise self._missing(name)
        return weight

    def vector(self, name: str, length: int) -> Weight:
        """The required vector `name`."""
        return self.matrix(name, 1, length)

    def optional(self, name: str, rows: int, cols: int) -> Weight | None:
        """The tensor `name` with logical shape [rows, cols] (a vector is one row), or None if the file has none."""
        return self._take(name, (cols, rows) if rows > 1 else (cols,), rows, cols)

    def stacked(self, name: str, count: int, rows: int, cols: int) -> Weight:
        """The required tensor `name` of `count` matrices [rows, cols], as one weight [count * rows, cols]."""
        weight = self._take(name, (cols, rows, count), count * rows, cols)
        if weight is None:
            raise self._missing(name)
        return weight

    def rows(self, name: str) -> int:
        """The number of rows of the required matrix `name`; a vector is one row."""
        if name not in self:
            raise self._missing(name)
        shape = self._reader.tensors[name].shape
        return shape[1] if len(shape) > 1 else 1

    @property
    def path(self) -> object:
        """The file, for error messages."""
        return self._reader.path

    def __contains__(self, name: str) -> bool:
        return name in self._reader.tensors

    def _missing(self, name: str) -> ModelFileError:
        return ModelFileError(f"{self._reader.path}: tensor {name!r} is missing; fetch or convert the model again")

    def _take(self, name: str, shape: tuple[int, ...], rows: int, cols: int) -> Weight | None:
        """The tensor `name`, stored with `shape` (fastest first), as a weight [rows, cols]."""
        info = self._reader.tensors.get(name)
        if info is None:
            return None
        if info.type in _NOT_WEIGHTS:
            raise UnsupportedModelError(
                f"{self._reader.path}: tensor {name!r} has type {info.type.name}, no weight type"
            )
        stored = tuple(size for size in info.shape if size != 1) or (1,)
        expected = tuple(size for size in shape if size != 1) or (1,)
        if stored != expected:
            raise ModelFileError(
                f"{self._reader.path}: tensor {name!r} is {_shape(info.shape)} but the metadata asks for "
                f"{_shape(shape)}; convert the model again"
            )
        self._unused.discard(name)
        return Weight(name, info.type, (rows, cols), self._reader.tensor_data(name).reshape(rows, -1))

    def floats(self, name: str) -> NDArray[np.float32] | None:
        """A small optional tensor as float32, flat."""
        if name not in self._reader.tensors:
            return None
        self._unused.discard(name)
        return dequantize(self._reader.tensor_data(name), self._reader.tensors[name].type).reshape(-1)

    def check_all_used(self) -> None:
        """Raise UnsupportedModelError if a tensor was not asked for."""
        unused = sorted(name for name in self._unused if not name.endswith(IGNORABLE_SUFFIXES))
        if unused:
            more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
            raise UnsupportedModelError(
                f"{self._reader.path}: tensor {unused[0]!r}{more} would not be used, so the result would be wrong; "
                "this version of quipu does not know this variant of the model"
            )


def split_rows(weight: Weight, names: tuple[str, ...], sizes: tuple[int, ...]) -> tuple[Weight, ...]:
    """Consecutive rows of a fused matrix as weights of their own, without a copy; a vector is split by values."""
    parts: list[Weight] = []
    start = 0
    for name, size in zip(names, sizes, strict=True):
        if weight.shape[0] == 1:
            width = weight.type.row_bytes(1)  # fused biases are stored as plain floats
            data, shape = weight.data[:, start * width : (start + size) * width], (1, size)
        else:
            data, shape = weight.data[start : start + size], (size, weight.shape[1])
        parts.append(Weight(name, weight.type, shape, data))
        start += size
    return tuple(parts)


def _shape(sizes: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in sizes)
