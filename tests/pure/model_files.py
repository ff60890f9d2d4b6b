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
EXPERTS, EXPERTS_USED, EXPERT_INNER, SHARED_INNER = 5, 2, 24, 40


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


def tiny_model(
    architecture: str, *, changes: Mapping[str, Any] | None = None, seed: int = 3, experts: bool | None = None
) -> ModelFile:
    """A complete model.

    Args:
        architecture: as in `general.architecture`.
        changes: metadata keys relative to the architecture; None leaves the key out.
        experts: whether it has experts; None: as the architecture's name says.
    """
    if experts is None:
        experts = architecture.endswith("moe")
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
    }
    if experts:
        keys |= {"expert_count": EXPERTS, "expert_used_count": EXPERTS_USED}
    expert_inner = INNER
    if architecture.endswith("moe"):
        expert_inner = EXPERT_INNER
        keys |= {"expert_feed_forward_length": EXPERT_INNER, "expert_shared_feed_forward_length": SHARED_INNER}
    keys |= changes or {}
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
        }
        if experts:
            block |= {
                "ffn_gate_inp.weight": matrix(EXPERTS, WIDTH),
                "ffn_gate_exps.weight": np.stack([matrix(expert_inner, WIDTH) for _ in range(EXPERTS)]),
                "ffn_up_exps.weight": np.stack([matrix(expert_inner, WIDTH) for _ in range(EXPERTS)]),
                "ffn_down_exps.weight": np.stack([matrix(WIDTH, expert_inner) for _ in range(EXPERTS)]),
            }
        else:
            block |= {
                "ffn_gate.weight": matrix(INNER, WIDTH),
                "ffn_up.weight": matrix(INNER, WIDTH),
                "ffn_down.weight": matrix(WIDTH, INNER),
            }
        if architecture == "qwen2moe":
            block |= {
                "ffn_gate_inp_shexp.weight": vector(WIDTH),
                "ffn_gate_shexp.weight": matrix(SHARED_INNER, WIDTH),
                "ffn_up_shexp.weight": matrix(SHARED_INNER, WIDTH),
                "ffn_down_shexp.weight": matrix(WIDTH, SHARED_INNER),
            }
        if architecture in ("qwen2", "qwen2moe"):
            rows = {"q": HEADS * HEAD_LENGTH, "k": KV_HEADS * HEAD_LENGTH, "v": KV_HEADS * HEAD_LENGTH}
            block |= {f"attn_{part}.bias": vector(length) for part, length in rows.items()}
        if architecture in ("qwen3", "qwen3moe"):
            block |= {f"attn_{part}_norm.weight": vector(HEAD_LENGTH) for part in "qk"}
        tensors |= {f"blk.{layer}.{name}": array for name, array in block.items()}
    metadata = {"general.architecture": architecture}
    metadata |= {f"{architecture}.{name}": value for name, value in keys.items() if value is not None}
    return ModelFile(metadata, tensors)
