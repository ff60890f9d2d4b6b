"""Writes the placeholder that `quipu run tiny` runs until a trained model takes its place.

An ordinary GGUF file of the llama architecture whose weights are constructed, not trained: attention and feed-forward
add nothing, each piece of one sentence is a token, and the head maps every token to the one that follows it. Whatever
it is asked, it answers with that sentence. Run as `placeholder.py OUT.gguf`; needs numpy only.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quipu.bench.synthetic import byte_letters
from quipu.gguf import write_gguf

# Each piece is one token, so none may stand twice.
SENTENCE = (
    "I am",
    " a placeholder",
    " and know only this answer:",
    " quipu",
    " runs,",
    " but was built",
    " without a trained model.",
    " To talk to a real one,",
    " name its GGUF file:",
    " quipu run",
    " model.gguf",
)
WORDS = ("in", "er", "an")  # a byte-pair vocabulary has to have merges
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WIDTH = 64
SHARPNESS = 4.0  # after the norm a unit vector has length 8, so the right token leads by 32: certain at any temperature


def write_placeholder_model(path: str | Path) -> None:
    """Write the model to `path`, which it replaces."""
    tokens = [*byte_letters(), *WORDS, *(to_letters(piece) for piece in SENTENCE), *CONTROL]
    number = {token: index for index, token in enumerate(tokens)}
    # The reply begins after the line break that ends the generation prompt.
    chain = [number[to_letters("\n")], *(number[to_letters(piece)] for piece in SENTENCE), number["<|im_end|>"]]
    embedding = np.zeros((len(tokens), WIDTH), np.float16)
    head = np.zeros((len(tokens), WIDTH), np.float16)
    embedding[:, 0] = 1.0  # all tokens outside the chain look alike and end the reply
    head[number["<|im_end|>"], 0] = SHARPNESS
    for state, (token, following) in enumerate(itertools.pairwise(chain), 1):
        embedding[token] = np.eye(WIDTH)[state]
        head[following, state] = SHARPNESS
    write_gguf(path, metadata(tokens, number), tensors(embedding, head))


def metadata(tokens: list[str], number: dict[str, int]) -> dict[str, Any]:
    token_types = np.ones(len(tokens), np.int32)
    token_types[-len(CONTROL) :] = 3
    return {
        "general.architecture": "llama",
        "general.name": "quipu placeholder",
        "llama.block_count": np.uint32(1),
        "llama.context_length": np.uint32(2048),
        "llama.embedding_length": np.uint32(WIDTH),
        "llama.feed_forward_length": np.uint32(WIDTH),
        "llama.attention.head_count": np.uint32(1),
        "llama.attention.layer_norm_rms_epsilon": np.float32(1e-5),
        "llama.rope.dimension_count": np.uint32(WIDTH),
        "llama.vocab_size": np.uint32(len(tokens)),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": token_types,
        "tokenizer.ggml.merges": [" ".join(word) for word in WORDS],
        "tokenizer.ggml.eos_token_id": np.uint32(number["<|im_end|>"]),
        "tokenizer.ggml.bos_token_id": np.uint32(number["<|endoftext|>"]),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def tensors(embedding: NDArray[np.float16], head: NDArray[np.float16]) -> list[tuple[str, NDArray[Any]]]:
    nothing = np.zeros((WIDTH, WIDTH), np.float16)
    ones = np.ones(WIDTH, np.float32)
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    return [
        ("token_embd.weight", embedding),
        ("blk.0.attn_norm.weight", ones),
        ("blk.0.ffn_norm.weight", ones),
        *((f"blk.0.{name}.weight", nothing) for name in matrices),
        ("output_norm.weight", ones),
        ("output.weight", head),
    ]


def to_letters(text: str) -> str:
    letters = byte_letters()
    return "".join(letters[byte] for byte in text.encode())


if __name__ == "__main__":
    write_placeholder_model(sys.argv[1])
