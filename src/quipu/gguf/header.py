"""What stands before the weights in a GGUF file: version, metadata and the list of tensors, all checked."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from quipu.errors import ModelFileError, UnsupportedModelError
from quipu.gguf.cursor import Cursor
from quipu.gguf.metadata import Metadata, read_metadata, shorten
from quipu.gguf.types import GGMLType, describe_foreign_type
from quipu.gguf.values import ValueType

MAGIC = b"GGUF"
READABLE_VERSIONS = (2, 3)
ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32
MIN_ALIGNMENT, MAX_ALIGNMENT = 8, 1 << 16
MAX_DIMENSIONS = 4
MAX_TENSORS = 1 << 18
MAX_TENSOR_NAME_BYTES = 1024  # ggml itself stops at 63

# How files begin that people take for GGUF files by mistake.
_OTHER_FORMATS: tuple[tuple[bytes, str], ...] = (
    (b"lmgg", "a file in the GGML format of before August 2023; convert the original model again"),
    (b"fmgg", "a file in the GGMF format of 2023; convert the original model again"),
    (b"tjgg", "a file in the GGJT format of 2023; convert the original model again"),
    (b"PK\x03\x04", "a ZIP archive or PyTorch checkpoint; convert it to GGUF first"),
    (b"version https://git-lfs", "only a Git LFS pointer; fetch the file itself, for example with `git lfs pull`"),
    (b"<!DOCTYPE", "a web page; the download went wrong"),
    (b"<html", "a web page; the download went wrong"),
    (b"FUGG", "a GGUF file with reversed bytes; convert it again"),
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        name: as stored, for example `blk.0.attn_q.weight`.
        shape: the sizes, fastest-changing first (GGUF order); a matrix of `rows` rows is `(columns, rows)`.
        type: how the values are stored.
        offset: where the data starts, in bytes from the start of the shard's file.
        num_bytes: size of the data without padding.
        shard: index of the file that holds the data; 0 for files that are not split.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    offset: int
    num_bytes: int
    shard: int

    @property
    def num_elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def num_rows(self) -> int:
        """Number of rows: the product of all sizes but the first."""
        return math.prod(self.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.num_bytes // self.num_rows


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header.

    Attributes:
        version: 2 or 3.
        alignment: what tensor offsets are multiples of, in bytes.
        metadata: the keys and values.
        tensors: in the order of the file, which is also the order of their data.
    """

    version: int
    alignment: int
    metadata: Metadata
    tensors: tuple[TensorInfo, ...]


