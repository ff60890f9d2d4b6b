"""Pairs of texts as cross-encoders read them, beside the post-processors of the `tokenizers` package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import processors

from quipu.errors import TokenizerError
from quipu.tokenizer import Tokenizer

TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "\u2581a", "\u2581b", "\u2581c"]


def unigram(**keys: Any) -> Tokenizer:
    """A vocabulary like XLM-RoBERTa's."""
    metadata = {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.scores": np.zeros(len(TOKENS), np.float32),
        "tokenizer.ggml.token_type": np.array([3, 3, 3, 2, 1, 1, 1], np.int32),
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.eos_token_id": 2,
        **{f"tokenizer.ggml.{key}": value for key, value in keys.items()},
    }
    return Tokenizer(metadata)


def test_xlm_roberta() -> None:
    ids, types = unigram(bos_token_id=0).join_pair([4, 5], [6])
    template = processors.TemplateProcessing(  # as published in its tokenizer.json
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    assert template.num_special_tokens_to_add(True) == len(ids) - 3
    assert ids == [0, 4, 5, 2, 2, 6, 2]
    assert types == [0] * 7


def test_a_vocabulary_without_a_beginning() -> None:
    with pytest.raises(TokenizerError, match="'t5'"):
        unigram().join_pair([4], [5])
