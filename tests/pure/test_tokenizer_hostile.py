"""Vocabularies that are damaged or made to harm: one typed error that names the key, never a crash."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_data import metadata

from quipu.errors import InvalidRequestError, TokenizerError
from quipu.tokenizer import Tokenizer

TOKENS = ["a", "b", "ab", "<s>"]
GOOD = metadata(TOKENS, types=[1, 1, 1, 3], merges=["a b"], bos_token_id=3)
GOOD_SPM = metadata(TOKENS, model="llama", types=[1, 1, 1, 3], scores=[0.0, -1.0, -2.0, 0.0], add_space_prefix=False)


def damaged(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy of `base` with some keys of `tokenizer.ggml` changed, or removed where the new value is None."""
    changed = copy.copy(base) | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    return {key: value for key, value in changed.items() if value is not None}


def test_the_bases_are_good() -> None:
    assert Tokenizer(GOOD).encode("ab") == [2]
    assert Tokenizer(GOOD_SPM).encode("ab", add_special=False) == [2]


@pytest.mark.parametrize(
    ("base", "changes", "named"),
    [
        (GOOD, {"model": "rwkv"}, "rwkv"),
        (GOOD, {"model": "plamo2"}, "plamo2"),
        (GOOD, {"model": "hybriddna"}, "hybriddna"),
        (GOOD, {"model": 7}, "tokenizer.ggml.model"),
        (GOOD, {"pre": "made-up-bpe"}, "'made-up-bpe'"),
        (GOOD, {"tokens": None}, "tokenizer.ggml.tokens"),
        (GOOD, {"tokens": []}, "tokenizer.ggml.tokens"),
        (GOOD, {"tokens": "abc"}, "tokenizer.ggml.tokens"),
        (GOOD, {"tokens": np.zeros(4, np.int32)}, "tokenizer.ggml.tokens"),
        (GOOD, {"tokens": ["a", "b", "ab", "a"]}, "tokenizer.ggml.tokens"),
        (GOOD, {"token_type": np.ones(3, np.int32)}, "tokenizer.ggml.token_type"),
        (GOOD, {"token_type": np.ones(4, np.float32)}, "tokenizer.ggml.token_type"),
        (GOOD, {"token_type": ["1", "1", "1", "1"]}, "tokenizer.ggml.token_type"),
        (GOOD, {"merges": None}, "tokenizer.ggml.merges"),
        (GOOD, {"merges": np.zeros(2, np.uint8)}, "tokenizer.ggml.merges"),
        (GOOD, {"merges": ["a b", "ab c"]}, r"tokenizer.ggml.merges\[1\]"),
        (GOOD, {"merges": ["ab"]}, r"tokenizer.ggml.merges\[0\]"),
        (GOOD, {"merges": [""]}, r"tokenizer.ggml.merges\[0\]"),
        (GOOD, {"merges": ["ab ab"]}, r"tokenizer.ggml.merges\[0\]"),
        (GOOD, {"merges": ["a b ab"]}, r"tokenizer.ggml.merges\[0\]"),
        (GOOD, {"bos_token_id": 4}, "tokenizer.ggml.bos_token_id"),
        (GOOD, {"eos_token_id": -1}, "tokenizer.ggml.eos_token_id"),
        (GOOD, {"eos_token_id": 1.5}, "tokenizer.ggml.eos_token_id"),
        (GOOD, {"fim_pre_token_id": 99}, "tokenizer.ggml.fim_pre_token_id"),
        (GOOD, {"add_bos_token": "yes"}, "tokenizer.ggml.add_bos_token"),
        (GOOD_SPM, {"scores": None}, "tokenizer.ggml.scores"),
        (GOOD_SPM, {"scores": np.zeros(3, np.float32)}, "tokenizer.ggml.scores"),
        (GOOD_SPM, {"scores": np.full(4, np.nan, np.float32)}, "tokenizer.ggml.scores"),
        (GOOD_SPM, {"scores": np.full(4, np.inf, np.float32)}, "tokenizer.ggml.scores"),
        (GOOD_SPM, {"tokens": ["a", "b", "b" * 70_000, "<s>"]}, "tokenizer.ggml.tokens"),
        (GOOD_SPM, {"model": "bert", "unknown_token_id": None}, "tokenizer.ggml.unknown_token_id"),
    ],
)
def test_one_sentence_names_the_key(base: dict[str, Any], changes: dict[str, Any], named: str) -> None:
    with pytest.raises(TokenizerError, match=named) as info:
        Tokenizer(damaged(base, **changes)).prepare()
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 400


