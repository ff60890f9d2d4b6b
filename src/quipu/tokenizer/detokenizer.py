"""From token ids back to text: the bytes of each token, and text that is final as soon as it can be."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable
from functools import cache

_SPACE = "\u2581"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


# The spellings of the 256 bytes in vocabularies that are not byte-level.
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(0x100))


@cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others are moved to U+0100 and above, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + rank): byte for rank, byte in enumerate(moved)}


def byte_level_bytes(text: str) -> bytes:
    """The bytes of a token spelled in GPT-2's alphabet; one with foreign characters stands for itself."""
    table = byte_alphabet()
    try:
        return bytes([table[character] for character in text])
    except KeyError:
        return text.encode("utf-8", "surrogateescape")


def escaped_bytes(text: str) -> bytes:
    """The bytes of a token in which U+2581 stands for a space."""
    return text.replace(_SPACE, " ").encode("utf-8", "surrogateescape")


def byte_token_value(text: str) -> int | None:
    """The byte that a token such as "<0x0A>" stands for; None for any other text."""
    match = _BYTE_TOKEN.fullmatch(text)
    return int(match[1], 16) if match else None


class IncrementalDetokenizer:
    """Text from tokens that arrive one by one. No character is ever split or taken back.

    Bytes of an unfinished character wait for the tokens that finish it; bytes that are no UTF-8 become U+FFFD, as
    Python's incremental decoder does with errors="replace".

    Args:
        piece: gives the bytes of a token.
        strip_first_space: drop one space at the very beginning: the one that SentencePiece puts before text.
    """

    def __init__(self, piece: Callable[[int], bytes], *, strip_first_space: bool = False) -> None:
        self._piece = piece
        self._strip_first_space = strip_first_space
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def append(self, token_ids: Iterable[int]) -> str:
        """Adds tokens and returns the text that became final by them, possibly none."""
        data = b"".join(map(self._piece, token_ids))
        if self._strip_first_space and data:
            self._strip_first_space = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def flush(self) -> str:
        """Ends the text: what is left of an unfinished character, as U+FFFD."""
        return self._decoder.decode(b"", final=True)


_SPACE_BEFORE_MARK = re.compile(r" (?=[?!.,])")
_LONE_APOSTROPHE = re.compile(r" ' ")
_SPACE_BEFORE_SUFFIX = re.compile(r" (?='(?:[sm]|re|ve))")


def clean_up_spaces(text: str) -> str:
    """The text without the spaces that word-splitting vocabularies leave before punctuation and English suffixes."""
    text = _SPACE_BEFORE_MARK.sub("", text)
    text = _LONE_APOSTROPHE.sub("'", text)
    return _SPACE_BEFORE_SUFFIX.sub("", text)
