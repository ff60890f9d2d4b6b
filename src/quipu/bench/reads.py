"""How many bytes one generated token has to read: what the memory bandwidth divides into."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from quipu.gguf import GGUFReader


def weight_bytes_per_token(reader: GGUFReader) -> int:
    """Bytes of weights that one generated token reads: all tensors, but of an untied embedding only one row."""
    total = sum(tensor.num_bytes for tensor in reader.tensors.values())
    embedding = reader.tensors.get("token_embd.weight")
    if embedding is None or "output.weight" not in reader.tensors:
        return total
    return total - embedding.num_bytes + embedding.num_bytes // max(1, math.prod(embedding.shape[1:]))


def cache_bytes_per_position(reader: GGUFReader, key_bytes: int = 2, value_bytes: int = 2) -> int:
    """Bytes of KV cache that every position of the context adds to what a token reads; 0 where the file does not tell.

    Args:
        key_bytes: size of one cached key element, 2 for f16.
        value_bytes: size of one cached value element.
    """
    prefix = f"{reader.metadata.get('general.architecture')}."
    num_layers = _number(reader, f"{prefix}block_count")
    num_heads = _number(reader, f"{prefix}attention.head_count")
    head_length = _number(reader, f"{prefix}embedding_length") // max(num_heads, 1)
    key_length = _number(reader, f"{prefix}attention.key_length", head_length)
    value_length = _number(reader, f"{prefix}attention.value_length", head_length)
    heads: Any = reader.metadata.get(f"{prefix}attention.head_count_kv", num_heads)
    num_kv_heads = sum(map(int, heads)) if isinstance(heads, Iterable) else int(heads) * num_layers
    return num_kv_heads * (key_length * key_bytes + value_length * value_bytes)


def _number(reader: GGUFReader, key: str, default: int = 0) -> int:
    value = reader.metadata.get(key, default)
    if isinstance(value, Iterable):  # one value per layer: the mean is near enough for a share of the bandwidth
        values = [int(item) for item in value if not isinstance(item, str)]
        return round(sum(values) / len(values)) if values else default
    return int(value)
