"""What sampling needs to know of the texts of tokens: where sequence breakers begin, and which tokens begin alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

_MAX_TAIL_TOKENS = 20  # the rest of a breaker counts up to here, as in llama.cpp
_MAX_CACHED = 64


class Vocabulary(Protocol):
    """What is needed of a tokenizer; see quipu.tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_of_generation_ids(self) -> frozenset[int]: ...

    def token_bytes(self, token_id: int) -> bytes: ...

    def encode(self, text: str, *, add_special: bool = True) -> list[int]: ...


class TokenTexts:
    """The texts of a vocabulary. Nothing is read before it is needed; then about 20 MB are kept for 150,000 tokens.

    Attributes:
        end_ids: end-of-generation tokens, in ascending order.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._breakers: dict[str, tuple[tuple[int, ...], ...]] = {}
        self.end_ids: tuple[int, ...] = tuple(sorted(vocabulary.end_of_generation_ids))

    @cached_property
    def pieces(self) -> list[bytes]:
        """What each token adds to a text."""
        return [self._vocabulary.token_bytes(token_id) for token_id in range(self._vocabulary.vocab_size)]

    def piece(self, token_id: int) -> bytes:
        """What one token adds to a text; nothing for a row of the embedding that has no text."""
        return self.pieces[token_id] if token_id < len(self.pieces) else b""

    def breakers(self, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """The token sequences in which one of `texts` can appear: a first token, and tokens after it.

        The first token holds the whole text, or ends with its beginning; then the others are the rest of the text,
        as the tokenizer splits it.
        """
        found: dict[tuple[int, ...], None] = {}
        for text in texts:
            sequences = self._breakers.get(text)
            if sequences is None:
                sequences = self._find(text)
                if len(self._breakers) < _MAX_CACHED:
                    self._breakers[text] = sequences
            found |= dict.fromkeys(sequences)
        return tuple(found)

    @cached_property
    def _ids_by_last_byte(self) -> list[list[int]]:
        ids: list[list[int]] = [[] for _ in range(256)]
        for token_id, piece in enumerate(self.pieces):
            if piece:
                ids[piece[-1]].append(token_id)
        return ids

    def _find(self, text: str) -> tuple[tuple[int, ...], ...]:
        wanted = text.encode("utf-8", "surrogateescape")
        whole = [token_id for token_id, piece in enumerate(self.pieces) if wanted in piece]
        found: dict[tuple[int, ...], None] = {(token_id,): None for token_id in whole}
        holding = set(whole)
        for length in range(1, len(wanted)):
            try:
                rest = wanted[length:].decode("utf-8")
            except UnicodeDecodeError:
                continue  # the middle of a character is not a text that could be split into tokens
            begin = wanted[:length]
            ids = [
                token_id
                for token_id in self._ids_by_last_byte[begin[-1]]
                if token_id not in holding and self.pieces[token_id].endswith(begin)
            ]
            if ids:
                tail = tuple(self._vocabulary.encode(rest, add_special=False)[:_MAX_TAIL_TOKENS])
                found |= dict.fromkeys((token_id, *tail) for token_id in ids)
        return tuple(found)
