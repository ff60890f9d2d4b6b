"""The cut before merging: every name of the format, and what the single rules do."""

from __future__ import annotations

import pytest
from tokenizer_data import BYTE_ALPHABET, DATA, metadata, tokenizer
from tokenizers import pre_tokenizers

from quipu.errors import TokenizerError
from quipu.tokenizer import Tokenizer
from quipu.tokenizer.pipeline import split
from quipu.tokenizer.pretokenizers import PRE_TOKENIZERS, find_pre_tokenizer

# Every value of tokenizer.ggml.pre that the format knows.
NAMES = (DATA / "pre_tokenizers.txt").read_text().split()


def pieces(name: str, text: str) -> list[str]:
    """The pieces into which the rule of a name cuts a text."""
    rule = pre_tokenizers.Sequence([split(expression) for expression in find_pre_tokenizer(name).expressions])
    return [piece for piece, _ in rule.pre_tokenize_str(text)]


def test_every_name_is_known() -> None:
    assert sorted(PRE_TOKENIZERS) == sorted(NAMES)


def test_unknown_name_is_refused_by_name() -> None:
    with pytest.raises(TokenizerError, match="'my-new-bpe'"):
        find_pre_tokenizer("my-new-bpe")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "whitespace"])
def test_no_character_is_lost(name: str) -> None:
    text = "Hello, W\u00f6rld's  12345\r\n\n\t\u4f60\u597d\u3053\u3093 \uc548\ub155 \u0e01\u0e33 e\u0301 DON'T x+=1;  "
    assert "".join(pieces(name, text)) == text


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gpt-2", "don't  DON'T 123", ["don", "'t", " ", " DON", "'", "T", " 123"]),
        ("llama3", "DON'T 1234\n\n x  y", ["DON", "'T", " ", "123", "4", "\n\n", " x", " ", " y"]),
        ("qwen2", "a 12\r\n!\n", ["a", " ", "1", "2", "\r\n", "!\n"]),
        ("qwen35", "e\u0301a 1", ["e\u0301a", " ", "1"]),
        ("smollm", "x 12 y", ["x", " ", "1", "2", " y"]),
        ("gpt-4o", "camelCase HTMLText's", ["camel", "Case", " HTMLText's"]),
        ("tekken", "camelCase \u00c9COLE 12", ["camel", "Case", " \u00c9COLE", " ", "1", "2"]),
        ("deepseek-llm", "a1234 \u4f60b\n", ["a", "1234", " ", "\u4f60", "b", "\n"]),
        ("deepseek-coder", "x=12\n", ["x", "=", "1", "2", "\n"]),
        ("deepseek-v3", "1234 _name \u4f60\u597dx", ["123", "4", " _", "name", " ", "\u4f60\u597d", "x"]),
        ("falcon", "a+1234", ["a", "+", "123", "4"]),
        ("bloom", "ab cd, e", ["ab", " cd", ",", " e"]),
        ("viking", "ab 12", ["ab", " ", "1", "2"]),
        ("chameleon", "a!!IMGIMGABZ", ["a", "!", "!", "IMGIMGABZ"]),
        ("kimi-k2", "\u4f60\u597dabc 1234", ["\u4f60\u597d", "abc", " ", "123", "4"]),
        ("superbpe", "x 1234567 y", ["x ", "1", "234", "567", " y"]),
        ("afmoe", "x1234567y", ["x", "1", "234", "567", "y"]),
        ("tiny_aya", "1234567 y", ["1", "234", "567", " y"]),
        ("bailingmoe", "I'll \nx", ["I", "'ll", " \n", "x"]),
        ("exaone-moe", "ab cd 1", ["ab cd", " ", "1"]),
        ("laguna", "a\n\nb", ["a", "\n\n", "b"]),
        ("gemma4", "a b\n\nc", ["a b", "\n\n", "c"]),
        ("jais-2", "a" + " " * 9 + "b", ["a", " " * 8, " b"]),
        ("minicpm5", "ab1234", ["ab", "123", "4"]),
        ("ufakzeka", "Ali'nin", ["Ali", "'nin"]),
    ],
)
def test_rules(name: str, text: str, expected: list[str]) -> None:
    assert pieces(name, text) == expected


