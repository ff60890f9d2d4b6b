"""A tiny llama with random weights and a real (if small) vocabulary, written through our own writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from quipu.gguf import GGMLType, write_gguf

BOS, EOS = 1, 2
NUM_BYTE_TOKENS = 256
WORDS = [
    "\u2581",
    *"abcdefghijklmnopqrstuvwxyz",
    "\u2581the",
    "\u2581a",
    "th",
    "he",
    "in",
    "er",
    "an",
    "<think>",
    "<|turn|>",
]
THINK = 3 + NUM_BYTE_TOKENS + WORDS.index("<think>")
TURN = 3 + NUM_BYTE_TOKENS + WORDS.index("<|turn|>")
WIDTH, NUM_HEADS, NUM_KV_HEADS, FEED_FORWARD, NUM_LAYERS, CONTEXT = 64, 4, 2, 96, 2, 256
VOCAB = 3 + NUM_BYTE_TOKENS + len(WORDS)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn|>{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant: {% endif %}"
)


def vocabulary() -> dict[str, Any]:
    """Metadata of a SentencePiece-like vocabulary with bytes, letters and a few words."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(NUM_BYTE_TOKENS)), *WORDS]
    types = [2, 3, 3, *[6] * NUM_BYTE_TOKENS, *[1] * (len(WORDS) - 2), 3, 3]
    scores = [0.0] * (3 + NUM_BYTE_TOKENS) + [-float(rank) for rank in range(len(WORDS))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array(scores, dtype=np.float32),
        "tokenizer.ggml.token_type": np.array(types, dtype=np.int32),
        "tokenizer.ggml.bos_token_id": np.uint32(BOS),
        "tokenizer.ggml.eos_token_id": np.uint32(EOS),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": TEMPLATE,
    }


def write_text_model(path: Path, *, metadata: dict[str, Any] | None = None, nan: bool = False) -> Path:
    """Write the model.

    Args:
        metadata: instead of the vocabulary.
        nan: the last norm holds a NaN, so that every logit does.
    """
    rng = np.random.default_rng(0)
    head = WIDTH // NUM_HEADS
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, WIDTH), "output.weight": (VOCAB, WIDTH)}
    norms = ["output_norm.weight"]
    for layer in range(NUM_LAYERS):
        name = f"blk.{layer}"
        norms += [f"{name}.attn_norm.weight", f"{name}.ffn_norm.weight"]
        shapes |= {
            f"{name}.attn_q.weight": (WIDTH, WIDTH),
            f"{name}.attn_k.weight": (NUM_KV_HEADS * head, WIDTH),
            f"{name}.attn_v.weight": (NUM_KV_HEADS * head, WIDTH),
            f"{name}.attn_output.weight": (WIDTH, WIDTH),
            f"{name}.ffn_gate.weight": (FEED_FORWARD, WIDTH),
            f"{name}.ffn_up.weight": (FEED_FORWARD, WIDTH),
            f"{name}.ffn_down.weight": (WIDTH, FEED_FORWARD),
        }
    arrays = {name: rng.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()}
    arrays |= {name: np.ones(WIDTH, dtype=np.float32) for name in norms}
    if nan:
        arrays["output_norm.weight"][3] = np.nan
    write_gguf(
        path,
        {
            "general.architecture": "llama",
            "llama.context_length": np.uint32(CONTEXT),
            "llama.embedding_length": np.uint32(WIDTH),
            "llama.block_count": np.uint32(NUM_LAYERS),
            "llama.feed_forward_length": np.uint32(FEED_FORWARD),
            "llama.attention.head_count": np.uint32(NUM_HEADS),
            "llama.attention.head_count_kv": np.uint32(NUM_KV_HEADS),
            "llama.attention.layer_norm_rms_epsilon": np.float32(1e-5),
            **(vocabulary() if metadata is None else metadata),
        },
        [(name, array.shape[::-1], GGMLType.F32, array.view(np.uint8).reshape(-1)) for name, array in arrays.items()],
    )
    return path
