"""Reading a cold file into the page cache ahead of its use, with something to look at meanwhile.

Weights are mapped, not read, so a file that is not in memory would come in page by page during the first answer, in the
order of use, with nothing on the screen. Reading it from front to back is faster and can be shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from quipu.bench.machine import describe_machine

_NUM_PROBES = 64
_PAGE_BYTES = 4096
_CHUNK_BYTES = 8 << 20
_WORTH_SHOWING_BYTES = 256 << 20


def share_in_memory(path: Path) -> float:
    """How much of a file is in the page cache, judged by pages spread over it; 1 where the system cannot tell."""
    if not hasattr(os, "preadv") or not hasattr(os, "RWF_NOWAIT"):
        return 1.0
    size = path.stat().st_size
    step = max(size // _NUM_PROBES, _PAGE_BYTES)
    offsets = range(0, size, step)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        present = sum(_is_present(descriptor, offset) for offset in offsets)
    except OSError:  # a file system that does not know the flag
        return 1.0
    finally:
        os.close(descriptor)
    return present / max(len(offsets), 1)


def _is_present(descriptor: int, offset: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:  # it would have to wait for the disk
        return False


def page_in(paths: Sequence[Path]) -> None:
    """Read what is missing of large files, with the progress shown where standard error is a terminal.

    Does nothing where most of it is there already, or where it would not fit into the memory that is free.
    """
    total_bytes = sum(path.stat().st_size for path in paths)
    if total_bytes < _WORTH_SHOWING_BYTES or all(share_in_memory(path) > 0.9 for path in paths):
        return
    available_bytes = describe_machine().memory_available_bytes
    if available_bytes is None or total_bytes > available_bytes:
        return
    is_shown = sys.stderr.isatty()
    num_read = 0

    def advance(num_bytes: int) -> None:
        nonlocal num_read
        num_read += num_bytes
        if is_shown:  # plain text: this module is on the way to every answer, and rich takes a while to import
            share = f"{num_read / total_bytes:4.0%} of {total_bytes / 1e9:.1f} GB"
            print(f"\rreading the model: {share}", end="", file=sys.stderr, flush=True)

    try:
        for path in paths:
            _read_through(path, advance)
    finally:
        if is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _read_through(path: Path, advance: Callable[[int], None]) -> None:
    buffer = bytearray(_CHUNK_BYTES)
    with path.open("rb", buffering=0) as file:
        while num_bytes := file.readinto(buffer):
            advance(num_bytes)
