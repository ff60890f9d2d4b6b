"""bert: BERT, and the sentence encoders and cross-encoders that share its layout."""

from __future__ import annotations

from quipu.errors import ModelFileError
from quipu.gguf import GGUFReader, ModelKeys
from quipu.models.embedding import EmbeddingSpec, read_pooling
from quipu.models.encoder import Encoder, EncoderSpec, load_encoder
from quipu.models.spec import refuse_values, vocab_size
from quipu.models.weights import TensorBook
from quipu.types import Pooling

_NEUTRAL = {
    "attention.causal": (False,),
    "attention.max_alibi_bias": (0.0,),
    "attention.scale": (),
    "attention.sliding_window": (0,),
    "attention.clamp_kqv": (0.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
}


def load(keys: ModelKeys, reader: GGUFReader) -> Encoder:
    """Build a bert model. With `cls.output.weight` it is a cross-encoder, which scores pairs of texts."""
    refuse_values(keys, _NEUTRAL)
    book = TensorBook(reader)
    width = keys.integer("embedding_length", minimum=1)
    num_heads = keys.integer("attention.head_count", minimum=1)
    if width % num_heads:
        raise ModelFileError(f"{keys.path}: {num_heads} heads do not divide {width} values; convert the model again")
    spec = EncoderSpec(
        architecture=keys.architecture,
        vocab_size=vocab_size(keys, reader),
        context_length=keys.integer("context_length", minimum=1),
        embedding_length=width,
        feed_forward_length=keys.integer("feed_forward_length", minimum=1),
        num_layers=keys.integer("block_count", minimum=1, maximum=4096),
        num_heads=num_heads,
        norm_epsilon=keys.number("attention.layer_norm_epsilon", minimum=0.0),
        activation="gelu",
        num_token_types=book.rows("token_types.weight"),
    )
    num_scores = book.rows("cls.output.weight") if "cls.output.weight" in book else 0
    pooling = read_pooling(keys, Pooling.RANK if num_scores else Pooling.MEAN)
    if pooling is Pooling.RANK and not num_scores:
        raise ModelFileError(
            f"{keys.path}: {keys.key('pooling_type')} says that the model ranks, but tensor 'cls.output.weight' is "
            "missing; convert the model again"
        )
    embedding = EmbeddingSpec(
        pooling, width, is_encoder=True, num_scores=num_scores, num_token_types=spec.num_token_types
    )
    return load_encoder(spec, embedding, book)
