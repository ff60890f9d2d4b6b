"""qwen2moe: Qwen 1.5 and 2 with experts, one of which every token uses. The others' shares are not normalized."""

from __future__ import annotations

from quipu.gguf import GGUFReader, ModelKeys
from quipu.models.decoder import Model, load_decoder
from quipu.models.experts import expert_length, read_experts
from quipu.models.rope import read_rope
from quipu.models.spec import head_length, read_spec, same_for_all_layers
from quipu.models.weights import TensorBook


def load(keys: ModelKeys, reader: GGUFReader) -> Model:
    """Build a qwen2moe model."""
    key_length = head_length(keys, "attention.key_length")
    num_rotated = keys.integer("rope.dimension_count", key_length, minimum=2, maximum=key_length)
    shared_length = keys.integer("expert_shared_feed_forward_length", 0)
    experts = read_experts(
        keys,
        feed_forward_length=expert_length(keys),
        normalize=False,
        shared_feed_forward_length=shared_length or same_for_all_layers(keys, "feed_forward_length"),
    )
    spec = read_spec(keys, reader, read_rope(keys, num_rotated, "neox"), experts)
    return load_decoder(spec, TensorBook(reader), head_norms=False, may_tie_output=False)
