"""qwen3: dense Qwen 3, whose queries and keys are normalized per head before they rotate."""

from __future__ import annotations

from quipu.gguf import GGUFReader, ModelKeys
from quipu.models.decoder import Model, load_decoder
from quipu.models.rope import read_rope
from quipu.models.spec import head_length, read_spec
from quipu.models.weights import TensorBook


def load(keys: ModelKeys, reader: GGUFReader) -> Model:
    """Build a qwen3 model."""
    key_length = head_length(keys, "attention.key_length")
    num_rotated = keys.integer("rope.dimension_count", key_length, minimum=2, maximum=key_length)
    spec = read_spec(keys, reader, read_rope(keys, num_rotated, "neox"))
    return load_decoder(spec, TensorBook(reader), head_norms=True)
