"""The pre-norm decoder that llama and the Qwen models share: its tensors, and how a forward pass is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from quipu.backends.program import KVSpec, MixtureWeights, Program, Recorder, Value, Weight
from quipu.errors import UnsupportedModelError
from quipu.gguf import GGMLType
from quipu.models.embedding import EmbeddingSpec
from quipu.models.experts import load_experts
from quipu.models.spec import DecoderSpec
from quipu.models.weights import TensorBook, split_rows


@dataclass(frozen=True, slots=True)
class AttentionWeights:
    norm: Weight
    q: Weight
    k: Weight
    v: Weight
    output: Weight
    q_bias: Weight | None
    k_bias: Weight | None
    v_bias: Weight | None
    output_bias: Weight | None
    q_norm: Weight | None  # RMS norm over each head, before rope
    k_norm: Weight | None


@dataclass(frozen=True, slots=True)
class FeedForwardWeights:
    norm: Weight
    gate: Weight
    up: Weight
    down: Weight
    gate_bias: Weight | None
    up_bias: Weight | None
    down_bias: Weight | None


@dataclass(frozen=True, slots=True)
class MixtureLayerWeights:
    norm: Weight
    mixture: MixtureWeights


@dataclass(frozen=True, slots=True)
class Layer:
    attention: AttentionWeights
    feed_forward: FeedForwardWeights | MixtureLayerWeights


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded decoder: hyper-parameters and weights, still where the file has them.

    Attributes:
        spec: sizes.
        layers: weights of each layer.
        token_embd: embedding table [vocab, embedding].
        output_norm: weight of the last norm.
        output: the head [vocab, embedding]; the embedding table where the file ties them.
    """

    spec: DecoderSpec
    token_embd: Weight
    layers: tuple[Layer, ...]
    output_norm: Weight
    output: Weight

    @property
    def embedding(self) -> EmbeddingSpec:
        """How it embeds text; the last token is the one that has seen the others."""
        return EmbeddingSpec(self.spec.pooling, self.spec.embedding_length)

    def kv_spec(self, k_type: GGMLType, v_type: GGMLType, page_size: int) -> KVSpec:
        """What the KV cache holds for this model."""
        return self.spec.kv_spec(k_type, v_type, page_size)

    def record(self, recorder: Recorder) -> Program:
        """One forward pass: token ids to logits of the wanted outputs.

        In the last layer only the wanted rows go on after the attention: the others have nothing left to do once their
        keys and values are in the cache.
        """
        (logits,) = recorder.linear(self._record_vectors(recorder), [self.output])
        return recorder.finish(logits)

    def record_embedding(self, recorder: Recorder, *, scores: bool) -> Program:
        """One forward pass: token ids to the vectors that the head would read, float32 [O, embedding]."""
        assert not scores, "a decoder has no head that ranks"
        return recorder.finish(self._record_vectors(recorder))

    def _record_vectors(self, recorder: Recorder) -> Value:
        x = recorder.embed(self.token_embd)
        for index, layer in enumerate(self.layers):
            x = self._record_attention(recorder, x, layer.attention, index)
            if isinstance(layer.feed_forward, MixtureLayerWeights):
                x = self._record_mixture(recorder, x, layer.feed_forward)
            else:
                x = self._record_feed_forward(recorder, x, layer.feed_forward)
        return recorder.rms_norm(x, self.output_norm, self.spec.rms_epsilon)

    def _record_attention(self, recorder: Recorder, x: Value, weights: AttentionWeights, layer: int) -> Value:
        spec = self.spec
        h = recorder.rms_norm(x, weights.norm, spec.rms_epsilon)
        q, k, v = recorder.linear(
            h, [weights.q, weights.k, weights.v], [weights.q_bias, weights.k_bias, weights.v_bias]
        )
        if weights.q_norm is not None and weights.k_norm is not None:
            q = recorder.rms_norm(q, weights.q_norm, spec.rms_epsilon)
            k = recorder.rms_norm(k, weights.k_norm, spec.rms_epsilon)
        h = recorder.attention(
            recorder.rope(q, spec.key_length, spec.rope),
            recorder.rope(k, spec.key_length, spec.rope),
            v,
            layer=layer,
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            scale=spec.key_length**-0.5,
        )
        if layer == spec.num_layers - 1:
            h, x = recorder.select_outputs(h), recorder.select_outputs(x)
        (x,) = recorder.linear(h, [weights.output], [weights.output_bias], residual=x)
        return x

    def _record_feed_forward(self, recorder: Recorder, x: Value, weights: FeedForwardWeights) -> Value:
        h = recorder.rms_norm(x, weights.norm, self.spec.rms_epsilon)
        if weights.gate_bias is None and weights.up_bias is None:
            h = recorder.swiglu_linear(h, weights.gate, weights.up)
        else:
            gate, up = recorder.linear(h, [weights.gate, weights.up], [weights.gate_bias, weights.up_bias])
            h = recorder.swiglu(gate, up)
        (x,) = recorder.linear(h, [weights.down], [weights.down_bias], residual=x)
        return x

    def _record_mixture(self, recorder: Recorder, x: Value, weights: MixtureLayerWeights) -> Value:
        experts = self.spec.experts
        assert experts is not None
        h = recorder.rms_norm(x, weights.norm, self.spec.rms_epsilon)
        return recorder.moe(
            h,
            weights.mixture,
            num_used=experts.num_used,
            normalize=experts.normalize,
            scale=experts.scale,
            residual=x,
        )


