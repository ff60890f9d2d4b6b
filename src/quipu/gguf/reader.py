"""Opening GGUF files: memory-mapped, checked from end to end before anything is used, shards taken together."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType, TracebackType

import numpy as np
import numpy.typing as npt

from quipu.errors import ModelFileError, ModelNotFoundError
from quipu.gguf.header import Header, TensorInfo, read_header
from quipu.gguf.metadata import Metadata, shorten
from quipu.gguf.split import check_shard, check_tensor_count, find_shards
from quipu.gguf.values import ValueType

_SAMPLE_BYTES = 256  # of each tensor, for the fingerprint: one page of the file each


class GGUFReader:
    """An open GGUF file, or all shards of a split one.

    Opening checks the whole header and that every tensor lies within its file, so that nothing read later can be out of
    bounds. Neither weights nor vocabularies are read until they are asked for. The files must not be shortened while
    they are open.

    Use it as a context manager, or call `close()`. Arrays handed out before stay valid afterwards: the memory map ends
    when the last of them is gone.

    Attributes:
        path: the file that was opened.
        version: 2 or 3.
        alignment: what tensor offsets are multiples of, in bytes.
        metadata: key to value, of the first shard.
        metadata_types: key to the type that its value is stored as.
        tensors: name to description, of all shards, in the order of the files.
        shards: the files, the first one first.
        shard_bytes: the size of each.
        file_bytes: the size of all files together.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open and check `path`; of a split model, name the first shard.

        Raises:
            ModelNotFoundError: there is no such file.
            ModelFileError: not a GGUF file, or a damaged, incomplete or hostile one, or a shard is missing.
            UnsupportedModelError: a GGUF version, byte order or tensor type that quipu does not read.
        """
        self.path = Path(path)
        self._data: list[npt.NDArray[np.uint8]] = []
        header = self._add_file(self.path, 0)
        self.version = header.version
        self.alignment = header.alignment
        self.metadata: Metadata = header.metadata
        self.shards = find_shards(self.path, header.metadata)
        tensors = {tensor.name: tensor for tensor in header.tensors}
        for number, shard_path in enumerate(self.shards[1:], 1):
            shard = self._add_file(shard_path, number)
            check_shard(shard_path, shard.metadata, number, len(self.shards))
            for tensor in shard.tensors:
                if tensor.name in tensors:
                    raise ModelFileError(
                        f"{shard_path}: tensor {shorten(tensor.name)} also stands in "
                        f"{self.shards[tensors[tensor.name].shard].name}; fetch all shards of the model again"
                    )
                tensors[tensor.name] = tensor
        check_tensor_count(self.path, header.metadata, len(tensors))
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)
        self.shard_bytes = tuple(len(data) for data in self._data)
        self.file_bytes = sum(self.shard_bytes)

    @property
    def metadata_types(self) -> Mapping[str, ValueType]:
        return {key: self.metadata.value_type(key) for key in self.metadata}

    def tensor_data(self, name: str) -> npt.NDArray[np.uint8]:
        """The stored bytes of a tensor: uint8 [rows, row bytes], a read-only view of the file without a copy.

        A tensor of one dimension is one row; of three, the rows of all its matrices follow one another.

        Raises:
            ModelFileError: the file has no such tensor.
        """
        info = self.tensors.get(name)
        if info is None:
            raise ModelFileError(f"{self.path}: there is no tensor {shorten(name)}; use a complete file of this model")
        if not self._data:
            raise ValueError("the reader is closed")
        data = self._data[info.shard][info.offset : info.offset + info.num_bytes]
        return data.reshape(info.num_rows, info.row_bytes)

    def fingerprint(self) -> bytes:
        """32 bytes that tell models apart: BLAKE2b over the headers of all shards, which hold the metadata and the
        descriptions of the tensors, and over some bytes of each tensor, for weights that were trained further.
        """
        checksum = blake2b(digest_size=32, person=b"quipu model")
        for number, data in enumerate(self._data):
            begins = [tensor.offset for tensor in self.tensors.values() if tensor.shard == number and tensor.num_bytes]
            checksum.update(len(data).to_bytes(8, "little"))
            checksum.update(data[: min(begins, default=len(data))].data)
        for name in self.tensors:
            rows = self.tensor_data(name)
            if rows.size:
                checksum.update(rows[len(rows) // 2, :_SAMPLE_BYTES].tobytes())
        return checksum.digest()

    def close(self) -> None:
        """Let go of the files. Metadata can still be read; `tensor_data` no longer works."""
        self._data = []

    def __enter__(self) -> GGUFReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"GGUFReader({str(self.path)!r})"

    def _add_file(self, path: Path, number: int) -> Header:
        mapping = _map_file(path)
        data: npt.NDArray[np.uint8] = np.frombuffer(mapping, dtype=np.uint8)
        header = read_header(str(path), mapping, data, number)
        self._data.append(data)
        return header


def _map_file(path: Path) -> mmap.mmap:
    """Map a regular, non-empty file for reading.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelFileError: it is something else, or cannot be read.
    """
    try:
        # Looked at before it is opened: opening a pipe or a device can hang or have effects.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ModelFileError(f"{path}: this is a folder; name a .gguf file in it")
        if not stat.S_ISREG(mode):
            raise ModelFileError(f"{path}: this is not a regular file; name a .gguf file")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise ModelFileError(f"{path}: the file is empty; fetch or convert it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFoundError(f"there is no file {path}; check the name and the folder") from None
    except (OSError, ValueError) as error:  # ValueError: the path holds a zero byte, or the file shrank meanwhile
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelFileError(
            f"{path}: the file cannot be read ({reason}); check its permissions and the disk"
        ) from None
