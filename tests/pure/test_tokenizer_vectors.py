"""Real vocabularies against ids computed elsewhere, and back to text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_data import LARGE, SMALL, large_folder, metadata, tokenizer, vectors, vocabulary_path

from quipu.errors import InvalidRequestError, TokenizerError
from quipu.gguf import GGUFReader
from quipu.tokenizer import Tokenizer

needs_data = pytest.mark.skipif(large_folder() is None, reason="QUIPU_TEST_DATA is not set")
NAMES = [*SMALL, *(pytest.param(name, marks=needs_data) for name in LARGE)]

# Text with what splitters and merges trip over. U+2581 stands for a space in SentencePiece, so it cannot come back.
TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\u2581", exclude_categories=["Cs"]), max_size=20),
        st.sampled_from(
            [
                "  ",
                "\n\n\n",
                "\r\n",
                "\t",
                "don't",
                " WE'LL",
                " 12345",
                "</s>",
                "<s>",
                "<|endoftext|>",
                "\u3000",
                "====",
            ]
        ),
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("name", NAMES)
def test_published_vectors(name: str) -> None:
    cases = vectors(name)
    assert len(cases) == 47
    for text, ids in cases:
        assert tokenizer(name).encode(text, add_special=False) == ids, text


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_data) for name in LARGE] + ["gpt-2", "llama-spm"])
def test_vectors_come_back(name: str) -> None:
    for text, ids in vectors(name):
        assert tokenizer(name).decode(ids) == text


@pytest.mark.parametrize("name", ["gpt-2", "llama-spm"])
@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
def test_any_text_comes_back(name: str, text: str) -> None:
    ids = tokenizer(name).encode(text, add_special=False)
    assert tokenizer(name).decode(ids) == text


@pytest.mark.parametrize("name", SMALL)
@settings(deadline=None, max_examples=100)
@given(text=TEXTS)
def test_text_never_becomes_a_control_token(name: str, text: str) -> None:
    control = {token.id for token in tokenizer(name)._vocabulary.matched if token.hidden}
    unknown = tokenizer(name).special_tokens.unknown
    assert not control.intersection(tokenizer(name).encode(text, add_special=False)) - {unknown}


def test_long_texts_take_the_same_way() -> None:
    text = "".join(text for text, _ in vectors("gpt-2")) * 40
    assert len(text) > 20_000
    ids = tokenizer("gpt-2").encode(text, add_special=False)
    assert tokenizer("gpt-2").decode(ids) == text


@pytest.mark.parametrize(
    ("name", "begin", "end"), [("llama-spm", [1], []), ("gpt-2", [], []), ("bert-bge", [101], [102])]
)
def test_tokens_around_a_text(name: str, begin: list[int], end: list[int]) -> None:
    bare = tokenizer(name).encode("Hello", add_special=False)
    assert tokenizer(name).encode("Hello") == [*begin, *bare, *end]
    assert tokenizer(name).encode("") == [*begin, *end]


@needs_data
def test_tokens_around_a_text_by_splitter() -> None:
    assert tokenizer("llama-bpe").encode("Hello")[0] == 128000  # no add_bos_token key: the splitter's name says so
    assert tokenizer("qwen2").encode("Hello") == tokenizer("qwen2").encode("Hello", add_special=False)


def test_ids_are_known_without_building() -> None:
    fresh = Tokenizer.from_gguf(vocabulary_path("llama-spm"))
    assert (fresh.bos_token_id, fresh.eos_token_id) == (1, 2)
    assert (fresh.bos_token, fresh.eos_token) == ("<s>", "</s>")
    assert fresh.end_of_generation_ids == {2}
    assert fresh.vocab_size == 32000
    assert fresh.decode([1, 15043]) == "<s> Hello"
    assert fresh._encoders is None


def test_reader_and_path_give_the_same() -> None:
    with GGUFReader(vocabulary_path("llama-spm")) as reader:
        assert Tokenizer.from_gguf(reader).encode("Hello world") == tokenizer("llama-spm").encode("Hello world")


def test_decode_of_wordpiece_is_readable() -> None:
    bert = tokenizer("bert-bge")
    ids = bert.encode("Hello, wonderful worlds!", add_special=False)
    assert bert.decode(ids) == "hello, wonderful worlds!"
    assert bert.decode(ids, clean_spaces=False) == "hello , wonderful worlds !"


def test_lone_surrogates_become_replacement_characters() -> None:
    gpt2 = tokenizer("gpt-2")
    assert gpt2.decode(gpt2.encode("a\ud800b", add_special=False)) == "a\ufffdb"


def test_unbreakable_giant_run_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="without a break"):
        tokenizer("gpt-2").encode(" " * 1_000_001)


def test_vocabulary_without_merges_is_bytes() -> None:
    tokens = ["a", "b", "\u0120"]
    assert Tokenizer(metadata(tokens)).encode("ab a", add_special=False) == [0, 1, 2, 0]


def test_no_vocabulary() -> None:
    for model in (None, "no_vocab", "none"):
        with pytest.raises(TokenizerError, match="no tokenizer"):
            Tokenizer({} if model is None else {"tokenizer.ggml.model": model})
