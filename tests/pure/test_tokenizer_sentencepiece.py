"""Merging by score against a plain implementation of SentencePiece's algorithm, and unigram vocabularies."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_data import metadata, tokenizer

from quipu.errors import TokenizerError
from quipu.tokenizer import Tokenizer


def merge_by_score(text: str, scores: Mapping[str, float]) -> list[str]:
    """Joins the two neighbours whose union scores highest, the leftmost of equals, until no union is a token."""
    symbols = list(text)
    previous = [index - 1 for index in range(len(symbols))]
    following = [*range(1, len(symbols)), -1]
    queue: list[tuple[float, int, int, int]] = []

    def consider(left: int, right: int) -> None:
        if left >= 0 and right >= 0 and (union := symbols[left] + symbols[right]) in scores:
            heapq.heappush(queue, (-scores[union], left, right, len(union)))

    for index in range(1, len(symbols)):
        consider(index - 1, index)
    while queue:
        _, left, right, length = heapq.heappop(queue)
        if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != length:
            continue
        symbols[left] += symbols[right]
        symbols[right] = ""
        following[left] = following[right]
        if following[right] >= 0:
            previous[following[right]] = left
        consider(previous[left], left)
        consider(left, following[left])
    return [symbol for symbol in symbols if symbol]


@st.composite
def vocabularies(draw: st.DrawFn) -> tuple[dict[str, float], list[str]]:
    alphabet = draw(st.sampled_from(["ab", "abc", "ab\u2581", "ab\u2581\u00e9"]))
    pieces = draw(st.sets(st.text(alphabet, min_size=2, max_size=6), min_size=1, max_size=40))
    tokens = [*alphabet, *sorted(pieces)]
    order = draw(st.permutations(range(len(tokens))))
    texts = draw(st.lists(st.text(alphabet, max_size=30), min_size=1, max_size=10))
    return dict(zip(tokens, map(float, order), strict=True)), texts


@settings(deadline=None, max_examples=300)
@given(drawn=vocabularies())
def test_random_vocabularies_merge_as_sentencepiece_does(drawn: tuple[dict[str, float], list[str]]) -> None:
    scores, texts = drawn
    tokens = list(scores)
    made = Tokenizer(metadata(tokens, model="llama", scores=list(scores.values()), add_space_prefix=False))
    for text in texts:
        ids = made.encode(text, add_special=False)
        assert [tokens[token_id] for token_id in ids] == merge_by_score(text, scores)


@settings(deadline=None, max_examples=200)
@given(text=st.text(st.sampled_from("etaoin shrdlu.,-=_#()\n\u00e9\u4e2d0123ABC"), max_size=120))
def test_real_vocabulary_merges_as_sentencepiece_does(text: str) -> None:
    llama = tokenizer("llama-spm")
    vocabulary = llama._vocabulary
    scores = dict(zip(vocabulary.texts[259:], vocabulary.scores[259:].tolist(), strict=True))
    expected: list[int] = []
    ids = {token: index for index, token in enumerate(vocabulary.texts)}
    for piece in merge_by_score(("\u2581" + text.replace(" ", "\u2581")) if text else "", scores):
        expected += [ids[piece]] if piece in ids else [3 + byte for byte in piece.encode()]
    assert llama.encode(text, add_special=False) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 5, 15, 16, 17, 18, 31, 33, 100])
def test_runs_of_spaces_with_equal_scores_grow_from_the_left(count: int) -> None:
    """All 16 tokens of spaces score -1e9 in LLaMA's vocabulary; ids from llama.cpp."""
    llama = tokenizer("llama-spm")
    pieces = [llama.token_bytes(token_id) for token_id in llama.encode(" " * (count - 1) + "x", add_special=False)]
    assert b"".join(pieces) == b" " * count + b"x"
    lengths = [len(piece) for piece in pieces if not piece.strip()]
    assert all(length == 16 for length in lengths[:-1])


