"""Random texts against llama.cpp itself, where `llama-cpp-python` is installed."""

from __future__ import annotations

import ctypes
import random

import pytest
from tokenizer_data import LARGE, SMALL, large_folder, tokenizer, vectors, vocabulary_path

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

needs_data = pytest.mark.skipif(large_folder() is None, reason="QUIPU_TEST_DATA is not set")
# BERT is left out: llama.cpp decomposes accented characters in another way than BERT's own tokenizer.
NAMES = [name for name in SMALL if name != "bert-bge"] + [pytest.param(name, marks=needs_data) for name in LARGE]


def random_texts(name: str, count: int) -> list[str]:
    """Mixtures of words from the published vectors, runs, numbers, special tokens and stray characters."""
    generator = random.Random(name)
    words = [word for text, _ in vectors(name) for word in text.split()]
    special = [token.text for token in tokenizer(name)._vocabulary.matched][:40]
    ranges = [
        (32, 126),
        (0xA1, 0x24F),
        (0x370, 0x52F),
        (0x900, 0xE7F),
        (0x4E00, 0x9FFF),
        (0xAC00, 0xD7A3),
        (0x1F300, 0x1F6FF),
    ]

    def part() -> str:
        kind = generator.randrange(6)
        if kind == 0:
            return generator.choice([" ", "\n", "\t", "\r\n", "-", "="]) * generator.randrange(1, 20)
        if kind == 1:
            return str(generator.randrange(10 ** generator.randrange(1, 12)))
        if kind == 2:
            return generator.choice(special) + generator.choice(["", " ", "\n"])
        if kind == 3:
            return "".join(chr(generator.randint(*generator.choice(ranges))) for _ in range(generator.randrange(1, 8)))
        return " " + generator.choice(words)

    return ["".join(part() for _ in range(generator.randrange(20))) for _ in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_random_texts(name: str) -> None:
    oracle = llama_cpp.Llama(str(vocabulary_path(name)), vocab_only=True, verbose=False)
    for text in random_texts(name, 400):
        for special in (False, True):
            expected = oracle.tokenize(text.encode(), add_bos=True, special=special)
            assert tokenizer(name).encode(text, parse_special=special) == expected, (text, special)


@pytest.mark.parametrize("name", [*NAMES, "bert-bge"])
def test_every_piece(name: str) -> None:
    oracle = llama_cpp.Llama(str(vocabulary_path(name)), vocab_only=True, verbose=False)
    vocabulary = llama_cpp.llama_model_get_vocab(oracle._model.model)
    buffer = ctypes.create_string_buffer(4096)
    assert llama_cpp.llama_vocab_n_tokens(vocabulary) == tokenizer(name).vocab_size
    size = tokenizer(name).vocab_size
    for token_id in (*range(0, size, 5), *range(max(0, size - 400), size)):
        length = llama_cpp.llama_token_to_piece(vocabulary, token_id, buffer, len(buffer), 0, True)
        assert tokenizer(name).token_bytes(token_id) == buffer.raw[:length]
        if name != "qwen2":  # there `</s>` is an ordinary token, which llama.cpp takes for the end of a turn
            is_end = llama_cpp.llama_vocab_is_eog(vocabulary, token_id)
            assert (token_id in tokenizer(name).end_of_generation_ids) == is_end