def test_generic_splitter_is_never_silent() -> None:
    for pre in (None, "default"):
        made = Tokenizer(damaged(GOOD, pre=pre))
        assert made.encode("ab") == [2]
        assert "tokenizer.ggml.pre" in made.warnings[0]
    assert Tokenizer(GOOD).warnings == ()


def test_missing_bos_is_reported_not_guessed() -> None:
    made = Tokenizer(damaged(GOOD, pre="llama3", bos_token_id=None))
    assert made.encode("ab") == [2]
    assert "bos_token_id is missing" in made.warnings[0]


def test_bytes_without_token_are_reported() -> None:
    made = Tokenizer(GOOD)
    assert made.encode("a\u00e9") == [0]
    assert made.warnings[0].startswith("254 of the 256 bytes")


def test_a_token_that_looks_like_a_hidden_one_is_refused() -> None:
    with pytest.raises(TokenizerError, match="looks like another"):
        Tokenizer(damaged(GOOD, tokens=["a", "b", "\0" + "3", "<s>"], merges=[])).prepare()


def test_tokens_that_are_no_utf8_are_kept_apart() -> None:
    broken = "\udcff\udcfe"
    made = Tokenizer(damaged(GOOD, tokens=["a", "b", "ab", broken]))
    assert made.encode("ab") == [2]
    assert made.token_bytes(3) == b"\xff\xfe"
    assert made.decode([0, 3]) == "a\ufffd\ufffd"
    with pytest.raises(TokenizerError, match="merges"):
        Tokenizer(damaged(GOOD, tokens=["a", "b", "ab", broken], merges=[f"a {broken}"])).prepare()


def test_empty_tokens_do_no_harm() -> None:
    made = Tokenizer(damaged(GOOD, tokens=["a", "b", "ab", "", ""], token_type=np.array([1, 1, 1, 3, 1], np.int32)))
    assert made.encode("ab", parse_special=True) == [2]
    assert made.token_bytes(4) == b""


def test_unknown_ids_are_refused() -> None:
    made = Tokenizer(GOOD)
    for token_id in (4, -1, 10**12):
        with pytest.raises(InvalidRequestError, match="outside the vocabulary of 4"):
            made.decode([token_id])


TEXT = st.text(st.sampled_from("ab<s> \u2581\u0120\0" + "1#\u00e9\udcff"), max_size=6)
TYPES = st.integers(-3, 9)


@settings(deadline=None, max_examples=400)
@given(
    model=st.sampled_from(["gpt2", "llama", "bert", "t5", "gemma4", "whitespace"]),
    tokens=st.lists(st.tuples(TEXT, TYPES, st.floats(-10, 10, width=32)), min_size=1, max_size=12),
    merges=st.lists(st.one_of(TEXT, st.tuples(TEXT, TEXT).map(" ".join)), max_size=4),
    ids=st.dictionaries(
        st.sampled_from(["bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id"]), st.integers(0, 12)
    ),
    text=st.text(st.sampled_from("ab<s> \u2581\u00e9\0" + "1"), max_size=20),
    parse_special=st.booleans(),
)
def test_random_vocabularies_work_or_are_refused(
    model: str,
    tokens: list[tuple[str, int, float]],
    merges: list[str],
    ids: dict[str, int],
    text: str,
    parse_special: bool,
) -> None:
    texts, types, scores = zip(*tokens, strict=True)
    made = metadata(texts, model=model, types=types, scores=scores, **ids) | {"tokenizer.ggml.merges": merges}
    made["tokenizer.ggml.pre"] = "gpt-2"
    try:
        tokenizer = Tokenizer(made)
        encoded = tokenizer.encode(text, parse_special=parse_special)
    except TokenizerError:
        return
    assert all(0 <= token_id < len(tokens) for token_id in encoded)
    assert isinstance(tokenizer.decode(encoded), str)
    assert all(0 <= token_id < len(tokens) for token_id in tokenizer.end_of_generation_ids)