def test_dummy_scores_are_replaced_by_the_order_and_reported() -> None:
    tokens = ["a", "b", "c", "bc", "ab"]
    made = Tokenizer(metadata(tokens, model="llama", scores=[-1000.0] * 5, add_space_prefix=False))
    assert made.encode("abc", add_special=False) == [0, 3]
    assert "same for all tokens" in " ".join(made.warnings)


def test_shared_scores_are_reported() -> None:
    made = Tokenizer(metadata(["a", "b", "ab", "ba"], model="llama", scores=[0.0, 0.0, -1.0, -1.0]))
    made.prepare()
    assert made.warnings[0].startswith("2 tokens share their score")


def test_characters_without_token_become_bytes_or_unknown() -> None:
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", *byte_tokens, "\u2581", "a"]
    types = [2] + [6] * 256 + [1, 1]
    made = Tokenizer(
        metadata(tokens, model="llama", types=types, scores=np.arange(len(tokens)).tolist(), unknown_token_id=0)
    )
    assert made.encode("a\u00e9", add_special=False) == [257, 258, 1 + 0xC3, 1 + 0xA9]
    assert made.decode(made.encode("a\u00e9\U0001f600 a", add_special=False)) == "a\u00e9\U0001f600 a"
    without = Tokenizer(
        metadata(["<unk>", "\u2581", "a"], model="llama", types=[2, 1, 1], scores=[0.0, 1.0, 2.0], unknown_token_id=0)
    )
    assert without.encode("a\u00e9\u00ea", add_special=False) == [1, 2, 0]


def unigram(**keys: object) -> dict[str, object]:
    tokens = ["<pad>", "</s>", "<unk>", "\u2581", "\u2581hello", "\u2581he", "llo", "h", "e", "l", "o", "<x>"]
    scores = [0.0, 0.0, 0.0, -2.0, -3.0, -4.0, -5.0, -6.0, -6.0, -6.0, -6.0, 0.0]
    types = [3, 3, 2, 1, 1, 1, 1, 1, 1, 1, 1, 4]
    return metadata(tokens, model="t5", types=types, scores=scores, **keys)


def test_unigram_takes_the_likeliest_segmentation() -> None:
    made = Tokenizer(unigram(remove_extra_whitespaces=True))
    assert made.encode("hello") == [4, 1]
    assert made.encode("  hello   he<x> zz ", add_special=False) == [4, 5, 11, 3, 2]
    assert made.encode("\0" + "1", add_special=False) == [3, 2]  # the spelling of a hidden token finds nothing
    assert made.decode([4, 5, 1], skip_special=True) == "hello he"


@pytest.mark.parametrize(
    "table",
    [
        np.zeros(0, np.uint8),
        np.frombuffer(b"\x08\0\0\0" + b"\xff" * 8 + b"xx\0", np.uint8),
        np.frombuffer(b"\x04\0\0\0" + b"abcd" + b"x\0", np.uint8),
        np.arange(40, dtype=np.int32),
        np.zeros(4096, np.uint8),
    ],
)
def test_damaged_table_of_replacements_is_refused(table: np.ndarray) -> None:
    with pytest.raises(TokenizerError, match="precompiled_charsmap"):
        Tokenizer(unigram(precompiled_charsmap=table)).prepare()


def test_table_of_replacements() -> None:
    """One replacement, "A" to "he", in a double array made by hand."""
    units = np.zeros(512, dtype="<u4")
    units[0] = 256 << 10  # the root's children lie from 256 on
    node = 256 ^ ord("A")
    units[node] = ord("A") | 1 << 8 | 1 << 10  # ends a key; its value is in the neighbour
    units[node ^ 1] = 1 << 31 | 0
    data = (2048).to_bytes(4, "little") + units.tobytes() + b"he\0"
    made = Tokenizer(unigram(precompiled_charsmap=np.frombuffer(data, np.int8)))
    assert made.encode("Allo", add_special=False) == made.encode("hello", add_special=False) == [4]
