"""Tiny random models for tests: metadata and tensors that can be changed one by one before the file is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quipu.gguf import GGMLType, write_gguf

VOCAB, WIDTH, INNER, HEADS, KV_HEADS, HEAD_LENGTH, LAYERS = 40, 32, 48, 4, 2, 8, 2


@dataclass
class ModelFile:
    """What goes into the file.

    Attributes:
        metadata: key to value.
        tensors: name to float32 array in numpy order (rows, columns).
        raw: name to (shape in GGUF order, type, bytes), for tensors of other types.
    """

    metadata: dict[str, Any]
    tensors: dict[str, NDArray[np.float32]]
    raw: dict[str, tuple[tuple[int, ...], GGMLType, NDArray[np.uint8]]] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        path = folder / "model.gguf"
        stored: list[Any] = list(self.tensors.items())
        stored += [(name, *parts) for name, parts in self.raw.items()]
        write_gguf(path, self.metadata, stored)
        return path


def tiny_model(architecture: str, *, changes: Mapping[str, Any] | None = None, seed: int = 3) -> ModelFile:
    """A complete model; `changes` are metadata keys relative to the architecture, None leaves the key out."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return (rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    def vector(length: int) -> NDArray[np.float32]:
        return rng.uniform(0.5, 1.5, length).astype(np.float32)

    keys: dict[str, Any] = {
        "block_count": LAYERS,
        "context_length": 128,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        **(changes or {}),
    }
    tensors = {"token_embd.weight": matrix(VOCAB, WIDTH), "output_norm.weight": vector(WIDTH)}
    tensors["output.weight"] = matrix(VOCAB, WIDTH)
    for layer in range(LAYERS):
        block = {
            "attn_norm.weight": vector(WIDTH),
            "attn_q.weight": matrix(HEADS * HEAD_LENGTH, WIDTH),
            "attn_k.weight": matrix(KV_HEADS * HEAD_LENGTH, WIDTH),
            "attn_v.weight": matrix(KV_HEADS * HEAD_LENGTH, WIDTH),
            "attn_output.weight": matrix(WIDTH, HEADS * HEAD_LENGTH),
            "ffn_norm.weight": vector(WIDTH),
            "ffn_gate.weight": matrix(INNER, WIDTH),
            "ffn_up.weight": matrix(INNER, WIDTH),
            "ffn_down.weight": matrix(WIDTH, INNER),
        }
        if architecture == "qwen2":
            rows = {"q": HEADS * HEAD_LENGTH, "k": KV_HEADS * HEAD_LENGTH, "v": KV_HEADS * HEAD_LENGTH}
            block |= {f"attn_{part}.bias": vector(length) for part, length in rows.items()}
        if architecture == "qwen3":
            block |= {f"attn_{part}_norm.weight": vector(HEAD_LENGTH) for part in "qk"}
        tensors |= {f"blk.{layer}.{name}": array for name, array in block.items()}
    metadata = {"general.architecture": architecture}
    metadata |= {f"{architecture}.{name}": value for name, value in keys.items() if value is not None}
    return ModelFile(metadata, tensors)
