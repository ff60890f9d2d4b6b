"""llama: Llama 1 to 3, Mistral, Mixtral and what shares their layout. Neighbouring dimensions form a rotary pair."""

from __future__ import annotations

from quipu.errors import UnsupportedModelError
from quipu.gguf import GGUFReader, ModelKeys
from quipu.models.decoder import Model, load_decoder
from quipu.models.experts import read_experts
from quipu.models.rope import read_rope
from quipu.models.spec import head_length, read_spec, same_for_all_layers
from quipu.models.weights import TensorBook


def load(keys: ModelKeys, reader: GGUFReader) -> Model:
    """Build a llama model. `rope_freqs.weight`, where present, carries Llama 3's frequency factors.

    With experts it is a Mixtral, whose softmax over the chosen experts equals normalized shares of one over all.
    """
    book = TensorBook(reader)
    key_length = head_length(keys, "attention.key_length")
    num_rotated = keys.integer("rope.dimension_count", key_length, minimum=2)
    if num_rotated != key_length:
        raise UnsupportedModelError(
            f"{keys.path}: llama heads of {key_length} with {num_rotated} rotated dimensions are not supported; "
            "convert the model again"
        )
    rope = read_rope(keys, num_rotated, "norm", book.floats("rope_freqs.weight"))
    experts = None
    if keys.integer("expert_count", 0):
        inner = same_for_all_layers(keys, "feed_forward_length")
        experts = read_experts(keys, feed_forward_length=inner, normalize=True)
    return load_decoder(read_spec(keys, reader, rope, experts), book, head_norms=False)
