"""The byte-pair vocabulary of the embedded models, learned from the corpus, as metadata of a GGUF file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from quipu.gguf import write_gguf
from quipu.tokenizer import Tokenizer
from quipu.tokenizer.pretokenizers import find_pre_tokenizer
from tiny.corpus.mixture import stream
from tiny.rendering import CONTROL_TOKENS, END_OF_TEXT, END_OF_TURN, MARKS, TEMPLATE, Renderer

VOCAB_SIZE = 4096
PRE_TOKENIZER = "qwen2"
NUM_TEXTS = 60_000
# Longer tokens would be whole phrases of the corpus, which another wording then spells differently.
MAX_TOKEN_LENGTH = 15
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


def learn_vocabulary(seed: int) -> dict[str, Any]:
    """The `tokenizer.*` metadata of a vocabulary learned from the first texts of the corpus."""
    words = tokenizers.Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(e), "isolated") for e in find_pre_tokenizer(PRE_TOKENIZER).expressions),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(CONTROL_TOKENS) - len(MARKS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=MAX_TOKEN_LENGTH,
        show_progress=False,
    )
    words.train_from_iterator(_texts(seed), trainer)
    return _metadata(json.loads(words.to_str())["model"])


def _texts(seed: int) -> Iterator[str]:
    renderer = Renderer()
    special = [*CONTROL_TOKENS, *MARKS]
    for item in itertools.islice(stream(seed), NUM_TEXTS):
        text = "".join(part for part, _ in renderer.segments(item))
        for token in special:
            text = text.replace(token, "\n")
        yield text


def _metadata(model: dict[str, Any]) -> dict[str, Any]:
    tokens = [*sorted(model["vocab"], key=model["vocab"].__getitem__), *CONTROL_TOKENS, *MARKS]
    types = [NORMAL] * len(model["vocab"]) + [CONTROL] * len(CONTROL_TOKENS) + [USER_DEFINED] * len(MARKS)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": PRE_TOKENIZER,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.eos_token_id": np.uint32(tokens.index(END_OF_TURN)),
        "tokenizer.ggml.bos_token_id": np.uint32(tokens.index(END_OF_TEXT)),
        "tokenizer.ggml.padding_token_id": np.uint32(tokens.index(END_OF_TEXT)),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def write_vocabulary(path: Path, seed: int) -> None:
    """A GGUF file that holds the vocabulary and no weights."""
    write_gguf(path, {"general.architecture": "qwen3", "general.name": "tiny vocabulary", **learn_vocabulary(seed)}, [])


def open_vocabulary(path: Path) -> Tokenizer:
    return Tokenizer.from_gguf(path)
