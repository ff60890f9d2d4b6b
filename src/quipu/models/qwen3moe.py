"""qwen3moe: Qwen 3 with experts, such as Qwen3-30B-A3B."""

from __future__ import annotations

from quipu.gguf import GGUFReader, ModelKeys
from quipu.models.decoder import Model, load_decoder
from quipu.models.experts import expert_length, read_experts
from quipu.models.rope import read_rope
from quipu.models.spec import head_length, read_spec
from quipu.models.weights import TensorBook


def load(keys: ModelKeys, reader: GGUFReader) -> Model:
    """Build a qwen3moe model."""
    key_length = head_length(keys, "attention.key_length")
    num_rotated = keys.integer("rope.dimension_count", key_length, minimum=2, maximum=key_length)
    experts = read_experts(keys, feed_forward_length=expert_length(keys), normalize=True)
    spec = read_spec(keys, reader, read_rope(keys, num_rotated, "neox"), experts)
    return load_decoder(spec, TensorBook(reader), head_norms=True)