def load_decoder(spec: DecoderSpec, book: TensorBook, *, head_norms: bool, may_tie_output: bool = True) -> Model:
    """Take the tensors of a decoder.

    Args:
        spec: its sizes.
        book: the file's tensors.
        head_norms: whether queries and keys have a norm per head.
        may_tie_output: whether a missing `output.weight` means the embedding table.

    Raises:
        ModelFileError: a tensor is missing or has another shape.
        UnsupportedModelError: a tensor is left over.
    """
    width, vocab = spec.embedding_length, spec.vocab_size
    token_embd = book.matrix("token_embd.weight", vocab, width)
    layers = tuple(
        Layer(_load_attention(spec, book, f"blk.{i}", head_norms), _load_feed_forward(spec, book, f"blk.{i}"))
        for i in range(spec.num_layers)
    )
    output_norm = book.vector("output_norm.weight", width)
    output = (
        book.optional("output.weight", vocab, width) if may_tie_output else book.matrix("output.weight", vocab, width)
    )
    book.check_all_used()
    return Model(spec, token_embd, layers, output_norm, output or token_embd)


def _load_attention(spec: DecoderSpec, book: TensorBook, prefix: str, head_norms: bool) -> AttentionWeights:
    width = spec.embedding_length
    sizes = (
        spec.num_heads * spec.key_length,
        spec.num_kv_heads * spec.key_length,
        spec.num_kv_heads * spec.value_length,
    )
    names = tuple(f"{prefix}.attn_{part}" for part in "qkv")
    fused = book.optional(f"{prefix}.attn_qkv.weight", sum(sizes), width)
    fused_bias = book.optional(f"{prefix}.attn_qkv.bias", 1, sum(sizes))
    if fused is not None:
        q, k, v = split_rows(fused, tuple(f"{name}.weight" for name in names), sizes)
    else:
        q, k, v = (book.matrix(f"{name}.weight", size, width) for name, size in zip(names, sizes, strict=True))
    biases: tuple[Weight | None, ...]
    if fused_bias is not None:
        if fused_bias.type != GGMLType.F32:
            raise UnsupportedModelError(f"{fused_bias.name} has type {fused_bias.type.name}; biases are stored as F32")
        biases = split_rows(fused_bias, tuple(f"{name}.bias" for name in names), sizes)
    else:
        biases = tuple(book.optional(f"{name}.bias", 1, size) for name, size in zip(names, sizes, strict=True))
    return AttentionWeights(
        norm=book.vector(f"{prefix}.attn_norm.weight", width),
        q=q,
        k=k,
        v=v,
        output=book.matrix(f"{prefix}.attn_output.weight", width, spec.num_heads * spec.value_length),
        q_bias=biases[0],
        k_bias=biases[1],
        v_bias=biases[2],
        output_bias=book.optional(f"{prefix}.attn_output.bias", 1, width),
        q_norm=book.vector(f"{prefix}.attn_q_norm.weight", spec.key_length) if head_norms else None,
        k_norm=book.vector(f"{prefix}.attn_k_norm.weight", spec.key_length) if head_norms else None,
    )


def _load_feed_forward(spec: DecoderSpec, book: TensorBook, prefix: str) -> FeedForwardWeights | MixtureLayerWeights:
    width, hidden = spec.embedding_length, spec.feed_forward_length
    if spec.experts is not None:
        norm = book.vector(f"{prefix}.ffn_norm.weight", width)
        return MixtureLayerWeights(norm, load_experts(spec.experts, width, book, prefix))
    return FeedForwardWeights(
        norm=book.vector(f"{prefix}.ffn_norm.weight", width),
        gate=book.matrix(f"{prefix}.ffn_gate.weight", hidden, width),
        up=book.matrix(f"{prefix}.ffn_up.weight", hidden, width),
        down=book.matrix(f"{prefix}.ffn_down.weight", width, hidden),
        gate_bias=book.optional(f"{prefix}.ffn_gate.bias", 1, hidden),
        up_bias=book.optional(f"{prefix}.ffn_up.bias", 1, hidden),
        down_bias=book.optional(f"{prefix}.ffn_down.bias", 1, width),
    )
