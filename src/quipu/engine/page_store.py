"""The disk tier of the prefix cache: full pages as files, which survive the process and may be shared by several.

    FOLDER/<fingerprint of model, KV types and layout>/<key of the page>.page

A page is written once, by a thread of its own, soon after it became full, and read by another thread while its request
waits. Two processes that write the same page write the same bytes, and the rename of the later one wins. What exceeds
the bound is deleted, the longest unused first, whatever model it belongs to. A file that is not exactly what was
written is deleted with a warning.
"""

from __future__ import annotations

import os
import struct
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quipu.engine.sealed_file import FINGERPRINT_BYTES, OVERHEAD_BYTES, SealError, read_sealed, write_sealed

_KIND = b"quipuPG\x01"
_BODY = struct.Struct("<32s32sI")  # key, parent's key, number of tokens
_MOST_PENDING_BYTES = 256 << 20  # copies that wait for the disk
_SHARE_AFTER_CLEANING = 0.9  # of the bound, so that not every page has to clean up
_STALE_S = 3600.0  # a file that was written beside and never renamed
_CLOSE_S = 10.0  # how long closing waits for the disk


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A full page by name: its key, its parent's key, and its int32 token ids as bytes."""

    key: bytes
    parent: bytes
    tokens: bytes


@dataclass(frozen=True, slots=True)
class LoadedPage(StoredPage):
    """A page with what it holds, uint8 [page bytes]."""

    data: NDArray[np.uint8]


class Loading:
    """Pages on their way from the disk."""

    def __init__(self, future: Future[list[LoadedPage]]) -> None:
        self._future = future

    def done(self) -> bool:
        return self._future.done()

    def result(self) -> list[LoadedPage]:
        """The pages, from the first to the last that is good."""
        return self._future.result()


