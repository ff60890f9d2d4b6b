"""The state of one sequence in a file: its tokens, and the keys and values of each."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quipu.engine.sealed_file import SealError, read_sealed, write_sealed
from quipu.errors import StateFileError

_KIND = b"quipuST\x01"
_BODY = struct.Struct("<QQQ")  # tokens, pages, bytes of a page


@dataclass(frozen=True, slots=True)
class SavedState:
    """Tokens and their pages.

    Attributes:
        token_ids: int32 [n].
        pages: one uint8 [page bytes] for each page that n tokens take, as `KVStorage.read_page` gave them.
    """

    token_ids: NDArray[np.int32]
    pages: Sequence[NDArray[np.uint8]]


def write_state(path: Path, state: SavedState, fingerprint: bytes) -> None:
    """Write a state; a file of that name is replaced once the new one is complete.

    Raises:
        StateFileError: the file cannot be written.
    """
    tokens = state.token_ids.astype("<i4", copy=False).tobytes()
    page_bytes = state.pages[0].nbytes if state.pages else 0
    head = _BODY.pack(len(state.token_ids), len(state.pages), page_bytes)
    try:
        write_sealed(path, _KIND, fingerprint, (head, tokens, *(page.data for page in state.pages)))
    except OSError as error:
        raise StateFileError(
            f"{path}: the state cannot be written ({error.strerror}); check the folder and the free space"
        ) from None


def read_state(
    path: Path, fingerprint: bytes, *, page_bytes: int, page_size: int, max_tokens: int, vocab_size: int
) -> SavedState:
    """Read a state.

    Args:
        fingerprint: what it has to belong to.
        page_bytes, page_size: bytes and tokens of a page.
        max_tokens: tokens that the KV cache holds.
        vocab_size: token ids are below it.

    Raises:
        StateFileError: there is no such file, it is damaged, belongs to something else, or is too large.
    """
    most_pages = -(-max_tokens // page_size)
    try:
        body = read_sealed(
            path, _KIND, fingerprint, most_bytes=_BODY.size + 4 * most_pages * page_size + most_pages * page_bytes
        )
        return _parse(body, page_bytes=page_bytes, page_size=page_size, vocab_size=vocab_size)
    except SealError as error:
        raise StateFileError(f"{path}: the state cannot be restored: {error}; compute the prompt again") from None
    except OSError as error:
        raise StateFileError(
            f"{path}: the state cannot be read ({error.strerror}); check the name and the permissions"
        ) from None


def _parse(body: NDArray[np.uint8], *, page_bytes: int, page_size: int, vocab_size: int) -> SavedState:
    if len(body) < _BODY.size:
        raise SealError("the file is cut off")
    num_tokens, num_pages, found_page_bytes = _BODY.unpack(body[: _BODY.size].tobytes())
    expected = _BODY.size + 4 * num_tokens + num_pages * page_bytes
    if num_tokens == 0 or num_pages != -(-num_tokens // page_size) or found_page_bytes != page_bytes:
        raise SealError("its numbers contradict each other")
    if len(body) != expected:
        raise SealError("the file is cut off, or has grown")
    begin = _BODY.size + 4 * num_tokens
    token_ids = body[_BODY.size : begin].view("<i4").astype(np.int32)
    if token_ids.min() < 0 or token_ids.max() >= vocab_size:
        raise SealError("it holds token ids that the model does not have")
    pages = body[begin:].reshape(num_pages, page_bytes)
    return SavedState(token_ids, list(pages))
