"""The vocabulary of a GGUF file: what the metadata says, checked, before any tokenizer is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from quipu.errors import TokenizerError
from quipu.gguf import StringArray
from quipu.tokenizer.pretokenizers import PreTokenizer, find_pre_tokenizer
from quipu.tokenizer.special import (
    Classification,
    MatchedToken,
    TokenType,
    TokenTypes,
    classify,
    declared_special_tokens,
    matched_tokens,
)

_SUPPORTED = ("llama", "gpt2", "gemma4", "whitespace", "bert", "t5")
_BYTE_PAIR = ("gpt2", "gemma4", "whitespace")


class Vocabulary:
    """Tokens, types, scores, merges and switches of one file. Strings are decoded on first use only.

    Attributes:
        metadata: the file's metadata.
        model: `tokenizer.ggml.model`: "llama", "gpt2", "gemma4", "whitespace", "bert" or "t5".
        size: number of tokens.
        pre_tokenizer: how words are cut before merging; None where the kind of vocabulary has no such step.
        declared: special ids that the keys name.
        add_bos, add_eos: whether a prompt gets these tokens around it.
        add_space_prefix: a space is put before text that begins a prompt or follows a special token.
        clean_spaces: the model's authors remove spaces before punctuation when decoding.
        warnings: what the reader of the file should know, one sentence each.

    Raises:
        TokenizerError: there is no vocabulary, its kind is not supported, or its parts do not fit together.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata
        self.model = _model_kind(metadata)
        self.size = len(self._strings("tokens"))
        if self.size == 0:
            raise TokenizerError("tokenizer.ggml.tokens is empty; the file has no usable vocabulary, convert it again")
        warnings: list[str] = []
        self.pre_tokenizer = self._find_pre_tokenizer(warnings)
        self.declared = declared_special_tokens(metadata, self.model, self.size)
        self._read_switches(warnings)
        self._check_arrays()
        self.warnings = tuple(warnings)

    def _find_pre_tokenizer(self, warnings: list[str]) -> PreTokenizer | None:
        if self.model not in _BYTE_PAIR:
            return None
        name = "gemma4" if self.model == "gemma4" else self.metadata.get("tokenizer.ggml.pre")
        if name is None or name == "default":
            said = "does not say" if name is None else "says only 'default' for"
            warnings.append(
                f"the file {said} how text is cut into words (tokenizer.ggml.pre), so a generic rule is used and "
                "answers may be worse; get a newer conversion of the model"
            )
            name = "default"
        return find_pre_tokenizer(str(name))

    def _read_switches(self, warnings: list[str]) -> None:
        pre = self.pre_tokenizer
        default_bos = pre.add_bos if pre else self.model in ("llama", "bert")
        self.add_bos = self.flag("add_bos_token", default_bos)
        self.add_eos = self.flag("add_eos_token", self.model == "t5")
        self.add_space_prefix = self.flag("add_space_prefix", self.model in ("llama", "t5"))
        self.clean_spaces = pre.clean_spaces if pre else self.model == "bert"
        if self.model == "gemma4" and not self.add_bos:
            # Published Gemma 4 files carry a wrong key; the model does not work without BOS.
            warnings.append("tokenizer.ggml.add_bos_token is false, but Gemma 4 needs the BOS token, so it is added")
            self.add_bos = True
        for switch, role, token_id in (
            ("add_bos", "bos", self.declared.bos),
            ("add_eos", "eos", self.declared.eos),
        ):
            if getattr(self, switch) and token_id is None:
                warnings.append(
                    f"prompts should get the {role.upper()} token, but tokenizer.ggml.{role}_token_id is missing, so "
                    "they do not"
                )
                setattr(self, switch, False)

    def _check_arrays(self) -> None:
        types = self.metadata.get("tokenizer.ggml.token_type")
        if types is not None and (not _is_numeric(types, "iu") or len(types) != self.size):
            raise self._misfit("token_type", types)
        if self.model in ("llama", "t5"):
            scores = self.metadata.get("tokenizer.ggml.scores")
            if scores is None or not _is_numeric(scores, "iuf") or len(scores) != self.size:
                raise self._misfit("scores", scores)
            if not np.isfinite(scores).all():
                raise TokenizerError("tokenizer.ggml.scores holds values that are not finite; convert the model again")
        if self.model in _BYTE_PAIR:
            self._strings("merges")

    def _misfit(self, name: str, value: Any) -> TokenizerError:
        found = "missing" if value is None else f"{len(value)} entries" if hasattr(value, "__len__") else repr(value)
        return TokenizerError(
            f"tokenizer.ggml.{name} ({found}) does not fit {self.size} tokens; the file is damaged, convert it again"
        )

    def _strings(self, name: str) -> Sequence[str]:
        key = f"tokenizer.ggml.{name}"
        value = self.metadata.get(key)
        if value is None:
            raise TokenizerError(
                f"the file has no {key}, which a {self.model!r} vocabulary needs; convert it again, or pass token ids "
                "instead of text"
            )
        if isinstance(value, str | bytes | np.ndarray) or not isinstance(value, Sequence):
            raise TokenizerError(f"{key} is not a list of strings; the file is damaged, convert it again")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """The switch `tokenizer.ggml.{name}`, or `default`; raises TokenizerError if it is not a truth value."""
        value = self.metadata.get(f"tokenizer.ggml.{name}", default)
        if not isinstance(value, bool | np.bool_):
            raise TokenizerError(f"tokenizer.ggml.{name} is {value!r}, not true or false; convert the model again")
        return bool(value)

    @cached_property
    def texts(self) -> list[str]:
        """The spelling of each token, as the file stores it."""
        return _to_list(self._strings("tokens"))

    def read_merges(self) -> list[str]:
        """The merges of a byte-pair vocabulary, the most urgent first: two tokens with a space between them."""
        return _to_list(self._strings("merges"))

    @cached_property
    def scores(self) -> npt.NDArray[np.float64]:
        """float64 [size]: the higher the score, the more urgent the token."""
        return np.asarray(self.metadata["tokenizer.ggml.scores"], dtype=np.float64)

    @cached_property
    def classification(self) -> Classification:
        """Special tokens, corrected types and the ids that end a generation."""
        stored = self.metadata.get("tokenizer.ggml.token_type")
        if stored is None:
            types: TokenTypes = np.full(self.size, TokenType.NORMAL, dtype=np.int32)
        else:
            types = np.asarray(stored, dtype=np.int64).astype(np.int32)
        return classify(self.declared, types, self.texts, self.model)

    @cached_property
    def matched(self) -> list[MatchedToken]:
        """The tokens that are looked for in the text as a whole."""
        found = matched_tokens(self.metadata, self.classification.types, self.texts)
        return [token for token in found if token.text and is_utf8(token.text)]

    @cached_property
    def keys(self) -> list[str]:
        """The spelling under which each token is known to the model that merges or looks up pieces.

        Control and unknown tokens get a spelling that no text produces, so that text never turns into them by itself:
        they are only found as whole matches, and only where special tokens are parsed.

        Raises:
            TokenizerError: two tokens have the same text.
        """
        texts = self.texts
        types = self.classification.types
        if len(set(texts)) != len(texts):
            self._check_duplicates()
        keys = texts.copy()
        hidden = np.isin(types, (TokenType.CONTROL, TokenType.UNKNOWN))
        for index in np.flatnonzero(hidden).tolist():
            keys[index] = hidden_key(index)
        if "" in texts or not is_utf8("".join(texts)):
            keys = [key if key and is_utf8(key) else hidden_key(index) for index, key in enumerate(keys)]
        return keys

    def _check_duplicates(self) -> None:
        first: dict[str, int] = {}
        for index, text in enumerate(self.texts):
            if text and first.setdefault(text, index) != index:
                raise TokenizerError(
                    f"tokenizer.ggml.tokens holds {text[:60]!r} twice, as ids {first[text]} and {index}; the file is "
                    "damaged, convert it again"
                )

    def ids_by_key(self) -> dict[str, int]:
        """The ids under the spellings of `keys`, in order of id."""
        return number_spellings(self.keys)

    @property
    def unknown_key(self) -> str | None:
        """The spelling of the unknown token in `keys`, or None."""
        unknown = self.classification.special.unknown
        return None if unknown is None else self.keys[unknown]


