"""A model's vocabulary as llguidance needs it: the bytes of every token, and a way to cut text into tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from llguidance import LLTokenizer, TokenizerWrapper

from quipu.errors import InvalidRequestError

# Stands before text that is cut into tokens in the middle of an answer: it merges with nothing, and whatever a
# tokenizer does to the beginning of a text happens before it.
_SENTINEL = "\x02"


class TextTokenizer(Protocol):
    """What a vocabulary needs of a tokenizer; see quipu.tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def bos_token_id(self) -> int | None: ...

    @property
    def end_of_generation_ids(self) -> frozenset[int]: ...

    @property
    def control_token_ids(self) -> frozenset[int]: ...

    def token_bytes(self, token_id: int) -> bytes: ...

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]: ...


class GrammarVocabulary:
    """The tokens that grammars choose from. Immutable once made; shared by all constraints of a model.

    Args:
        tokenizer: the model's.
        vocab_size: rows of the model's embedding; the tokens without a text are never allowed.

    Attributes:
        size: bits in a mask.
        end_ids: tokens that end an answer.
        control_ids: tokens that stand for no text.
        library: the same as an object of the library.

    Raises:
        InvalidRequestError: the vocabulary has no token that ends an answer.
    """

    def __init__(self, tokenizer: TextTokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.size = vocab_size
        num_texts = min(tokenizer.vocab_size, vocab_size)
        self.end_ids = frozenset(token for token in tokenizer.end_of_generation_ids if token < vocab_size)
        if not self.end_ids:
            raise InvalidRequestError(
                "a constraint needs a token that ends the answer, and this model's vocabulary declares none",
                field="constraint",
            )
        self.control_ids = frozenset(tokenizer.control_token_ids | self.end_ids)
        self.tokens = [tokenizer.token_bytes(token) for token in range(num_texts)] + [b""] * (vocab_size - num_texts)
        self.library = LLTokenizer(TokenizerWrapper(self._for_library()), eos_token=sorted(self.end_ids))

    def token_bytes(self, token_id: int) -> bytes:
        """What one token adds to the text: nothing for a control token."""
        return b"" if token_id in self.control_ids else self.tokens[token_id]

    def tokenize(self, text: bytes) -> list[int]:
        """Tokens whose bytes are `text`, the ones that the model's tokenizer would take where it can.

        Raises:
            ValueError: no tokens spell it.
        """
        try:
            ids = self._tokenizer.encode(_SENTINEL + text.decode(), add_special=False)
        except (UnicodeDecodeError, InvalidRequestError):
            return self._longest_tokens(text)
        while ids and sum(len(self.token_bytes(token)) for token in ids) > len(text):
            ids.pop(0)
        if b"".join(map(self.token_bytes, ids)) == text:
            return ids
        return self._longest_tokens(text)

    def extensions_of(self, beginning: bytes) -> Sequence[int]:
        """The tokens that begin with `beginning` and go on after it."""
        found = []
        for token in self._sorted_ids[bisect_left(self._sorted_ids, beginning, key=self.token_bytes) :]:
            data = self.token_bytes(token)
            if not data.startswith(beginning):
                break
            if len(data) > len(beginning):
                found.append(token)
        return found

    def _longest_tokens(self, text: bytes) -> list[int]:
        ids = []
        position = 0
        while position < len(text):
            for length in range(min(self._longest, len(text) - position), 0, -1):
                token = self._ids_by_bytes.get(text[position : position + length])
                if token is not None:
                    break
            else:
                raise ValueError(f"the vocabulary cannot spell byte {text[position]:#04x}")
            ids.append(token)
            position += length
        return ids

    @cached_property
    def _sorted_ids(self) -> list[int]:
        """The tokens with a text, in the order of their bytes."""
        return sorted((token for token in range(self.size) if self.token_bytes(token)), key=self.token_bytes)

    @cached_property
    def _ids_by_bytes(self) -> dict[bytes, int]:
        return {self.token_bytes(token): token for token in reversed(self._sorted_ids)}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids_by_bytes))

    def _for_library(self) -> _LibraryTokenizer:
        return _LibraryTokenizer(self)


class _LibraryTokenizer:
    """The shape that the library's wrapper expects."""

    def __init__(self, vocabulary: GrammarVocabulary) -> None:
        self.eos_token_id = min(vocabulary.end_ids)
        self.bos_token_id = None
        self.tokens = vocabulary.tokens
        self.special_token_ids = sorted(vocabulary.control_ids)
        self._vocabulary = vocabulary

    def __call__(self, text: bytes) -> list[int]:
        return self._vocabulary.tokenize(text)
