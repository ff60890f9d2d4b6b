"""Special tokens: which there are, when text is searched for them, and what ends a generation."""

from __future__ import annotations

import pytest
from tokenizer_data import BYTE_ALPHABET, metadata, tokenizer

from quipu.errors import TokenizerError
from quipu.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER, UNUSED = 1, 2, 3, 4, 5


def byte_level(extra: dict[str, int], **keys: object) -> Tokenizer:
    """A vocabulary of the 256 bytes and some further tokens with their types."""
    types = [NORMAL] * 256 + list(extra.values())
    return Tokenizer(metadata([*BYTE_ALPHABET, *extra], types=types, **keys))


def test_control_tokens_only_where_they_are_parsed() -> None:
    made = byte_level({"<|im_start|>": CONTROL, "<|im_end|>": CONTROL})
    assert made.encode("<|im_start|>a", parse_special=True)[0] == 256
    assert not {256, 257} & set(made.encode("<|im_start|>a<|im_end|>"))
    assert made.decode(made.encode("<|im_start|>a<|im_end|>")) == "<|im_start|>a<|im_end|>"


def test_unknown_type_counts_as_control_and_user_defined_is_always_found() -> None:
    made = byte_level({"[PAD7]": UNKNOWN, "<tool>": USER})
    assert made.encode("[PAD7]", parse_special=True) == [256]
    assert 256 not in made.encode("[PAD7]")
    assert made.encode("a <tool>b") == [64, 220, 257, 65]


def test_merges_and_whole_words_never_make_a_control_token() -> None:
    tokens = ["a", "b", "ab", "aba"]
    keys = {"types": [NORMAL, NORMAL, CONTROL, NORMAL], "merges": ["a b", "b a"]}
    with pytest.raises(TokenizerError, match=r"merges\[1\]"):
        Tokenizer(metadata(tokens, **keys)).prepare()
    keys["merges"] = ["a b"]
    assert Tokenizer(metadata(tokens, **keys)).encode("ab") == [0, 1]
    whole = Tokenizer(metadata(tokens, **keys | {"pre": "llama3", "add_bos_token": False}))
    assert whole.encode("ab") == [0, 1]
    assert whole.encode("aba") == [3]
    assert whole.encode("ab", parse_special=True) == [2]


def test_longest_of_overlapping_tokens() -> None:
    made = byte_level({"<a>": CONTROL, "<a><b>": CONTROL, "<b>": USER})
    assert made.encode("<a><b><a>", parse_special=True) == [257, 256]
    assert made.encode("x<b>") == [BYTE_ALPHABET.index("x"), 258]


def test_white_space_around_special_tokens_is_kept() -> None:
    made = byte_level({"<s>": CONTROL})
    assert made.decode(made.encode(" a <s> b ", parse_special=True)) == " a <s> b "


def test_models_whose_special_tokens_swallow_white_space() -> None:
    phi = metadata([*BYTE_ALPHABET, "<|user|>", "<|endoftext|>"], types=[NORMAL] * 256 + [CONTROL] * 2)
    made = Tokenizer(phi | {"general.name": "Phi-3 Mini"})
    assert (
        made.decode(made.encode("<|user|> \n hi <|endoftext|> x", parse_special=True)) == "<|user|>hi <|endoftext|> x"
    )
    jina = metadata([*BYTE_ALPHABET, "<mask>"], types=[NORMAL] * 256 + [CONTROL], pre="jina-v2-de")
    assert Tokenizer(jina).encode("a  <mask> b", parse_special=True)[:2] == [64, 256]


def test_sentencepiece_puts_a_space_after_every_special_token() -> None:
    tokens = ["<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a", "<tag>"]
    made = Tokenizer(
        metadata(tokens, model="llama", types=[2, 3, 3, 1, 1, 1, 4], scores=[0.0, 0.0, 0.0, -3.0, -2.0, -1.0, 0.0])
    )
    assert made.encode("a<tag>a</s> a", parse_special=True) == [1, 5, 6, 5, 2, 3, 5]
    assert made.encode("") == [1]


@pytest.mark.parametrize(
    ("texts", "ends"),
    [
        (("<|im_end|>", "<|endoftext|>", "<|fim_pad|>"), {256, 257, 258}),
        (("<|eot_id|>", "<|eom_id|>", "<|start_header_id|>"), {256, 257}),
        (("<|return|>", "<|call|>", "<|end|>"), {256, 257}),  # gpt-oss: <|end|> closes one message of several
        (("<|flush|>", "<|calls|>", "<|end|>"), {256, 257}),
        (("<|tool_response>", "<turn|>", "</s>"), {256, 257}),  # Gemma 4: </s> is an ordinary token
        (("<end_of_turn>", "<start_of_turn>"), {256}),
        (("[EOT]", "[EOS]", "[PAD]"), {256, 257, 258}),
        (("<\uff5cend\u2581of\u2581sentence\uff5c>", "<|file_sep|>", "<|repo_name|>"), {256, 257, 258}),
    ],
)
def test_texts_that_end_a_generation(texts: tuple[str, ...], ends: set[int]) -> None:
    assert byte_level(dict.fromkeys(texts, CONTROL)).end_of_generation_ids == ends


def test_declared_ids_end_a_generation() -> None:
    made = byte_level({"<stop>": CONTROL, "<other>": CONTROL}, eos_token_id=256, eot_token_id=257)
    assert made.end_of_generation_ids == {256, 257}
    assert (made.eos_token_id, made.eos_token) == (256, "<stop>")
    assert (made.bos_token_id, made.bos_token) == (None, "")


def test_html_tag_is_text_unless_the_model_says_otherwise() -> None:
    assert byte_level({"</s>": NORMAL}).end_of_generation_ids == frozenset()
    assert byte_level({"</s>": NORMAL}, eos_token_id=256).end_of_generation_ids == {256}
    assert byte_level({"</s>": CONTROL}).end_of_generation_ids == {256}


def test_turn_ends_marked_as_text_are_made_control_tokens() -> None:
    made = byte_level({"<|im_end|>": USER, "<|fim_prefix|>": NORMAL})
    assert 256 not in made.encode("<|im_end|>")
    assert made.encode("<|im_end|>", parse_special=True) == [256]
    assert made.special_tokens.fim_prefix == 257
    assert made.special_tokens.eot == 256


def test_fill_in_the_middle_ids() -> None:
    found = byte_level({"<PRE>": CONTROL, "<SUF>": CONTROL, "<MID>": CONTROL, "<x>": CONTROL}, prefix_token_id=259)
    assert (found.special_tokens.fim_prefix, found.special_tokens.fim_suffix) == (259, 257)
    assert found.special_tokens.fim_middle == 258


def test_channel_markers_are_shown_but_not_found_in_plain_text() -> None:
    made = byte_level({"<|channel|>": CONTROL, "<|return|>": CONTROL, "<|call|>": CONTROL, "<|end|>": CONTROL})
    detokenizer = made.detokenizer()
    assert detokenizer.append([256, 64, 259, 257]) == "<|channel|>a<|end|>"
    assert 256 not in made.encode("<|channel|>")


def test_real_files() -> None:
    assert tokenizer("gpt-2").end_of_generation_ids == {50256}
    assert tokenizer("llama-spm").end_of_generation_ids == {2}
    assert tokenizer("bert-bge").special_tokens.separator == 102
    assert (tokenizer("bert-bge").bos_token, tokenizer("bert-bge").special_tokens.mask) == ("[CLS]", 103)
