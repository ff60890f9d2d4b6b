"""Metadata value types, and the lazy sequence that stands for an array of strings."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import Any, overload

import numpy as np
import numpy.typing as npt


class ValueType(IntEnum):
    """Ids of the metadata value types (GGUF specification)."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


# The types of fixed size and the dtype of each; the rest are STRING and ARRAY.
NUMBER_DTYPES: Mapping[ValueType, np.dtype[Any]] = MappingProxyType(
    {
        ValueType.UINT8: np.dtype("u1"),
        ValueType.INT8: np.dtype("i1"),
        ValueType.UINT16: np.dtype("<u2"),
        ValueType.INT16: np.dtype("<i2"),
        ValueType.UINT32: np.dtype("<u4"),
        ValueType.INT32: np.dtype("<i4"),
        ValueType.FLOAT32: np.dtype("<f4"),
        ValueType.BOOL: np.dtype("?"),
        ValueType.UINT64: np.dtype("<u8"),
        ValueType.INT64: np.dtype("<i8"),
        ValueType.FLOAT64: np.dtype("<f8"),
    }
)
TYPE_OF_DTYPE: Mapping[np.dtype[Any], ValueType] = MappingProxyType(
    {dtype: value_type for value_type, dtype in NUMBER_DTYPES.items()}
)

_LENGTH = struct.Struct("<Q")
_CHUNK_BYTES = 1 << 16  # of a string array, scanned at a time: small enough for the nearest caches
_MIN_WALK, _MAX_WALK = 16, 4096


class StringArray(Sequence[str]):
    """An array of strings in a mapped file. Nothing is decoded until it is asked for, and nothing is kept.

    Well-made files hold UTF-8, but vocabularies with broken tokens exist. A byte that is not UTF-8 becomes a lone
    surrogate (Python's `surrogateescape`): no token is lost, no two tokens become equal, and
    `text.encode("utf-8", "surrogateescape")` gives the stored bytes back.
    """

    __slots__ = ("_mapping", "_offsets")

    def __init__(self, mapping: mmap.mmap | bytes, offsets: npt.NDArray[np.int64]) -> None:
        """
        Args:
            mapping: the file.
            offsets: int64 [n + 1], where each string's 8-byte length starts, and where the last string ends.
        """
        self._mapping = mapping
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.get_bytes(index).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_list())

    def __repr__(self) -> str:
        return f"StringArray(<{len(self)} strings>)"

    def get_bytes(self, index: int) -> bytes:
        """The bytes of one string as stored."""
        index = range(len(self))[index]
        return self._mapping[int(self._offsets[index]) + _LENGTH.size : int(self._offsets[index + 1])]

    def to_bytes_list(self) -> list[bytes]:
        """All strings as stored."""
        data, starts, ends = self._slices()
        return [data[start:end] for start, end in zip(starts, ends, strict=True)]

    def to_list(self) -> list[str]:
        """All strings, decoded as described above."""
        joined = self._joined()
        if joined is not None:
            return joined.decode("utf-8", "surrogateescape").split("\0")[1:]
        data, starts, ends = self._slices()
        return [str(data[start:end], "utf-8", "surrogateescape") for start, end in zip(starts, ends, strict=True)]

    def stored_bytes(self) -> bytes:
        """Lengths and strings exactly as they stand in the file."""
        return self._mapping[int(self._offsets[0]) : int(self._offsets[-1])]

    def _joined(self) -> bytes | None:
        """All strings in one piece, each behind a zero byte in the place of its length; None where one holds a zero.

        Decoding and splitting this once is three times as fast as slicing every string.
        """
        data = np.frombuffer(self.stored_bytes(), np.uint8).copy()
        starts = self._offsets[:-1] - self._offsets[0]
        data[starts] = 0
        kept = np.ones(len(data), np.bool_)
        for i in range(1, _LENGTH.size):
            kept[starts + i] = False
        joined = data[kept].tobytes()
        return joined if joined.count(0) == len(self) else None

    def _slices(self) -> tuple[bytes, list[int], list[int]]:
        relative = self._offsets - self._offsets[0]
        return self.stored_bytes(), (relative[:-1] + _LENGTH.size).tolist(), relative[1:].tolist()


def index_strings(
    mapping: mmap.mmap | bytes, data: npt.NDArray[np.uint8], start: int, count: int, limit: int
) -> npt.NDArray[np.int64] | int:
    """Find the strings of an array, each stored as an 8-byte length and that many bytes.

    A length below 256 is one byte followed by seven zeros, a pattern that numpy finds in a whole chunk at once. The
    places found are used only as far as each one's length leads exactly to the next, so a pattern inside a string does
    no harm; where the chain breaks (a longer, an empty or a crafted string) the lengths are walked one by one.

    Args:
        mapping: the file.
        data: uint8, the same bytes as an array.
        start: offset of the first length.
        count: number of strings; `start + 8 * count` must not exceed `limit`.
        limit: offset that the strings must not cross.

    Returns:
        int64 [count + 1], offsets of the lengths and of the end; or, if a string crosses `limit`, its index.
    """
    offsets = np.empty(count + 1, dtype=np.int64)
    filled, position, walk = 0, start, _MIN_WALK
    while filled < count:
        found, following = _scan_chunk(data, position, limit)
        found = found[: count - filled]
        if len(found):
            offsets[filled : filled + len(found)] = found
            filled += len(found)
            position = int(following[len(found) - 1])
            if position > limit:
                return filled - 1
        # Where scanning gains little, scan less and less often, so that hostile input costs no more than the walk.
        walk = _MIN_WALK if len(found) >= walk else min(2 * walk, _MAX_WALK)
        for index in range(filled, min(filled + walk, count)):
            if position + _LENGTH.size > limit:
                return index
            offsets[index] = position
            position += _LENGTH.size + _LENGTH.unpack_from(mapping, position)[0]
            if position > limit:
                return index
        filled = min(filled + walk, count)
    offsets[count] = position
    return offsets


def _scan_chunk(
    data: npt.NDArray[np.uint8], position: int, limit: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Offsets of consecutive lengths from `position` on, as far as this chunk shows, and where each string ends."""
    chunk = data[position : min(position + _CHUNK_BYTES, limit)]
    zero = chunk == 0
    pairs = zero[:-1] & zero[1:]
    fours = pairs[:-2] & pairs[2:]
    sevens = fours[:-3] & fours[3:]  # [i]: chunk[i] to chunk[i + 6] are all zero
    starts = np.flatnonzero(sevens[1:])
    if not len(starts) or starts[0] != 0:
        return starts[:0], starts[:0]
    ends = starts + chunk[starts]
    ends += _LENGTH.size
    is_next = starts[1:] == ends[:-1]
    num_valid = len(starts) if is_next.all() else int(is_next.argmin()) + 1
    return starts[:num_valid] + position, ends[:num_valid] + position