def hidden_key(token_id: int) -> str:
    """A spelling for a token that text must not produce: NUL, which no normalized text begins a token with."""
    return f"\0{token_id}"


def number_spellings(spellings: Sequence[str]) -> dict[str, int]:
    """The position of each spelling; raises TokenizerError if two are the same."""
    ids = dict(zip(spellings, range(len(spellings)), strict=True))
    if len(ids) != len(spellings):
        raise TokenizerError("tokenizer.ggml.tokens holds a token that looks like another one; convert the model again")
    return ids


def is_utf8(text: str) -> bool:
    """Whether the text holds no bytes that were no UTF-8 in the file (they are kept as lone surrogates)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _to_list(strings: Sequence[str]) -> list[str]:
    return strings.to_list() if isinstance(strings, StringArray) else list(strings)


def _is_numeric(value: Any, kinds: str) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in kinds


def _model_kind(metadata: Mapping[str, Any]) -> str:
    model = metadata.get("tokenizer.ggml.model")
    if model is None or model in ("no_vocab", "none"):
        raise TokenizerError(
            "the file has no tokenizer (tokenizer.ggml.model is missing or says there is no vocabulary); pass token "
            "ids instead of text"
        )
    if model not in _SUPPORTED:
        raise TokenizerError(
            f"vocabularies of the kind {str(model)[:60]!r} (tokenizer.ggml.model) are not supported, only "
            f"{', '.join(_SUPPORTED)}; pass token ids instead of text"
        )
    return str(model)
