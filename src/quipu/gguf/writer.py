"""Writing GGUF files: streamed into a file beside the target, which it replaces only when it is complete."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from quipu.errors import QuipuError
from quipu.gguf.encode import WritableValue, encode_string, encode_value
from quipu.gguf.header import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_ALIGNMENT,
    MAX_DIMENSIONS,
    MAX_TENSOR_NAME_BYTES,
    MIN_ALIGNMENT,
    READABLE_VERSIONS,
)
from quipu.gguf.metadata import MAX_KEY_BYTES, shorten
from quipu.gguf.types import GGMLType

# The dtypes that are stored as they are.
_TYPE_OF_DTYPE: Mapping[np.dtype[Any], GGMLType] = MappingProxyType(
    {
        np.dtype("<f4"): GGMLType.F32,
        np.dtype("<f2"): GGMLType.F16,
        np.dtype("<f8"): GGMLType.F64,
        np.dtype("i1"): GGMLType.I8,
        np.dtype("<i2"): GGMLType.I16,
        np.dtype("<i4"): GGMLType.I32,
        np.dtype("<i8"): GGMLType.I64,
    }
)
_COPY_BYTES = 1 << 24

TensorData: TypeAlias = "npt.NDArray[Any] | bytes | Callable[[], npt.NDArray[Any] | bytes]"
WritableTensor: TypeAlias = "tuple[str, npt.NDArray[Any]] | tuple[str, tuple[int, ...], GGMLType, TensorData]"


class TensorSpec(NamedTuple):
    """What the header says about a tensor.

    Attributes:
        name: unique in the file.
        shape: the sizes, fastest-changing first (GGUF order).
        type: how the values are stored.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLType

    @property
    def num_bytes(self) -> int:
        """Size of the data without padding."""
        return self.type.row_bytes(self.shape[0] if self.shape else 1) * math.prod(self.shape[1:])


class GGUFWriter:
    """Writes one GGUF file whose tensors arrive one after the other.

        with GGUFWriter("model.gguf", metadata, [TensorSpec("a", (256, 4), GGMLType.Q4_K)]) as writer:
            writer.write("a", data)

    The target appears, or is replaced, when the block ends well. If it ends with an exception, nothing is left behind.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, WritableValue],
        tensors: Iterable[TensorSpec],
        *,
        version: int = max(READABLE_VERSIONS),
    ) -> None:
        """Check and encode the header; nothing is written before the `with` block begins.

        Args:
            path: the file to make.
            metadata: values as `encode_value` takes them; `general.alignment` is obeyed.
            tensors: all tensors, in the order in which they will be written.
            version: 2 or 3; the two differ only in this number.

        Raises:
            TypeError, ValueError: a value, a name or a shape that the format cannot hold.
        """
        if version not in READABLE_VERSIONS:
            raise ValueError(f"version {version} is not one of {READABLE_VERSIONS}")
        self.path = Path(path)
        self._specs = tuple(TensorSpec(*tensor) for tensor in tensors)
        self._alignment = _find_alignment(metadata)
        self._header = _encode_header(version, metadata, self._specs, self._alignment)
        self._file: BinaryIO | None = None
        self._part_path = self.path.with_name(f".{self.path.name[:200]}.{os.urandom(4).hex()}.part")
        self._index = 0
        self._remaining_bytes = self._specs[0].num_bytes if self._specs else 0

    def __enter__(self) -> GGUFWriter:
        try:
            self._file = open(self._part_path, "xb")
            self._file.write(self._header)
            if self._specs:
                self._pad(len(self._header))
        except OSError as error:
            self._discard()
            raise self._explain(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._discard()
            return
        try:
            self._finish()
        except OSError as failure:
            raise self._explain(failure) from None
        finally:
            self._discard()

    def write(self, name: str, data: npt.NDArray[Any] | bytes) -> None:
        """Append the data of a tensor, or the next piece of it.

        Args:
            name: the tensor that is next in the header, or the one begun.
            data: uint8 bytes as stored, or an array whose dtype is stored as it is (float32 for F32, and so on).

        Raises:
            ValueError: another tensor is next, or there is more data than it holds.
            QuipuError: the file cannot be written, for example because the disk is full.
        """
        if self._file is None:
            raise ValueError("the writer is not open; use it in a `with` block")
        if self._index == len(self._specs) or name != self._specs[self._index].name:
            expected = self._specs[self._index].name if self._index < len(self._specs) else "the end"
            raise ValueError(f"tensor {name!r} was given, but {expected!r} is next")
        spec = self._specs[self._index]
        stored = _to_bytes(spec, data)
        if len(stored) > self._remaining_bytes:
            raise ValueError(
                f"{len(stored)} bytes were given for {name!r}, but only {self._remaining_bytes} are missing"
            )
        try:
            for start in range(0, len(stored), _COPY_BYTES):
                self._file.write(stored[start : start + _COPY_BYTES])
            self._remaining_bytes -= len(stored)
            if self._remaining_bytes == 0:
                self._pad(spec.num_bytes)
        except OSError as error:
            raise self._explain(error) from None
        if self._remaining_bytes == 0:
            self._index += 1
            self._remaining_bytes = self._specs[self._index].num_bytes if self._index < len(self._specs) else 0

    def _pad(self, num_bytes: int) -> None:
        assert self._file is not None
        self._file.write(bytes(-num_bytes % self._alignment))

    def _finish(self) -> None:
        assert self._file is not None
        if self._index < len(self._specs):
            raise ValueError(
                f"{self._remaining_bytes} bytes of tensor {self._specs[self._index].name!r} were not written"
            )
        self._file.flush()
        os.fsync(self._file.fileno())  # so that a crash cannot leave the new name on missing data
        self._file.close()
        os.replace(self._part_path, self.path)

    def _discard(self) -> None:
        """Close and remove the unfinished file; after `_finish` there is nothing left to do."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError:
            pass  # a full disk reports the same failure again when the buffer is flushed
        finally:
            self._part_path.unlink(missing_ok=True)

    def _explain(self, error: OSError) -> QuipuError:
        reason = error.strerror or str(error)
        return QuipuError(f"{self.path} cannot be written ({reason}); check the folder, its permissions and free space")


