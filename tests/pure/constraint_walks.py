"""A small vocabulary, and random answers under a constraint: what a model without any sense would write."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from quipu.chat.constraints import ConstraintCompiler, GrammarVocabulary
from quipu.types import ConstraintSpec

BOS, END, OTHER_END, CALL = 256, 257, 258, 259
_CONTROL = {BOS: b"<bos>", END: b"<end>", OTHER_END: b"<end2>", CALL: b"<call>"}
_WORDS = [
    '{"',
    '"}',
    '"}',
    "{}",
    "[]",
    "[{",
    "}]",
    '":',
    ':"',
    ',"',
    '",',
    '",_"',
    "true",
    "false",
    "null",
    "tru",
    "ull",
    "-1",
    "10",
    "0.",
    "1e",
    "12",
    "2024-",
    "-02-",
    "T00:",
    'Z"',
    '\\"',
    "\\n",
    "\\\\",
    "é",
    "日本",
    "😀",
    "ab",
    "the",
    "_the",
    "name",
    "age",
    "yes",
    "no",
    "aa",
    "aaa",
    "bb",
    "__",
    "___",
]


class ByteTokenizer:
    """256 bytes, four control tokens and some words; text is cut greedily."""

    def __init__(self) -> None:
        words = [word.replace("_", " ").encode() for word in _WORDS] + [b"\n", b"\n    ", "é".encode()[1:] + b"x"]
        self.tokens = [bytes((byte,)) for byte in range(256)] + list(_CONTROL.values()) + words
        self._ids = {spelling: token for token, spelling in reversed(list(enumerate(self.tokens)))}
        self._longest = max(map(len, self.tokens))
        self.vocab_size = len(self.tokens)
        self.bos_token_id = BOS
        self.end_of_generation_ids = frozenset({END, OTHER_END})
        self.control_token_ids = frozenset(_CONTROL)

    def token_bytes(self, token_id: int) -> bytes:
        return self.tokens[token_id]

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        data, ids = text.encode(), []
        while data:
            for length in range(min(self._longest, len(data)), 0, -1):
                token = self._ids.get(data[:length], BOS)
                if data[:length] in self._ids and (parse_special or token not in _CONTROL):
                    break
            ids.append(token)
            data = data[length:]
        return ids


def new_compiler(num_padding: int = 5, **options: object) -> ConstraintCompiler:
    tokenizer = ByteTokenizer()
    return ConstraintCompiler(tokenizer, tokenizer.vocab_size + num_padding, **options)  # type: ignore[arg-type]


def new_masks(vocabulary: GrammarVocabulary, num_rows: int = 1) -> np.ndarray:
    return np.full((num_rows, (vocabulary.size + 31) // 32), 0x55555555, dtype=np.int32)


def allowed_ids(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


def accepts(compiler: ConstraintCompiler, spec: ConstraintSpec, text: str | bytes) -> bool:
    """Whether `text` is a whole answer under the constraint."""
    constraint = compiler.compile(spec)
    data = text.encode() if isinstance(text, str) else text
    ids = compiler.vocabulary.tokenize(data)
    if constraint.validate(ids) < len(ids):
        return False
    constraint.accept(ids)
    if constraint.is_complete:
        return True
    masks = new_masks(compiler.vocabulary)
    constraint.fill_masks([], masks)
    return END in allowed_ids(masks[0])


# What brings JSON to an end soonest, in this order.
_CLOSING = b'"}]:0-,{["abcdefghijklmnopqrstuvwxyz123456789'


def random_answer(
    compiler: ConstraintCompiler, spec: ConstraintSpec, seed: int, *, num_free: int = 30, num_most: int = 400
) -> bytes | None:
    """The text of an answer: any allowed tokens first, then those that bring it to an end; None if there is none."""
    constraint, vocabulary, source = compiler.compile(spec), compiler.vocabulary, random.Random(seed)
    masks, data = new_masks(vocabulary), b""
    for number in range(num_most):
        assert constraint.fill_masks([], masks) == 0
        allowed = allowed_ids(masks[0])
        assert allowed, "nothing may follow"
        token = _choose(allowed, vocabulary, source, number >= num_free)
        constraint.accept([token])
        if token in vocabulary.end_ids:
            return data
        data += vocabulary.token_bytes(token)
        assert token not in vocabulary.control_ids
        if constraint.is_complete:
            return data
    return None


def _choose(allowed: Sequence[int], vocabulary: GrammarVocabulary, source: random.Random, is_closing: bool) -> int:
    ends = [token for token in allowed if token in vocabulary.end_ids]
    if ends and (is_closing or source.random() < 0.2):
        return ends[0]
    rest = [token for token in allowed if token not in vocabulary.end_ids] or ends
    if is_closing and source.random() < 0.8:
        singles = [byte for byte in _CLOSING if byte in rest]
        if singles:
            return singles[0]
    return source.choice(rest)
