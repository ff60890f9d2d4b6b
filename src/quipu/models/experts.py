"""Mixtures of experts: their hyper-parameters and tensors."""

from __future__ import annotations

from quipu.backends.program import ExpertWeights, MixtureWeights
from quipu.errors import ModelFileError, UnsupportedModelError
from quipu.gguf import ModelKeys
from quipu.models.spec import ExpertSpec
from quipu.models.weights import TensorBook

MAX_EXPERTS = 65536  # far above any model, so that a hostile file cannot ask for absurd tables
_SOFTMAX = 1
_GATING_FUNCTIONS = {2: "sigmoid", 3: "softmax of the chosen experts", 4: "square root of softplus"}


def read_experts(
    keys: ModelKeys, *, feed_forward_length: int, normalize: bool, shared_feed_forward_length: int = 0
) -> ExpertSpec:
    """What the metadata says about experts.

    Args:
        keys: the model's metadata.
        feed_forward_length: inner size of an expert.
        normalize: whether the architecture makes the chosen experts' weights sum to 1.
        shared_feed_forward_length: inner size of the shared expert; 0: there is none.

    Raises:
        ModelFileError: a key is missing, out of range, or contradicts another.
        UnsupportedModelError: the experts are chosen or weighted in a way that is not known here.
    """
    num_experts = keys.integer("expert_count", minimum=1, maximum=MAX_EXPERTS)
    num_used = keys.integer("expert_used_count", minimum=1)
    if num_used > num_experts:
        raise ModelFileError(
            f"{keys.path}: {keys.key('expert_used_count')} is {num_used}, but there are {num_experts} experts; "
            "convert the model again"
        )
    gating = keys.integer("expert_gating_func", _SOFTMAX)
    if gating not in (0, _SOFTMAX):  # 0: not chosen
        name = _GATING_FUNCTIONS.get(gating, "unknown")
        raise UnsupportedModelError(
            f"{keys.path}: {keys.key('expert_gating_func')} = {gating} ({name}) is not supported, only softmax is; "
            f"use another {keys.architecture} model"
        )
    return ExpertSpec(
        num_experts=num_experts,
        num_used=num_used,
        feed_forward_length=feed_forward_length,
        normalize=keys.flag("expert_weights_norm", normalize),
        scale=keys.number("expert_weights_scale", 1.0, minimum=0.0) or 1.0,  # converters write 0 for "none"
        shared_feed_forward_length=shared_feed_forward_length,
    )


def expert_length(keys: ModelKeys) -> int:
    """The inner size of an expert of the Qwen models: its own key, or the dense size shared out."""
    if "expert_feed_forward_length" in keys:
        return keys.integer("expert_feed_forward_length", minimum=1)
    return max(1, keys.integer("feed_forward_length", minimum=1) // keys.integer("expert_used_count", minimum=1))


def load_experts(experts: ExpertSpec, width: int, book: TensorBook, prefix: str) -> MixtureWeights:
    """Take the tensors of one layer's experts.

    Raises:
        ModelFileError: a tensor is missing or has another shape.
        UnsupportedModelError: the experts are stored in a way that is not known here.
    """
    count, inner, shared_inner = experts.num_experts, experts.feed_forward_length, experts.shared_feed_forward_length
    single = f"{prefix}.ffn_gate.0.weight"
    if single in book:
        raise UnsupportedModelError(
            f"{book.path}: tensor {single!r} holds one expert alone, as files from before April 2024 do; convert or "
            "fetch the model again"
        )
    router = book.matrix(f"{prefix}.ffn_gate_inp.weight", count, width)
    stacked = ExpertWeights(
        gate=book.stacked(f"{prefix}.ffn_gate_exps.weight", count, inner, width),
        up=book.stacked(f"{prefix}.ffn_up_exps.weight", count, inner, width),
        down=book.stacked(f"{prefix}.ffn_down_exps.weight", count, width, inner),
    )
    if not shared_inner:
        return MixtureWeights(router, stacked)
    shared = ExpertWeights(
        gate=book.matrix(f"{prefix}.ffn_gate_shexp.weight", shared_inner, width),
        up=book.matrix(f"{prefix}.ffn_up_shexp.weight", shared_inner, width),
        down=book.matrix(f"{prefix}.ffn_down_shexp.weight", width, shared_inner),
    )
    return MixtureWeights(router, stacked, shared, book.vector(f"{prefix}.ffn_gate_inp_shexp.weight", width))