def read_header(name: str, mapping: mmap.mmap | bytes, data: npt.NDArray[np.uint8], shard: int = 0) -> Header:
    """Read and check everything before the weights, and that the weights lie where it says.

    Args:
        name: the file's name, for error messages.
        mapping: the file.
        data: uint8, the same bytes as an array.
        shard: the shard index to note in each tensor.

    Raises:
        ModelFileError: not a GGUF file, or a broken one.
        UnsupportedModelError: a GGUF version, byte order or tensor type that quipu does not read.
    """
    _check_magic(name, bytes(mapping[:64]))
    cursor = Cursor(name, mapping, data, len(MAGIC))
    version = cursor.read_u32()
    if version not in READABLE_VERSIONS:
        _refuse_version(name, version)
    num_tensors = cursor.read_u64()
    num_keys = cursor.read_u64()
    if num_tensors > MAX_TENSORS:
        cursor.fail(f"claims {num_tensors} tensors, but quipu reads at most {MAX_TENSORS}")
    metadata = read_metadata(cursor, name, mapping, num_keys)
    alignment = _read_alignment(cursor, metadata)
    listed = [_read_listed_tensor(cursor, name, index) for index in range(num_tensors)]
    data_start = -(-cursor.position // alignment) * alignment
    return Header(version, alignment, metadata, _place_tensors(cursor, listed, data_start, len(data), alignment, shard))


def _check_magic(name: str, start: bytes) -> None:
    if start.startswith(MAGIC):
        return
    if not start:
        raise ModelFileError(f"{name}: the file is empty; fetch or convert it again")
    if start[8:10] == b'{"':
        raise ModelFileError(f"{name}: this is a safetensors file; convert it to GGUF first")
    for beginning, what in _OTHER_FORMATS:
        if start.lower().startswith(beginning.lower()):
            raise ModelFileError(f"{name}: this is {what}")
    if MAGIC.startswith(start):
        raise ModelFileError(f"{name}: the file ends after {len(start)} bytes; fetch or convert it again")
    raise ModelFileError(
        f"{name}: this is not a GGUF file, it begins with {start[:4]!r} instead of {MAGIC!r}; name a .gguf file"
    )


def _refuse_version(name: str, version: int) -> NoReturn:
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version > 0xFFFF and swapped <= 0xFFFF:
        raise UnsupportedModelError(
            f"{name}: this GGUF file is big-endian (version {swapped}), made for machines like IBM Z; use a "
            "little-endian file of the same model"
        )
    advice = "convert the model again" if version < min(READABLE_VERSIONS) else "update quipu, or check the download"
    raise UnsupportedModelError(
        f"{name}: this is GGUF version {version}, but quipu reads versions "
        f"{' and '.join(map(str, READABLE_VERSIONS))}; {advice}"
    )


def _read_alignment(cursor: Cursor, metadata: Metadata) -> int:
    if ALIGNMENT_KEY not in metadata:
        return DEFAULT_ALIGNMENT
    cursor.subject = f"metadata key {ALIGNMENT_KEY!r}"
    if metadata.value_type(ALIGNMENT_KEY) is not ValueType.UINT32:
        cursor.fail(f"is stored as {metadata.type_name(ALIGNMENT_KEY)} instead of uint32")
    alignment = metadata[ALIGNMENT_KEY]
    assert isinstance(alignment, int)
    if not MIN_ALIGNMENT <= alignment <= MAX_ALIGNMENT or alignment.bit_count() != 1:
        cursor.fail(f"is {alignment}, but has to be a power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT}")
    return alignment


@dataclass(frozen=True, slots=True)
class _ListedTensor:
    """A tensor as the list gives it; `offset` counts from the start of all tensor data."""

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    offset: int


def _read_listed_tensor(cursor: Cursor, file_name: str, index: int) -> _ListedTensor:
    cursor.subject = f"the name of tensor number {index}"
    name = cursor.read_text(MAX_TENSOR_NAME_BYTES)
    cursor.subject = f"tensor {shorten(name)}"
    num_dimensions = cursor.read_u32()
    if num_dimensions > MAX_DIMENSIONS:
        cursor.fail(f"has {num_dimensions} dimensions, but at most {MAX_DIMENSIONS} are allowed")
    shape = tuple(cursor.read_u64() for _ in range(num_dimensions))
    type_id = cursor.read_u32()
    offset = cursor.read_u64()
    if not name:
        cursor.fail("has no name")
    if 0 in shape:
        cursor.fail(f"has the shape {shape}, but no size may be 0")
    try:
        tensor_type = GGMLType(type_id)
    except ValueError:
        raise UnsupportedModelError(
            f"{file_name}: tensor {shorten(name)} is stored as {describe_foreign_type(type_id)}; use a file of this "
            "model in a common type, such as Q4_K_M"
        ) from None
    columns = shape[0] if shape else 1
    if columns % tensor_type.block_size:
        cursor.fail(f"has rows of {columns} values, but {tensor_type.name} stores blocks of {tensor_type.block_size}")
    return _ListedTensor(name, shape, tensor_type, offset)


def _place_tensors(
    cursor: Cursor, listed: list[_ListedTensor], data_start: int, file_bytes: int, alignment: int, shard: int
) -> tuple[TensorInfo, ...]:
    """Check that the tensors follow one another without gap or overlap and end within the file."""
    placed: dict[str, TensorInfo] = {}
    expected = 0
    previous = ""
    for tensor in listed:
        cursor.subject = f"tensor {shorten(tensor.name)}"
        if tensor.name in placed:
            cursor.fail("stands twice in the list")
        if tensor.offset % alignment:
            cursor.fail(f"starts at offset {tensor.offset}, which is not a multiple of the alignment {alignment}")
        if tensor.offset != expected:
            cursor.fail(
                f"starts at offset {tensor.offset} of the tensor data, but has to start at {expected} "
                f"{_describe_end(placed.get(previous))}"
            )
        columns = tensor.shape[0] if tensor.shape else 1
        num_bytes = tensor.type.row_bytes(columns) * math.prod(tensor.shape[1:])
        if data_start + tensor.offset + num_bytes > file_bytes:
            cursor.fail(
                f"ends at byte {data_start + tensor.offset + num_bytes}, but the file has only {file_bytes} bytes"
            )
        placed[tensor.name] = TensorInfo(
            tensor.name, tensor.shape, tensor.type, data_start + tensor.offset, num_bytes, shard
        )
        expected = -(-(tensor.offset + num_bytes) // alignment) * alignment
        previous = tensor.name
    return tuple(placed.values())


def _describe_end(previous: TensorInfo | None) -> str:
    if previous is None:
        return "because it is the first one"
    text = f"behind the {previous.num_bytes} bytes of {shorten(previous.name)}, stored as {previous.type.name}"
    if previous.type in (GGMLType.Q1_0, GGMLType.Q2_0):
        text += " (forks of llama.cpp store blocks of another size under this type)"
    return text