class PageStore:
    """Full pages in a folder.

    All methods but those of the two threads inside belong to the thread that steps.

    Args:
        folder: made if it does not exist.
        fingerprint: of the model, the types of the KV cache and the layout of a page; 32 bytes.
        page_bytes: what a page holds.
        max_bytes: most bytes of all files in the folder.

    Attributes:
        num_loaded, num_stored: pages so far.
        num_dropped: files that were damaged.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, fingerprint: bytes, page_bytes: int, max_bytes: int) -> None:
        assert len(fingerprint) == FINGERPRINT_BYTES
        self._folder = folder
        self._own_folder = folder / fingerprint.hex()
        self._fingerprint = fingerprint
        self._page_bytes = page_bytes
        self._max_bytes = max_bytes
        self._own_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._used_bytes = self._clean()
        self._writer = ThreadPoolExecutor(1, "quipu page writer")
        self._reader = ThreadPoolExecutor(1, "quipu page reader")
        self._pending: set[bytes] = set()
        self._warnings: deque[str] = deque(maxlen=16)
        self._is_broken = False
        self.num_loaded = self.num_stored = self.num_dropped = 0

    def has(self, key: bytes) -> bool:
        """Whether there is a file for the page. It may still turn out to be bad."""
        return self._path(key).exists()

    def wants(self, page: StoredPage) -> bool:
        """Whether `put` would write the page: it is not there, and the disk keeps up."""
        if self._is_broken or page.key in self._pending:
            return False
        has_room = (len(self._pending) + 1) * self._page_bytes <= _MOST_PENDING_BYTES or not self._pending
        return has_room and not self.has(page.key)

    def put(self, page: StoredPage, data: NDArray[np.uint8]) -> None:
        """Write a page, later."""
        assert data.nbytes == self._page_bytes
        self._pending.add(page.key)
        self._writer.submit(self._write, page, data)

    def load(self, pages: Sequence[StoredPage]) -> Loading:
        """Read pages, later, up to the first that is bad."""
        return Loading(self._reader.submit(self._read_all, list(pages)))

    def take_warnings(self) -> tuple[str, ...]:
        """What went wrong since the last call, one sentence each."""
        taken = []
        while self._warnings:
            taken.append(self._warnings.popleft())
        return tuple(taken)

    def flush(self) -> None:
        """Wait until everything is on the disk."""
        self._writer.submit(lambda: None).result()

    def close(self) -> None:
        """Write what is pending, as far as that takes no more than some seconds, and end the threads."""
        deadline_s = time.monotonic() + _CLOSE_S
        while self._pending and time.monotonic() < deadline_s:
            time.sleep(0.005)
        for pool in (self._writer, self._reader):
            pool.shutdown(wait=True, cancel_futures=True)

    # --- in the threads ----------------------------------------------------------------------------------------------

    def _write(self, page: StoredPage, data: NDArray[np.uint8]) -> None:
        body = (_BODY.pack(page.key, page.parent, len(page.tokens) // 4), page.tokens, data.data)
        try:
            if not self._is_broken:
                write_sealed(self._path(page.key), _KIND, self._fingerprint, body, is_durable=False)
                self.num_stored += 1
                self._used_bytes += _BODY.size + len(page.tokens) + data.nbytes + OVERHEAD_BYTES
                if self._used_bytes > self._max_bytes:
                    self._used_bytes = self._clean()
        except OSError as error:
            self._is_broken = True
            self._warnings.append(
                f"{self._own_folder}: pages of the prefix cache can no longer be written ({error.strerror}); make room "
                "or choose another folder"
            )
        finally:
            self._pending.discard(page.key)

    def _read_all(self, pages: list[StoredPage]) -> list[LoadedPage]:
        loaded = []
        for page in pages:
            data = self._read(page)
            if data is None:
                break
            loaded.append(LoadedPage(page.key, page.parent, page.tokens, data))
        self.num_loaded += len(loaded)
        return loaded

    def _read(self, page: StoredPage) -> NDArray[np.uint8] | None:
        path = self._path(page.key)
        head_bytes = _BODY.size + len(page.tokens)
        try:
            body = read_sealed(path, _KIND, self._fingerprint, most_bytes=head_bytes + self._page_bytes)
            head = _BODY.pack(page.key, page.parent, len(page.tokens) // 4) + page.tokens
            if len(body) != head_bytes + self._page_bytes or body[:head_bytes].tobytes() != head:
                raise SealError("it holds another page")
            os.utime(path)  # used just now
        except SealError as error:
            self._drop(path, str(error))
            return None
        except FileNotFoundError:
            return None  # another process has cleaned up
        except OSError as error:
            self._drop(path, error.strerror or str(error))
            return None
        return body[head_bytes:]

    def _drop(self, path: Path, reason: str) -> None:
        self.num_dropped += 1
        self._warnings.append(f"{path}: a page of the prefix cache is not used and was deleted: {reason}")
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return  # it is refused again next time

    def _clean(self) -> int:
        """Delete the longest unused files beyond the bound, and return the bytes that stay."""
        files: list[tuple[float, int, Path]] = []
        for folder in self._folder.iterdir():
            if not _is_ours(folder):
                continue
            for entry in os.scandir(folder):
                try:
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(".tmp") and status.st_mtime < time.time() - _STALE_S:
                        os.unlink(entry.path)
                except OSError:
                    continue  # another process was faster
                if entry.name.endswith(".page"):
                    files.append((status.st_mtime, status.st_size, Path(entry.path)))
        used_bytes = sum(size for _, size, _ in files)
        if used_bytes <= self._max_bytes:
            return used_bytes
        for _, size, path in sorted(files):
            if used_bytes <= self._max_bytes * _SHARE_AFTER_CLEANING:
                break
            try:
                path.unlink(missing_ok=True)
            except OSError:
                continue
            used_bytes -= size
        return used_bytes

    def _path(self, key: bytes) -> Path:
        return self._own_folder / f"{key.hex()}.page"


def _is_ours(folder: Path) -> bool:
    """Whether the folder is named like a fingerprint; nothing else in the user's folder is touched."""
    name = folder.name
    return len(name) == 2 * FINGERPRINT_BYTES and set(name) <= set("0123456789abcdef") and folder.is_dir()
