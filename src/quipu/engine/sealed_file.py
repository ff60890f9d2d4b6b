"""Files with keys and values of a model: written whole or not at all, and read only if every byte is as it was written.

    8 bytes   kind of the file and version of its format
    32 bytes  fingerprint of the model, the types of its KV cache and the layout of a page
    8 bytes   length of the body, little-endian
    body
    32 bytes  BLAKE2b (RFC 7693) of all that comes before

The checksum finds what failing disks, full disks and careless tools do. It is no signature: who may write into the
folder may also forge it, so folders and files are made for their owner alone.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FINGERPRINT_BYTES = 32
CHECKSUM_BYTES = 32
_HEAD = struct.Struct(f"<8s{FINGERPRINT_BYTES}sQ")
OVERHEAD_BYTES = _HEAD.size + CHECKSUM_BYTES

Part = bytes | memoryview


class SealError(Exception):
    """The file is damaged, of another kind, or of another model. Its text is the reason, to be put behind the path."""


def write_sealed(path: Path, kind: bytes, fingerprint: bytes, body: Sequence[Part], *, is_durable: bool = True) -> None:
    """Write a file beside `path`, and rename it once it is complete.

    Args:
        is_durable: wait until it is on the disk, so that a power cut leaves one of the two files. Otherwise it may
            leave a damaged one, which `read_sealed` finds.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    head = _HEAD.pack(kind, fingerprint, sum(len(part) for part in body))
    checksum = blake2b(head, digest_size=CHECKSUM_BYTES)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(head)
            for part in body:
                checksum.update(part)
                file.write(part)
            file.write(checksum.digest())
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read_sealed(path: Path, kind: bytes, fingerprint: bytes, *, most_bytes: int) -> NDArray[np.uint8]:
    """The body of a file.

    Args:
        most_bytes: what a body may have; a larger file is not read.

    Raises:
        OSError: the file is not there, or cannot be read.
        SealError: it is not what was written, or belongs to something else.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SealError("this is not a regular file")
        if status.st_size < OVERHEAD_BYTES:
            raise SealError("the file is cut off")
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise SealError("the file is cut off")
        found_kind, found_fingerprint, length = _HEAD.unpack(head)
        if found_kind != kind:
            raise SealError("the file is of another kind or version")
        if found_fingerprint != fingerprint:
            raise SealError("it was made with another model, other types of the KV cache, or another backend")
        if length != status.st_size - OVERHEAD_BYTES:
            raise SealError("the file is cut off, or has grown")
        if length > most_bytes:
            raise SealError(f"it has {length} bytes, but at most {most_bytes} fit")
        content = np.fromfile(file, dtype=np.uint8, count=length + CHECKSUM_BYTES)
    if len(content) != length + CHECKSUM_BYTES:
        raise SealError("the file is cut off")
    body = content[:length]
    checksum = blake2b(head, digest_size=CHECKSUM_BYTES)
    checksum.update(body.data)
    if checksum.digest() != content[length:].tobytes():
        raise SealError("its checksum is wrong")
    return body
