"""Bounds-checked reading of a GGUF header. Every length, count and type is checked before it is used."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from quipu.errors import ModelFileError
from quipu.gguf.values import NUMBER_DTYPES, StringArray, ValueType, index_strings

# Caps far above what models need (a few MB of header, a million strings), so that a hostile file costs little.
MAX_HEADER_BYTES = 1 << 28
MAX_STRINGS = 1 << 23  # in all arrays of a file
MAX_NESTED_ARRAYS = 1 << 16  # in all arrays of a file
MAX_DEPTH = 4  # of arrays within arrays

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_MIN_ARRAY_BYTES = _U32.size + _U64.size  # an element type and a count

ArrayValue: TypeAlias = "npt.NDArray[Any] | StringArray | NestedArray"


class Cursor:
    """Reads values one after the other and raises ModelFileError where one does not fit.

    Attributes:
        position: offset of the next value, bytes from the start of the file.
        subject: what is being read, for error messages.
        limit: offset that no value may cross.
    """

    def __init__(self, name: str, mapping: mmap.mmap | bytes, data: npt.NDArray[np.uint8], position: int = 0) -> None:
        """
        Args:
            name: the file's name, for error messages.
            mapping: the file.
            data: uint8, the same bytes as an array.
            position: where to start.
        """
        self.position = position
        self.subject = "the header"
        self.limit = min(len(data), MAX_HEADER_BYTES)
        self._name = name
        self._mapping = mapping
        self._data = data
        self._num_strings = 0
        self._num_nested_arrays = 0

    def fail(self, problem: str) -> NoReturn:
        """Raise ModelFileError: `subject` followed by `problem`."""
        raise ModelFileError(
            f"{self._name}: {self.subject} {problem}; the file is damaged or incomplete, fetch or convert it again"
        )

    def read_u32(self) -> int:
        self._require(_U32.size)
        value: int = _U32.unpack_from(self._mapping, self.position)[0]
        self.position += _U32.size
        return value

    def read_u64(self) -> int:
        self._require(_U64.size)
        value: int = _U64.unpack_from(self._mapping, self.position)[0]
        self.position += _U64.size
        return value

    def read_string(self, max_bytes: int | None = None) -> tuple[int, int]:
        """Pass over a string and return the offsets of its first byte and of the byte behind it."""
        num_bytes = self.read_u64()
        if max_bytes is not None and num_bytes > max_bytes:
            self.fail(f"is {num_bytes} bytes long, but at most {max_bytes} are allowed")
        self._require(num_bytes)
        start = self.position
        self.position += num_bytes
        return start, self.position

    def read_text(self, max_bytes: int) -> str:
        """A short string that has to be valid UTF-8."""
        start, end = self.read_string(max_bytes)
        try:
            return self._mapping[start:end].decode("utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"is not valid UTF-8 (byte {error.start} of {end - start})")

    def read_value_type(self) -> ValueType:
        type_id = self.read_u32()
        try:
            return ValueType(type_id)
        except ValueError:
            self.fail(f"has value type {type_id}, but the format only knows 0 to {max(ValueType):d}")

    def read_number(self, value_type: ValueType) -> Any:
        """A number or truth value, as a numpy scalar of the stored type."""
        return self._read_numbers(value_type, 1)[0]

    def read_array(self, depth: int = 1) -> ArrayValue:
        """An array with everything in it checked. Numbers are a view of the file, the rest is read when asked for.

        Args:
            depth: 1 for an array, 2 for one within it, and so on.
        """
        element_type = self.read_value_type()
        count = self.read_u64()
        if element_type is ValueType.STRING:
            return self._read_strings(count)
        if element_type is ValueType.ARRAY:
            return self._read_nested(count, depth)
        return self._read_numbers(element_type, count)

    def _read_numbers(self, value_type: ValueType, count: int) -> npt.NDArray[Any]:
        dtype = NUMBER_DTYPES[value_type]
        num_bytes = count * dtype.itemsize
        self._require(num_bytes)
        stored = self._data[self.position : self.position + num_bytes]
        if value_type is ValueType.BOOL and count and stored.max() > 1:
            self.fail(f"holds the truth value {stored.max()}, but only 0 and 1 are allowed")
        self.position += num_bytes
        return stored.view(dtype)

    def _read_strings(self, count: int) -> StringArray:
        self._require_count(count, _U64.size, "strings")
        self._num_strings += count
        if self._num_strings > MAX_STRINGS:
            self.fail(f"brings the strings in arrays to {self._num_strings}, but quipu reads at most {MAX_STRINGS}")
        offsets = index_strings(self._mapping, self._data, self.position, count, self.limit)
        if isinstance(offsets, int):
            self.fail(f"has a string, number {offsets} of {count}, that runs past {self._boundary()}")
        self.position = int(offsets[-1])
        return StringArray(self._mapping, offsets)

    def _read_nested(self, count: int, depth: int) -> NestedArray:
        if depth == MAX_DEPTH:
            self.fail(f"nests arrays more than {MAX_DEPTH} deep")
        self._require_count(count, _MIN_ARRAY_BYTES, "arrays")
        self._num_nested_arrays += count
        if self._num_nested_arrays > MAX_NESTED_ARRAYS:
            self.fail(
                f"brings the arrays within arrays to {self._num_nested_arrays}, but quipu reads at most "
                f"{MAX_NESTED_ARRAYS}"
            )
        offsets = np.empty(count + 1, dtype=np.int64)
        for index in range(count):
            offsets[index] = self.position
            self.read_array(depth + 1)
        offsets[count] = self.position
        return NestedArray(self._name, self._mapping, self._data, offsets, depth)

    def _require(self, num_bytes: int) -> None:
        if num_bytes > self.limit - self.position:
            self.fail(
                f"needs {num_bytes} bytes at offset {self.position}, but {self.limit - self.position} are left before "
                f"{self._boundary()}"
            )

    def _require_count(self, count: int, min_element_bytes: int, what: str) -> None:
        if count > (self.limit - self.position) // min_element_bytes:
            self.fail(
                f"claims {count} {what}, more than fit in the {self.limit - self.position} bytes before "
                f"{self._boundary()}"
            )

    def _boundary(self) -> str:
        if self.limit < len(self._data):
            return f"offset {self.limit}, the most that metadata and tensor list may take"
        return f"the end of the file at {self.limit}"


class NestedArray(Sequence[ArrayValue]):
    """An array of arrays in a mapped file. Its elements are read when they are asked for."""

    __slots__ = ("_data", "_depth", "_mapping", "_name", "_offsets")

    def __init__(
        self,
        name: str,
        mapping: mmap.mmap | bytes,
        data: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int64],
        depth: int,
    ) -> None:
        """
        Args:
            name: the file's name, for error messages.
            mapping: the file.
            data: uint8, the same bytes as an array.
            offsets: int64 [n + 1], where each element starts, and where the last one ends.
            depth: 1 unless this array is itself an element.
        """
        self._name = name
        self._mapping = mapping
        self._data = data
        self._offsets = offsets
        self._depth = depth

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> ArrayValue: ...
    @overload
    def __getitem__(self, index: slice) -> list[ArrayValue]: ...
    def __getitem__(self, index: int | slice) -> ArrayValue | list[ArrayValue]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = int(self._offsets[range(len(self))[index]])
        return Cursor(self._name, self._mapping, self._data, start).read_array(self._depth + 1)

    def __repr__(self) -> str:
        return f"NestedArray(<{len(self)} arrays>)"

    def stored_bytes(self) -> bytes:
        """The elements, each with its type and count, exactly as they stand in the file."""
        return self._mapping[int(self._offsets[0]) : int(self._offsets[-1])]
