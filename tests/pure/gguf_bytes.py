"""GGUF files put together byte by byte, so that tests can make what a writer would refuse to write."""

from __future__ import annotations

import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
HUGE = 2**64 - 1


def string(text: str | bytes, length: int | None = None) -> bytes:
    """A length and the bytes of `text`; `length` claims another length."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data) if length is None else length) + data


def key(name: str | bytes, value_type: int, value: bytes) -> bytes:
    """A metadata key with an encoded value."""
    return string(name) + struct.pack("<I", value_type) + value


def array(element_type: int, elements: bytes, count: int) -> bytes:
    """An array value that claims `count` elements."""
    return struct.pack("<IQ", element_type, count) + elements


def tensor(name: str | bytes, shape: tuple[int, ...] = (32,), type_id: int = 0, offset: int = 0) -> bytes:
    """An entry of the tensor list."""
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type_id, offset)


def file_bytes(
    keys: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    num_tensors: int | None = None,
    num_keys: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file; `num_tensors` and `num_keys` claim other counts than those of the entries."""
    counts = (len(tensors) if num_tensors is None else num_tensors, len(keys) if num_keys is None else num_keys)
    header = magic + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return header + (bytes(-len(header) % alignment) + data if data else b"")
