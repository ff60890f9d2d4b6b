"""How many bytes one generated token has to read: what the memory bandwidth divides into."""

from __future__ import annotations

import math

from quipu.gguf import GGUFReader, ModelKeys


def weight_bytes_per_token(reader: GGUFReader) -> int:
    """Bytes of weights that one generated token reads: all tensors, but of an untied embedding only one row, and of
    experts only those that a token uses.

    Raises:
        ModelFileError: a key of the model has the wrong kind of value.
    """
    total = sum(tensor.num_bytes for tensor in reader.tensors.values())
    expert_bytes = sum(tensor.num_bytes for name, tensor in reader.tensors.items() if name.endswith("_exps.weight"))
    if expert_bytes:
        keys = ModelKeys(reader.metadata, path=reader.path)
        num_experts = keys.integer("expert_count", minimum=1)
        num_used = keys.integer("expert_used_count", num_experts, maximum=num_experts)
        total -= expert_bytes - expert_bytes * num_used // num_experts
    embedding = reader.tensors.get("token_embd.weight")
    if embedding is None or "output.weight" not in reader.tensors:
        return total
    return total - embedding.num_bytes + embedding.num_bytes // max(1, math.prod(embedding.shape[1:]))


def cache_bytes_per_position(reader: GGUFReader, key_bytes: int = 2, value_bytes: int = 2) -> int:
    """Bytes of KV cache that every position of the context adds to what a token reads; 0 where the file does not tell.

    Args:
        key_bytes: size of one cached key element, 2 for f16.
        value_bytes: size of one cached value element.

    Raises:
        ModelFileError: a key of the model has the wrong kind of value.
    """
    keys = ModelKeys(reader.metadata, path=reader.path)
    num_layers = keys.integer("block_count", 0)
    num_heads = keys.integers("attention.head_count", num_layers, ())
    num_kv_heads = sum(keys.integers("attention.head_count_kv", num_layers, num_heads))
    head_length = keys.integer("embedding_length", 0) // max([1, *num_heads])
    key_length = keys.integer("attention.key_length", head_length)
    value_length = keys.integer("attention.value_length", head_length)
    return num_kv_heads * (key_length * key_bytes + value_length * value_bytes)
