"""Text from tokens that arrive one by one."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_data import BYTE_ALPHABET, metadata, tokenizer, vocabulary_path

from quipu.tokenizer import IncrementalDetokenizer, Tokenizer
from quipu.tokenizer.detokenizer import byte_level_bytes, clean_up_spaces


def from_chunks(chunks: list[bytes]) -> tuple[list[str], str]:
    """What an incremental detokenizer gives for each chunk, and at the end."""
    detokenizer = IncrementalDetokenizer(lambda index: chunks[index])
    return [detokenizer.append([index]) for index in range(len(chunks))], detokenizer.flush()


@given(st.lists(st.binary(max_size=4), max_size=30))
def test_any_bytes_in_any_pieces(chunks: list[bytes]) -> None:
    parts, rest = from_chunks(chunks)
    assert "".join(parts) + rest == b"".join(chunks).decode("utf-8", "replace")


@given(st.text(max_size=20).filter(lambda text: text.isprintable()))
def test_characters_are_never_split(text: str) -> None:
    parts, rest = from_chunks([bytes([byte]) for byte in text.encode()])
    assert all(len(part) <= 1 for part in parts)
    assert "".join(parts) == text
    assert rest == ""


def test_unfinished_character_waits_and_then_becomes_a_replacement() -> None:
    parts, rest = from_chunks([b"a\xf0\x9f", b"\x98", b"\x80b", b"\xe4\xbd"])
    assert parts == ["a", "", "\U0001f600b", ""]
    assert rest == "\ufffd"


@pytest.mark.parametrize("name", ["gpt-2", "llama-spm"])
@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=30))
def test_streamed_text_is_the_text(name: str, text: str) -> None:
    ids = tokenizer(name).encode(text, add_special=False)
    detokenizer = tokenizer(name).detokenizer(text_start=True)
    assert "".join([detokenizer.append([token_id]) for token_id in ids]) + detokenizer.flush() == text


def test_first_space_of_sentencepiece() -> None:
    llama = tokenizer("llama-spm")
    ids = llama.encode("Hello world")
    assert llama.decode(ids, skip_special=True) == "Hello world"
    assert llama.decode(ids) == "<s> Hello world"
    assert llama.decode(llama.encode("  Hello", add_special=False)) == "  Hello"
    # A reply continues a prompt: its first space separates two words.
    assert llama.detokenizer().append(ids) == " Hello world"
    assert llama.detokenizer(text_start=True).append(ids) == "Hello world"


def test_control_tokens_are_silent_unless_asked_for() -> None:
    gpt2 = tokenizer("gpt-2")
    assert gpt2.detokenizer().append([15496, 50256]) == "Hello"
    assert gpt2.detokenizer(show_special=True).append([15496, 50256]) == "Hello<|endoftext|>"
    assert gpt2.decode([15496, 50256]) == "Hello<|endoftext|>"
    assert gpt2.decode([15496, 50256], skip_special=True) == "Hello"


def test_every_byte_has_its_character() -> None:
    assert [byte_level_bytes(character) for character in BYTE_ALPHABET] == [
        bytes([byte]) for byte in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100), *MOVED)
    ]
    assert byte_level_bytes("\u4f60") == "\u4f60".encode()  # not in the alphabet: stands for itself


MOVED = [*range(0x21), *range(0x7F, 0xA1), 0xAD]


def test_unused_and_malformed_byte_tokens() -> None:
    made = Tokenizer(metadata(["a", "b", "<0xZZ>", "<0x41>"], types=[1, 5, 6, 6]))
    assert [made.token_bytes(token_id) for token_id in range(4)] == [b"a", b"", b"", b"A"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello , world !", "Hello, world!"),
        ("it 's we 've I 'm they 're", "it's we've I'm they're"),
        ("he 'll I 'd ca n't", "he 'll I 'd ca n't"),
        ("rock ' n roll . . .", "rock'n roll..."),
        (" .", "."),
        ("", ""),
    ],
)
def test_clean_up_does_what_llama_cpp_does(text: str, expected: str) -> None:
    assert clean_up_spaces(text) == expected


def test_threads_build_once_and_agree() -> None:
    shared = Tokenizer.from_gguf(vocabulary_path("llama-spm"))
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append(shared.encode("Hello world"))) for _ in range(4)]
    threads.append(threading.Thread(target=shared.prepare))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [tokenizer("llama-spm").encode("Hello world")] * 4
