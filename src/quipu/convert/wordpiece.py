"""WordPiece vocabularies as GGUF keys, in the form that llama.cpp reads: pieces that begin a word carry U+2581."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quipu.convert.checkpoint import Checkpoint
from quipu.convert.settings import MAX_JSON_BYTES, Settings
from quipu.errors import ModelFileError, UnsupportedModelError
from quipu.gguf.encode import WritableValue
from quipu.gguf.metadata import shorten
from quipu.tokenizer.special import TokenType

_WORD_START = "\u2581"
_CONTINUATION = "##"

# The settings that name a special token, the text it has without them, and the GGUF keys of its id.
_ROLES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "unk_token": ("[UNK]", ("unknown_token_id",)),
    "sep_token": ("[SEP]", ("seperator_token_id", "eos_token_id")),
    "pad_token": ("[PAD]", ("padding_token_id",)),
    "cls_token": ("[CLS]", ("cls_token_id", "bos_token_id")),
    "mask_token": ("[MASK]", ("mask_token_id",)),
}
_NEEDED = ("unk_token", "sep_token", "cls_token")


@dataclass(frozen=True, slots=True)
class WordPiece:
    """A vocabulary as published.

    Attributes:
        ids: every token and its id.
        added: tokens that are matched whole: text -> whether it is a control token.
        lowercase, strip_accents: what is done to a text before it is cut.
    """

    ids: Mapping[str, int]
    added: Mapping[str, bool]
    lowercase: bool
    strip_accents: bool


def read_wordpiece(checkpoint: Checkpoint, *, num_rows: int) -> dict[str, WritableValue]:
    """The keys of a WordPiece tokenizer.

    Args:
        checkpoint: the folder, with tokenizer.json or vocab.txt.
        num_rows: rows of the embedding; those without a token get the text "[PAD<id>]".

    Raises:
        ModelFileError: the vocabulary is missing, damaged, or contradicts the model.
        UnsupportedModelError: it is of another kind, or cuts text in a way that GGUF does not express.
    """
    config = checkpoint.settings("tokenizer_config.json") or Settings("tokenizer_config.json", {})
    special = checkpoint.settings("special_tokens_map.json") or Settings("special_tokens_map.json", {})
    tokenizer = checkpoint.settings("tokenizer.json")
    vocabulary = _from_text(checkpoint, config) if tokenizer is None else _from_json(tokenizer)
    roles = {role: _role_text(role, config, special) for role in _ROLES}
    tokens = _by_id(vocabulary.ids, num_rows, checkpoint)
    added = dict(vocabulary.added) if tokenizer is not None else dict.fromkeys(roles.values(), True)
    metadata: dict[str, WritableValue] = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": [_phantom_space(token, index) for index, token in enumerate(tokens)],
        "tokenizer.ggml.token_type": np.array([_token_type(token, added) for token in tokens], dtype=np.int32),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
        "tokenizer.ggml.normalizer.lowercase": vocabulary.lowercase,
        "tokenizer.ggml.normalizer.strip_accents": vocabulary.strip_accents,
    }
    for role, (_, keys) in _ROLES.items():
        token_id = vocabulary.ids.get(roles[role])
        if token_id is None and role in _NEEDED:
            raise ModelFileError(
                f"{checkpoint.folder}: the vocabulary has no {roles[role]!r}, its {role}; use another copy of it"
            )
        if token_id is not None:
            metadata |= {f"tokenizer.ggml.{key}": token_id for key in keys}
    return metadata


def _from_json(tokenizer: Settings) -> WordPiece:
    """The vocabulary in tokenizer.json, checked to be one that GGUF can express."""
    model = tokenizer.section("model")
    _demand(model, "type", "WordPiece")
    _demand(model, "continuing_subword_prefix", _CONTINUATION)
    normalizer = tokenizer.section("normalizer")
    _demand(normalizer, "type", "BertNormalizer")
    _demand(tokenizer.section("pre_tokenizer"), "type", "BertPreTokenizer")
    for name in ("clean_text", "handle_chinese_chars"):
        if not normalizer.flag(name, True):
            raise _unsupported(normalizer, name, False)
    ids = model.section("vocab")
    added = {}
    for token in tokenizer.sections("added_tokens"):
        text, token_id = token.text("content"), token.integer("id")
        if ids.integer(text, token_id) != token_id:
            raise ModelFileError(
                f"{token.path}: {shorten(text)} has id {token_id}, but in the vocabulary another; fetch the model again"
            )
        added[text] = token.flag("special", False)
    numbers = {text: ids.integer(text) for text in ids.values}
    numbers |= {token.text("content"): token.integer("id") for token in tokenizer.sections("added_tokens")}
    lowercase = normalizer.flag("lowercase", True)
    return WordPiece(numbers, added, lowercase, normalizer.flag("strip_accents", lowercase))


def _from_text(checkpoint: Checkpoint, config: Settings) -> WordPiece:
    """The vocabulary in vocab.txt: one token per line."""
    path = checkpoint.folder / "vocab.txt"
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_JSON_BYTES).decode("utf-8")
    except FileNotFoundError:
        raise ModelFileError(
            f"{checkpoint.folder} has neither tokenizer.json nor vocab.txt; fetch the whole model"
        ) from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror or error}); check the file") from None
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path} is not UTF-8 (byte {error.start}); fetch it again") from None
    tokens = text.removesuffix("\n").split("\n")
    tokens = [token.removesuffix("\r") for token in tokens]
    if not config.flag("tokenize_chinese_chars", True):
        raise _unsupported(config, "tokenize_chinese_chars", False)
    lowercase = config.flag("do_lower_case", True)
    ids = {token: index for index, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise ModelFileError(f"{path} holds a token twice; fetch it again")
    return WordPiece(ids, {}, lowercase, config.flag("strip_accents", lowercase))


def _role_text(role: str, *sources: Settings) -> str:
    """The text of a special token: a setting that is a text, or an object with it as `content`."""
    for settings in sources:
        if role in settings:
            if isinstance(settings.values[role], dict):
                return settings.section(role).text("content")
            return settings.text(role)
    return _ROLES[role][0]


def _by_id(ids: Mapping[str, int], num_rows: int, checkpoint: Checkpoint) -> Sequence[str | None]:
    """The token of each row; None for rows that have none."""
    tokens: list[str | None] = [None] * num_rows
    for text, token_id in ids.items():
        if not 0 <= token_id < num_rows:
            raise ModelFileError(
                f"{checkpoint.folder}: token {shorten(text)} has id {token_id}, but the embedding has {num_rows} rows; "
                "fetch the model again"
            )
        if tokens[token_id] is not None:
            raise ModelFileError(f"{checkpoint.folder}: two tokens have the id {token_id}; fetch the model again")
        tokens[token_id] = text
    return tokens


def _phantom_space(token: str | None, index: int) -> str:
    if token is None:
        return f"[PAD{index}]"
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[len(_CONTINUATION) :] if token.startswith(_CONTINUATION) else _WORD_START + token


def _token_type(token: str | None, added: Mapping[str, bool]) -> int:
    if token is None:
        return TokenType.UNUSED
    if token not in added:
        return TokenType.NORMAL
    return TokenType.CONTROL if added[token] else TokenType.USER_DEFINED


def _demand(settings: Settings, name: str, expected: str) -> None:
    value = settings.text(name, "nothing")
    if value != expected:
        raise _unsupported(settings, name, value, f"only {expected!r} is; ")


def _unsupported(settings: Settings, name: str, value: object, alternative: str = "") -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{settings.path}: {name} = {shorten(repr(value))} is not supported for this architecture; {alternative}use "
        "another model"
    )
