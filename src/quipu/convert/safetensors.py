"""Reading safetensors files: a JSON header that says where each tensor lies, then the data.

The format is https://github.com/huggingface/safetensors (Apache 2.0). A file is hostile input: every number of the
header is checked against the size of the file before anything is read.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quipu.convert.settings import parse_json
from quipu.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError
from quipu.gguf.metadata import shorten

MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own reader
_MAX_DIMENSIONS = 8
_PIECE_VALUES = 1 << 22  # of a tensor, converted at a time: 16 MiB of float32

# The types that weights are stored in, by the names of the format. BF16 has no dtype: it is the upper half of a float.
_DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
)
# Those that occur beside weights, such as the position ids of BERT: bytes per value.
_OTHER_SIZES: Mapping[str, int] = MappingProxyType(
    {
        "I64": 8,
        "U64": 8,
        "I32": 4,
        "U32": 4,
        "I16": 2,
        "U16": 2,
        "I8": 1,
        "U8": 1,
        "BOOL": 1,
        "F8_E4M3": 1,
    }
)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as the header describes it.

    Attributes:
        name: unique in the file.
        dtype: the format's name of its type.
        shape: sizes, slowest-changing first.
        begin, end: where its bytes lie in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def num_values(self) -> int:
        return _product(self.shape)


class SafetensorsFile:
    """An open file, mapped into memory.

    Attributes:
        path: the file.
        tensors: what it holds, by name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Raises:
            ModelNotFoundError: there is no such file.
            ModelFileError: it cannot be read, or is not a whole and consistent safetensors file.
        """
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                num_bytes = os.fstat(file.fileno()).st_size
                if num_bytes < 8:
                    raise self._broken(f"it has {num_bytes} bytes, too few for a header")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise ModelNotFoundError(f"there is no file {self.path}; check the folder of the model") from None
        except OSError as error:
            raise ModelFileError(f"{self.path} cannot be read ({error.strerror or error}); check the file") from None
        try:
            self.tensors = self._read_header(num_bytes)
        except ModelFileError:
            self._map.close()
            raise

    def pieces(self, name: str) -> Iterator[NDArray[np.float32]]:
        """The values of a tensor as flat float32 arrays, one after another, each small enough to keep in memory.

        Raises:
            UnsupportedModelError: its type is none that weights are stored in.
        """
        tensor = self.tensors[name]
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            raise UnsupportedModelError(
                f"{self.path}: tensor {shorten(name)} is stored as {tensor.dtype}, but only {', '.join(_DTYPES)} are "
                "converted; use the original weights of the model"
            )
        values = np.frombuffer(self._map, dtype, tensor.num_values, tensor.begin)
        for start in range(0, tensor.num_values, _PIECE_VALUES):
            piece = values[start : start + _PIECE_VALUES]
            if tensor.dtype == "BF16":
                yield (piece.astype(np.uint32) << np.uint32(16)).view(np.float32)
            else:
                with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as such
                    yield piece.astype(np.float32)

    def _read_header(self, num_bytes: int) -> Mapping[str, StoredTensor]:
        header_bytes = int.from_bytes(self._map[:8], "little")
        if header_bytes > min(MAX_HEADER_BYTES, num_bytes - 8):
            raise self._broken(f"its header claims {header_bytes} bytes, the file has {num_bytes}")
        header = parse_json(self._map[8 : 8 + header_bytes], f"{self.path}: the header")
        if not isinstance(header, dict):
            raise self._broken("its header is no JSON object")
        first = 8 + header_bytes
        tensors = [
            self._read_entry(name, entry, first, num_bytes) for name, entry in header.items() if name != "__metadata__"
        ]
        self._check_layout(tensors, first, num_bytes)
        return MappingProxyType({tensor.name: tensor for tensor in tensors})

    def _read_entry(self, name: str, entry: Any, first: int, num_bytes: int) -> StoredTensor:
        label = f"tensor {shorten(name)}"
        if not isinstance(entry, dict):
            raise self._broken(f"{label} is described by no object")
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if not isinstance(dtype, str) or (dtype not in _DTYPES and dtype not in _OTHER_SIZES):
            raise self._broken(f"{label} has the unknown type {str(dtype)[:40]!r}")
        if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(map(_is_size, shape)):
            raise self._broken(f"the shape of {label} is no list of up to {_MAX_DIMENSIONS} sizes")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
            raise self._broken(f"the offsets of {label} are no pair of sizes")
        begin, end = first + offsets[0], first + offsets[1]
        if not first <= begin <= end <= num_bytes:
            raise self._broken(f"{label} lies at bytes {begin} to {end}, outside the data")
        value_bytes = _DTYPES[dtype].itemsize if dtype in _DTYPES else _OTHER_SIZES[dtype]
        if _product(shape) * value_bytes != end - begin:
            raise self._broken(f"{label} has {end - begin} bytes, which is not what its shape needs")
        return StoredTensor(name, dtype, tuple(shape), begin, end)

    def _check_layout(self, tensors: list[StoredTensor], first: int, num_bytes: int) -> None:
        """The data is covered by tensors without gap or overlap, as the format demands."""
        position = first
        for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
            if tensor.begin != position:
                raise self._broken(f"tensor {shorten(tensor.name)} does not begin where the one before it ends")
            position = tensor.end
        if position != num_bytes:
            raise self._broken(f"its tensors end at byte {position}, the file at {num_bytes}")

    def _broken(self, reason: str) -> ModelFileError:
        return ModelFileError(f"{self.path} is no whole safetensors file: {reason}; fetch it again")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _product(sizes: list[int] | tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