def write_gguf(
    path: str | os.PathLike[str],
    metadata: Mapping[str, WritableValue],
    tensors: Iterable[WritableTensor] = (),
    *,
    version: int = max(READABLE_VERSIONS),
) -> None:
    """Write a GGUF file, or replace it; a failure leaves what was there before.

    Args:
        path: the file to make.
        metadata: values as `encode_value` takes them, in the order in which they are stored.
        tensors: either (name, array) with a float or signed integer array in numpy order, slowest size first, or (name,
            shape, type, data) with the shape in GGUF order, fastest size first. `data` may be a function that is called
            when its turn comes, so that only one tensor is in memory at a time.
        version: 2 or 3; the two differ only in this number.

    Raises:
        TypeError, ValueError: a value, a name, a shape or data that the format cannot hold.
        QuipuError: the file cannot be written, for example because the disk is full.
    """
    sources = [_split_source(tensor) for tensor in tensors]
    with GGUFWriter(path, metadata, [spec for spec, _ in sources], version=version) as writer:
        for spec, data in sources:
            writer.write(spec.name, data() if callable(data) else data)


def _split_source(tensor: WritableTensor) -> tuple[TensorSpec, TensorData]:
    if len(tensor) == 4:
        name, shape, tensor_type, data = tensor
        return TensorSpec(name, tuple(map(int, shape)), GGMLType(tensor_type)), data
    name, array = tensor
    found = _TYPE_OF_DTYPE.get(array.dtype.newbyteorder("<"))
    if found is None:
        raise TypeError(f"tensor {name!r} is of dtype {array.dtype}; give its shape, GGMLType and bytes")
    return TensorSpec(name, array.shape[::-1], found), array


def _to_bytes(spec: TensorSpec, data: npt.NDArray[Any] | bytes) -> memoryview:
    if isinstance(data, np.ndarray):
        dtype = data.dtype.newbyteorder("<")
        if dtype != np.uint8 and _TYPE_OF_DTYPE.get(dtype) is not spec.type:
            raise TypeError(
                f"tensor {spec.name!r} is {spec.type.name}, which dtype {data.dtype} is not; give its bytes"
            )
        # A view keeps mapped weights out of memory; copies are made only of strided or big-endian arrays.
        return np.ascontiguousarray(data.astype(dtype, copy=False)).reshape(-1).view(np.uint8).data
    return memoryview(data)


def _find_alignment(metadata: Mapping[str, WritableValue]) -> int:
    value = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT)
    if isinstance(value, bool) or not isinstance(value, int | np.uint32):
        raise TypeError(f"{ALIGNMENT_KEY} has to be an int or a numpy uint32, not {value!r}")
    alignment = int(value)
    if not MIN_ALIGNMENT <= alignment <= MAX_ALIGNMENT or alignment.bit_count() != 1:
        raise ValueError(f"{ALIGNMENT_KEY} is {value}, not a power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT}")
    return alignment


def _encode_header(
    version: int, metadata: Mapping[str, WritableValue], specs: tuple[TensorSpec, ...], alignment: int
) -> bytes:
    parts = [MAGIC, struct.pack("<IQQ", version, len(specs), len(metadata))]
    for key, value in metadata.items():
        encoded_key = key.encode("utf-8")
        if not 0 < len(encoded_key) <= MAX_KEY_BYTES:
            raise ValueError(f"a metadata key has {len(encoded_key)} bytes, but 1 to {MAX_KEY_BYTES} are allowed")
        try:
            parts += [encode_string(encoded_key), encode_value(value)]
        except (TypeError, ValueError) as error:
            raise type(error)(f"metadata key {shorten(key)}: {error}") from error
    offset = 0
    names: set[str] = set()
    for spec in specs:
        _check_spec(spec)
        if spec.name in names:
            raise ValueError(f"tensor {shorten(spec.name)} is given twice")
        names.add(spec.name)
        parts += [encode_string(spec.name), struct.pack(f"<I{len(spec.shape)}Q", len(spec.shape), *spec.shape)]
        parts.append(struct.pack("<IQ", spec.type, offset))
        offset += spec.num_bytes + -spec.num_bytes % alignment
    return b"".join(parts)


def _check_spec(spec: TensorSpec) -> None:
    name_bytes = len(spec.name.encode("utf-8"))
    if not 0 < name_bytes <= MAX_TENSOR_NAME_BYTES:
        raise ValueError(f"a tensor name has {name_bytes} bytes, but 1 to {MAX_TENSOR_NAME_BYTES} are allowed")
    if len(spec.shape) > MAX_DIMENSIONS or any(size < 1 for size in spec.shape):
        raise ValueError(
            f"tensor {shorten(spec.name)} has the shape {spec.shape}, but at most {MAX_DIMENSIONS} sizes from 1 on are "
            "allowed"
        )
    columns = spec.shape[0] if spec.shape else 1
    if columns % spec.type.block_size:
        raise ValueError(
            f"tensor {shorten(spec.name)} has rows of {columns} values, but {spec.type.name} stores blocks of "
            f"{spec.type.block_size}"
        )
