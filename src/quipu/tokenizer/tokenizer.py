"""Tokenizer: text to token ids and back, from the metadata of a GGUF file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from quipu.errors import InvalidRequestError, TokenizerError
from quipu.gguf import GGUFReader
from quipu.tokenizer.bpe import build_byte_pair
from quipu.tokenizer.detokenizer import (
    IncrementalDetokenizer,
    byte_level_bytes,
    byte_token_value,
    clean_up_spaces,
    escaped_bytes,
)
from quipu.tokenizer.pipeline import Pipeline
from quipu.tokenizer.sentencepiece import build_score_merges, build_unigram
from quipu.tokenizer.special import MatchedToken, SpecialTokens, TokenType
from quipu.tokenizer.vocabulary import Vocabulary
from quipu.tokenizer.wordpiece import build_wordpiece

# The call that releases the GIL also starts the thread pool of `tokenizers`: not worth it for a short text.
_LONG_TEXT_CHARACTERS = 16_384

# Oniguruma gives up after ten million steps back, which a longer run of one kind of character can take.
_MAX_RUN_CHARACTERS = 1_000_000
_RUN = re.compile(r"\s+|\w+|[^\w\s]+")


class _Encoder(NamedTuple):
    """One `tokenizers.Tokenizer`, and the vocabulary's ids of the tokens that it numbers on its own."""

    tokenizer: tokenizers.Tokenizer
    extra_ids: list[int]


class _Encoders(NamedTuple):
    """Two views of one merging model: they differ in the tokens that are matched whole."""

    plain: _Encoder
    special: _Encoder
    warnings: tuple[str, ...]


