"""The hyper-parameters of a decoder, read from metadata and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quipu.backends.program import KVSpec, RopeParams
from quipu.errors import ModelFileError, UnsupportedModelError
from quipu.gguf import GGMLType, GGUFReader, ModelKeys, StringArray
from quipu.gguf.metadata import describe_value
from quipu.models.embedding import read_pooling
from quipu.types import Pooling

MAX_HEAD_LENGTH = 65536  # far above any model, so that a hostile file cannot ask for absurd tables


@dataclass(frozen=True, slots=True)
class ExpertSpec:
    """The mixture of experts in every layer.

    Attributes:
        num_experts: experts to choose from.
        num_used: experts per token.
        feed_forward_length: inner size of an expert.
        normalize: whether the weights of the chosen experts are made to sum to 1.
        scale: multiplies those weights.
        shared_feed_forward_length: inner size of the expert that every token uses; 0: there is none.
    """

    num_experts: int
    num_used: int
    feed_forward_length: int
    normalize: bool
    scale: float
    shared_feed_forward_length: int


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """Sizes of a decoder. Lengths are in values, `context_length` in tokens; `experts` is None in dense ones."""

    architecture: str
    vocab_size: int
    context_length: int
    embedding_length: int
    feed_forward_length: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    key_length: int
    value_length: int
    rms_epsilon: float
    rope: RopeParams
    experts: ExpertSpec | None = None
    pooling: Pooling = Pooling.LAST

    def kv_spec(self, k_type: GGMLType, v_type: GGMLType, page_size: int) -> KVSpec:
        """What the KV cache holds for this model."""
        return KVSpec(self.num_layers, self.num_kv_heads, self.key_length, self.value_length, k_type, v_type, page_size)


def read_spec(keys: ModelKeys, reader: GGUFReader, rope: RopeParams, experts: ExpertSpec | None = None) -> DecoderSpec:
    """Read the sizes that all decoders share.

    Args:
        keys: the model's metadata.
        reader: the open file.
        rope: its rotary embedding.
        experts: what `models.experts.read_experts` found; None for a dense decoder.

    Raises:
        ModelFileError: a key is missing, out of range, or contradicts another.
        UnsupportedModelError: the file asks for something that decoders here do not do.
    """
    refuse_unsupported(keys, has_experts=experts is not None)
    num_heads = same_for_all_layers(keys, "attention.head_count")
    num_kv_heads = same_for_all_layers(keys, "attention.head_count_kv", num_heads)
    embedding_length = keys.integer("embedding_length", minimum=1)
    if num_heads % num_kv_heads:
        raise ModelFileError(f"{keys.path}: {num_heads} heads cannot share {num_kv_heads} KV heads; convert it again")
    return DecoderSpec(
        architecture=keys.architecture,
        vocab_size=vocab_size(keys, reader),
        context_length=keys.integer("context_length", minimum=1),
        embedding_length=embedding_length,
        feed_forward_length=same_for_all_layers(
            keys, "feed_forward_length", None if experts is None else experts.feed_forward_length
        ),
        num_layers=keys.integer("block_count", minimum=1, maximum=4096),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        key_length=head_length(keys, "attention.key_length"),
        value_length=head_length(keys, "attention.value_length"),
        rms_epsilon=keys.number("attention.layer_norm_rms_epsilon", minimum=0.0),
        rope=rope,
        experts=experts,
        pooling=read_pooling(keys, Pooling.LAST),
    )


def head_length(keys: ModelKeys, name: str) -> int:
    """A head size that defaults to an even share of the embedding."""
    default = keys.integer("embedding_length", minimum=1) // same_for_all_layers(keys, "attention.head_count")
    if name not in keys and not 1 <= default <= MAX_HEAD_LENGTH:
        raise ModelFileError(
            f"{keys.path}: heads of {default} values follow from {keys.key('embedding_length')} and "
            f"{keys.key('attention.head_count')}, but 1 to {MAX_HEAD_LENGTH} are possible; convert the model again"
        )
    return keys.integer(name, default, minimum=1, maximum=MAX_HEAD_LENGTH)


# Keys that give a decoder experts, and the value under which it has none.
_EXPERTS = {"expert_count": (0,), "expert_used_count": (0,)}

# Keys that change what a decoder computes, with the values under which it does not.
_ONLY_NEUTRAL = {
    "attention.scale": (),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.sliding_window": (0,),
    "attention.causal": (True,),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "embedding_scale": (),
    "residual_scale": (),
    "logit_scale": (),
    "nextn_predict_layers": (0,),
    "use_parallel_residual": (False,),
    "expert_shared_count": (0,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "leading_dense_block_count": (0,),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_beta_fast": (32.0,),
    "rope.scaling.yarn_beta_slow": (1.0,),
    "rope.scaling.yarn_ext_factor": (-1.0, 1.0),  # -1: not chosen
    "rope.scaling.yarn_log_multiplier": (0.0,),
}


def refuse_unsupported(keys: ModelKeys, *, has_experts: bool = False) -> None:
    """Raise UnsupportedModelError for a key whose value a decoder would silently ignore."""
    refuse_values(keys, _ONLY_NEUTRAL if has_experts else {**_EXPERTS, **_ONLY_NEUTRAL})


def refuse_values(keys: ModelKeys, allowed: Mapping[str, tuple[float, ...]]) -> None:
    """Raise UnsupportedModelError for a key of `allowed` that has none of its values there."""
    for name, neutral in allowed.items():
        if name in keys:
            value = keys.metadata[keys.key(name)]
            if not isinstance(value, bool | int | float) or value not in neutral:
                raise UnsupportedModelError(
                    f"{keys.path}: {keys.key(name)} = {describe_value(value)} is not supported by this version of "
                    f"quipu; use a {keys.architecture} model without it"
                )


def same_for_all_layers(keys: ModelKeys, name: str, default: int | None = None) -> int:
    """A size that may be stored per layer, and then has to be equal for all of them."""
    if default is not None and name not in keys:
        return default
    values = set(keys.integers(name, minimum=1))
    if len(values) != 1:
        raise UnsupportedModelError(
            f"{keys.path}: {keys.key(name)} differs between layers ({sorted(values)}), which this version of quipu "
            "does not support; use another model"
        )
    return values.pop()


def vocab_size(keys: ModelKeys, reader: GGUFReader) -> int:
    """Rows of the embedding table; whatever else states the size has to agree."""
    table = reader.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise ModelFileError(f"{keys.path}: tensor 'token_embd.weight' is missing; fetch the whole model")
    rows = table.shape[1]
    stated = keys.integer("vocab_size", rows)
    tokens = reader.metadata.get("tokenizer.ggml.tokens")
    num_tokens = len(tokens) if isinstance(tokens, StringArray) else rows
    for size, source in ((stated, keys.key("vocab_size")), (num_tokens or rows, "tokenizer.ggml.tokens")):
        if size != rows:
            raise ModelFileError(
                f"{keys.path}: token_embd.weight has {rows} rows but {source} says {size}; convert the model again"
            )
    return rows