@pytest.mark.parametrize("name", ["superbpe", "afmoe", "tiny_aya"])
def test_digits_are_grouped_from_the_right_up_to_three_hundred(name: str) -> None:
    for count in range(1, 300, 7):
        lengths = [len(piece) for piece in pieces(name, "7" * count)]
        assert sum(lengths) == count
        assert lengths[0] == (count % 3 or 3)
        assert set(lengths[1:]) <= {3}


def test_rules_without_byte_alphabet() -> None:
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = [*byte_tokens, "\u2581", "a", "b", "\n", "ab", "\u2581ab", "\n\n", "<bos>"]
    keys = {
        "types": [6] * 256 + [1] * 7 + [3],
        "merges": ["a b", "\u2581 ab", "\n \n"],
        "bos_token_id": 263,
        "pre": None,
    }
    gemma = Tokenizer(metadata(tokens, **keys) | {"tokenizer.ggml.model": "gemma4"})
    assert gemma.encode("ab ab\n\n\u00e9") == [263, 260, 261, 262, 0xC3, 0xA9]
    assert gemma.decode([260, 261, 262, 0xC3, 0xA9]) == "ab ab\n\n\u00e9"
    wrong = Tokenizer(metadata(tokens, **keys, add_bos_token=False) | {"tokenizer.ggml.model": "gemma4"})
    assert wrong.encode("a")[0] == 263
    assert "Gemma 4" in wrong.warnings[0]


def test_white_space_rule_drops_white_space() -> None:
    tokens = ["a", "b", "A", "ab"]
    made = Tokenizer(metadata(tokens, pre="whitespace", merges=["a b"]))
    assert made.encode("ab\n a  A", add_special=False) == [3, 0, 2]
    lower = Tokenizer(metadata(tokens, pre="gpt-2", merges=["a b"]) | {"tokenizer.ggml.model": "whitespace"})
    assert lower.model == "whitespace"


def test_whole_words_before_merges() -> None:
    tokens = [*BYTE_ALPHABET, "ab", "abc"]
    assert Tokenizer(metadata(tokens, merges=["a b"])).encode("abc") == [256, BYTE_ALPHABET.index("c")]
    made = Tokenizer(metadata(tokens, merges=["a b"], pre="llama3", add_bos_token=False))
    assert made.encode("abc") == [257]


def test_wordpiece_normalizer_switches() -> None:
    tokens = ["[UNK]", "\u2581caf\u00e9", "\u2581cafe", "\u2581Cafe", "[CLS]", "[SEP]"]
    keys = {
        "model": "bert",
        "types": [2, 1, 1, 1, 3, 3],
        "unknown_token_id": 0,
        "cls_token_id": 4,
        "seperator_token_id": 5,
        "padding_token_id": 0,
        "mask_token_id": 0,
    }
    for switches, expected in (
        ({}, 2),
        ({"normalizer.lowercase": True, "normalizer.strip_accents": False}, 1),
        ({"normalizer.lowercase": False, "normalizer.strip_accents": True}, 3),
        ({"normalizer.lowercase": False}, 0),
    ):
        made = Tokenizer(metadata(tokens, **keys) | {f"tokenizer.ggml.{name}": on for name, on in switches.items()})
        assert made.encode("Caf\u00e9") == [4, expected, 5]


def test_real_wordpiece_gives_up_on_long_words() -> None:
    bert = tokenizer("bert-bge")
    assert bert.encode("a" * 100, add_special=False) != [100]
    assert bert.encode("a" * 101, add_special=False) == [100]