class Tokenizer:
    """The tokenizer of a model.

    Creating one is cheap: the tables are built by the first `encode`, or by `prepare`, which may run in another thread.
    Ids that end a generation and decoding need less and do not build them.

    Args:
        metadata: the metadata of a GGUF file. Its arrays are read lazily, so the file has to stay open.

    Raises:
        TokenizerError: the file has no vocabulary, one of a kind that is not supported, an unknown pre-tokenizer, or
            one whose parts do not fit together. Contradictions inside the lists are found on first use.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._vocabulary = Vocabulary(metadata)
        self._reader: GGUFReader | None = None
        self._lock = Lock()
        self._encoders: _Encoders | None = None
        self._pieces: dict[int, bytes] = {}

    @classmethod
    def from_gguf(cls, source: str | os.PathLike[str] | GGUFReader) -> Tokenizer:
        """The tokenizer of a GGUF file, which needs no weights in it.

        Args:
            source: a path, or a reader that stays open as long as the tokenizer is used.

        Raises:
            ModelNotFoundError, ModelFileError: the file cannot be read.
            TokenizerError: as for the class.
        """
        if isinstance(source, GGUFReader):
            return cls(source.metadata)
        reader = GGUFReader(source)
        tokenizer = cls(reader.metadata)
        tokenizer._reader = reader  # keeps the mapping of the file alive
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary. The model's embedding may have more rows."""
        return self._vocabulary.size

    @property
    def model(self) -> str:
        """The kind of vocabulary: the value of `tokenizer.ggml.model`."""
        return self._vocabulary.model

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about this vocabulary, one sentence each; building it may add some."""
        built = self._encoders
        return self._vocabulary.warnings + (built.warnings if built else ())

    @property
    def bos_token_id(self) -> int | None:
        """The id that begins a text, or None."""
        return self._vocabulary.declared.bos

    @property
    def eos_token_id(self) -> int | None:
        """The id that ends a text, or None."""
        return self._vocabulary.declared.eos

    @property
    def bos_token(self) -> str:
        """The text of the token that begins a text; "" if there is none."""
        return self._role_text(self.bos_token_id)

    @property
    def eos_token(self) -> str:
        """The text of the token that ends a text; "" if there is none."""
        return self._role_text(self.eos_token_id)

    def _role_text(self, token_id: int | None) -> str:
        return "" if token_id is None else self._vocabulary.texts[token_id]

    @property
    def add_bos(self) -> bool:
        """Whether `encode` with `add_special` begins with the BOS token."""
        return self._vocabulary.add_bos

    @property
    def add_eos(self) -> bool:
        """Whether `encode` with `add_special` ends with the EOS token (the separator for BERT)."""
        return self._vocabulary.add_eos

    @property
    def special_tokens(self) -> SpecialTokens:
        """Ids by role, among them those of fill-in-the-middle prompts."""
        return self._vocabulary.classification.special

    @property
    def end_of_generation_ids(self) -> frozenset[int]:
        """The ids after which a reply is complete."""
        return self._vocabulary.classification.end_of_generation_ids

    @property
    def control_token_ids(self) -> frozenset[int]:
        """The ids that stand for no text of their own: control tokens and the unknown token."""
        types = self._vocabulary.classification.types
        return frozenset(np.flatnonzero((types == TokenType.CONTROL) | (types == TokenType.UNKNOWN)).tolist())

    def prepare(self) -> None:
        """Builds the tables for `encode` now. Safe to call from any thread, any number of times.

        Raises:
            TokenizerError: the lists of the vocabulary contradict each other.
        """
        self._build()

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The token ids of a text.

        Args:
            text: any text; halves of surrogate pairs become U+FFFD.
            add_special: add the BOS and EOS tokens that the model expects around a text.
            parse_special: recognise the texts of control tokens. Never do this with text that a stranger wrote.

        Raises:
            TokenizerError: as for `prepare`.
            InvalidRequestError: the text has more than a million characters without a break between words.
        """
        built = self._build()
        ids = _encode(built.special if parse_special else built.plain, text, self.vocab_size)
        return self._with_special(ids) if add_special else ids

    def _with_special(self, ids: list[int]) -> list[int]:
        vocabulary = self._vocabulary
        declared = vocabulary.declared
        end = declared.eos if vocabulary.add_eos else None
        if vocabulary.model == "bert":
            end = declared.separator
        if vocabulary.add_bos and declared.bos is not None:
            ids.insert(0, declared.bos)
        if end is not None:
            ids.append(end)
        return ids

    def join_pair(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
        """Two texts, encoded without special tokens, as the one sequence that a cross-encoder compares them in.

        BERT's is `[CLS] first [SEP] second [SEP]` (arXiv:1810.04805, section 3), that of XLM-RoBERTa
        `<s> first </s></s> second </s>` (arXiv:1911.02116), whose tokens are all of type 0.

        Returns:
            the token ids, and the type of each.

        Raises:
            TokenizerError: how a vocabulary of this kind joins pairs is not known.
        """
        declared = self._vocabulary.declared
        if self.model == "bert" and declared.bos is not None and declared.separator is not None:
            first_part = [declared.bos, *first, declared.separator]
            second_part = [*second, declared.separator]
            return first_part + second_part, [0] * len(first_part) + [1] * len(second_part)
        if self.model == "t5" and declared.bos is not None and declared.eos is not None:
            joined = [declared.bos, *first, declared.eos, declared.eos, *second, declared.eos]
            return joined, [0] * len(joined)
        raise TokenizerError(
            f"how texts are joined to pairs is not known for this vocabulary (tokenizer.ggml.model = {self.model!r}); "
            "use a reranker that goes back to BERT or XLM-RoBERTa"
        )

    def decode(self, ids: Iterable[int], *, skip_special: bool = False, clean_spaces: bool | None = None) -> str:
        """The text of a whole list of tokens.

        Args:
            ids: token ids. The space that SentencePiece puts before text is dropped.
            skip_special: leave control and unknown tokens out.
            clean_spaces: drop spaces before punctuation; None does so for BERT only, where no text had them. For other
                vocabularies it would change code and tables, whatever their authors' decoders do.

        Raises:
            InvalidRequestError: an id is not in the vocabulary.
        """
        detokenizer = self.detokenizer(show_special=not skip_special, text_start=True)
        text = detokenizer.append(ids) + detokenizer.flush()
        if clean_spaces is None:
            clean_spaces = self.model == "bert"
        return clean_up_spaces(text) if clean_spaces else text

    def detokenizer(self, *, show_special: bool = False, text_start: bool = False) -> IncrementalDetokenizer:
        """A new decoder for tokens that arrive one by one.

        Args:
            show_special: render control and unknown tokens too, instead of nothing.
            text_start: the tokens begin a text, so SentencePiece's first space is dropped. Not for the continuation of
                a prompt, where that space separates two words.
        """
        strip = text_start and (self._vocabulary.add_space_prefix or self.model == "bert")
        piece = self.token_bytes if show_special else self._visible_bytes
        return IncrementalDetokenizer(piece, strip_first_space=strip)

    def token_bytes(self, token_id: int) -> bytes:
        """What one token adds to a text; for a control token the text that stands for it in prompts.

        Raises:
            InvalidRequestError: the id is not in the vocabulary.
        """
        piece = self._pieces.get(token_id)
        if piece is None:
            if not 0 <= token_id < self.vocab_size:
                raise InvalidRequestError(
                    f"token id {token_id} is outside the vocabulary of {self.vocab_size} tokens", field="tokens"
                )
            piece = self._pieces[token_id] = self._spell(token_id)
        return piece

    def _spell(self, token_id: int) -> bytes:
        text = self._vocabulary.texts[token_id]
        kind = int(self._vocabulary.classification.types[token_id])  # numpy's integers compare slowly with an enum
        if kind in (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED):
            return text.encode("utf-8", "surrogateescape")
        if kind == TokenType.BYTE and (value := byte_token_value(text)) is not None:
            return bytes((value,))
        if kind != TokenType.NORMAL:
            return b""
        pre = self._vocabulary.pre_tokenizer
        return byte_level_bytes(text) if pre and pre.byte_level else escaped_bytes(text)

    def _visible_bytes(self, token_id: int) -> bytes:
        return b"" if token_id in self._invisible_ids else self.token_bytes(token_id)

    @cached_property
    def _invisible_ids(self) -> frozenset[int]:
        shown = self._vocabulary.classification.shown_ids
        return frozenset(token.id for token in self._vocabulary.matched if token.hidden and token.id not in shown)

    def _build(self) -> _Encoders:
        with self._lock:
            if self._encoders is None:
                pipeline, warnings = self._pipeline()
                matched = self._vocabulary.matched
                always = [token for token in matched if not token.hidden]
                self._encoders = _Encoders(_assemble(pipeline, always), _assemble(pipeline, matched), warnings)
            return self._encoders

    def _pipeline(self) -> tuple[Pipeline, tuple[str, ...]]:
        vocabulary = self._vocabulary
        if vocabulary.model == "llama":
            return build_score_merges(vocabulary)
        if vocabulary.model == "bert":
            return build_wordpiece(vocabulary), ()
        if vocabulary.model == "t5":
            return build_unigram(vocabulary), ()
        return build_byte_pair(vocabulary)


def _assemble(pipeline: Pipeline, matched: Sequence[MatchedToken]) -> _Encoder:
    """A `tokenizers.Tokenizer` that looks for `matched` first. The model of the pipeline is shared, not copied."""
    tokenizer = tokenizers.Tokenizer(pipeline.model)
    if pipeline.normalizer is not None:
        tokenizer.normalizer = pipeline.normalizer
    if pipeline.pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pipeline.pre_tokenizer
    first_extra_id = tokenizer.get_vocab_size(with_added_tokens=False)
    tokenizer.add_tokens(
        [
            tokenizers.AddedToken(token.text, lstrip=token.left_strip, rstrip=token.right_strip, normalized=False)
            for token in matched
        ]
    )
    extra = [token.id for token in matched if (tokenizer.token_to_id(token.text) or 0) >= first_extra_id]
    return _Encoder(tokenizer, extra)


def _encode(encoder: _Encoder, text: str, vocab_size: int) -> list[int]:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    tokenizer, extra = encoder
    if len(text) > _MAX_RUN_CHARACTERS and any(len(run[0]) > _MAX_RUN_CHARACTERS for run in _RUN.finditer(text)):
        raise InvalidRequestError(
            f"the text has more than {_MAX_RUN_CHARACTERS} characters without a break between words; break it up",
            field="prompt",
        )
    if len(text) < _LONG_TEXT_CHARACTERS:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    else:
        ids = tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
    if extra and max(ids, default=0) >= vocab_size:
        return [token_id if token_id < vocab_size else extra[token_id - vocab_size] for token_id in ids]
    return ids
