"""The post-norm encoder of BERT (arXiv:1810.04805): its sizes and tensors, and how a forward pass is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from quipu.backends.program import Activation, KVSpec, Program, Recorder, Value, Weight
from quipu.gguf import GGMLType
from quipu.models.embedding import EmbeddingSpec
from quipu.models.weights import TensorBook


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Sizes of an encoder. Lengths are in values, `context_length` in tokens."""

    architecture: str
    vocab_size: int
    context_length: int
    embedding_length: int
    feed_forward_length: int
    num_layers: int
    num_heads: int
    norm_epsilon: float
    activation: Activation
    num_token_types: int

    @property
    def head_length(self) -> int:
        return self.embedding_length // self.num_heads


@dataclass(frozen=True, slots=True)
class Affine:
    """The weight [out, in] of a linear layer, or that of a norm, with its bias."""

    weight: Weight
    bias: Weight


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    q: Affine
    k: Affine
    v: Affine
    attention_output: Affine
    attention_norm: Affine
    up: Affine
    down: Affine
    output_norm: Affine


@dataclass(frozen=True, slots=True)
class Encoder:
    """A loaded encoder. It has no logits: what it gives are vectors of tokens, or the scores of its head.

    Attributes:
        spec: sizes.
        embedding: how it embeds text.
        token_embd, position_embd, token_types: the tables whose rows are summed for each token.
        embedding_norm: the norm of that sum.
        layers: weights of each layer.
        head: the layer with a hyperbolic tangent before the scores, or None.
        scores: the linear layer that gives the scores, or None.
    """

    spec: EncoderSpec
    embedding: EmbeddingSpec
    token_embd: Weight
    position_embd: Weight
    token_types: Weight
    embedding_norm: Affine
    layers: tuple[EncoderLayer, ...]
    head: Affine | None
    scores: Affine | None

    def kv_spec(self, k_type: GGMLType, v_type: GGMLType, page_size: int) -> KVSpec:
        """What the KV cache holds: one layer, which all layers use one after another, because nothing is kept from one
        step to the next. It is exact, so the types asked for do not matter.
        """
        spec = self.spec
        return KVSpec(1, spec.num_heads, spec.head_length, spec.head_length, GGMLType.F32, GGMLType.F32, page_size)

    def record(self, recorder: Recorder) -> Program:
        """One forward pass: token ids to the vectors of the wanted tokens, float32 [O, embedding]."""
        return self.record_embedding(recorder, scores=False)

    def record_embedding(self, recorder: Recorder, *, scores: bool) -> Program:
        """As `record`, or with `scores` one that goes on to those of the head, float32 [O, scores]."""
        x = self._record_vectors(recorder)
        if not scores:
            return recorder.finish(x)
        assert self.scores is not None
        if self.head is not None:
            x = recorder.activation(_linear(recorder, x, self.head), "tanh")
        return recorder.finish(_linear(recorder, x, self.scores))

    def _record_vectors(self, recorder: Recorder) -> Value:
        x = recorder.embed(self.token_embd, self.position_embd, self.token_types)
        x = self._norm(recorder, x, self.embedding_norm)
        for index, layer in enumerate(self.layers):
            x = self._record_layer(recorder, x, layer, is_last=index == len(self.layers) - 1)
        return x

    def _record_layer(self, recorder: Recorder, x: Value, layer: EncoderLayer, *, is_last: bool) -> Value:
        spec = self.spec
        parts = (layer.q, layer.k, layer.v)
        q, k, v = recorder.linear(x, [part.weight for part in parts], [part.bias for part in parts])
        h = recorder.attention(
            q,
            k,
            v,
            layer=0,
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_heads,
            scale=spec.head_length**-0.5,
            causal=False,
        )
        if is_last:  # only the wanted tokens go on; the others have been seen by them
            h, x = recorder.select_outputs(h), recorder.select_outputs(x)
        x = self._norm(recorder, _linear(recorder, h, layer.attention_output, residual=x), layer.attention_norm)
        h = recorder.activation(_linear(recorder, x, layer.up), spec.activation)
        return self._norm(recorder, _linear(recorder, h, layer.down, residual=x), layer.output_norm)

    def _norm(self, recorder: Recorder, x: Value, norm: Affine) -> Value:
        return recorder.layer_norm(x, norm.weight, norm.bias, self.spec.norm_epsilon)


def _linear(recorder: Recorder, x: Value, layer: Affine, residual: Value | None = None) -> Value:
    (result,) = recorder.linear(x, [layer.weight], [layer.bias], residual=residual)
    return result


def load_encoder(spec: EncoderSpec, embedding: EmbeddingSpec, book: TensorBook) -> Encoder:
    """Take the tensors of an encoder.

    Raises:
        ModelFileError: a tensor is missing or has another shape.
        UnsupportedModelError: a tensor is left over.
    """
    width = spec.embedding_length
    encoder = Encoder(
        spec=spec,
        embedding=embedding,
        token_embd=book.matrix("token_embd.weight", spec.vocab_size, width),
        position_embd=book.matrix("position_embd.weight", spec.context_length, width),
        token_types=book.matrix("token_types.weight", spec.num_token_types, width),
        embedding_norm=_load_norm(book, "token_embd_norm", width),
        layers=tuple(_load_layer(spec, book, f"blk.{i}") for i in range(spec.num_layers)),
        head=_load_affine(book, "cls", width, width) if "cls.weight" in book else None,
        scores=_load_affine(book, "cls.output", embedding.num_scores, width) if embedding.num_scores else None,
    )
    book.check_all_used()
    return encoder


def _load_layer(spec: EncoderSpec, book: TensorBook, prefix: str) -> EncoderLayer:
    width, hidden = spec.embedding_length, spec.feed_forward_length
    return EncoderLayer(
        q=_load_affine(book, f"{prefix}.attn_q", width, width),
        k=_load_affine(book, f"{prefix}.attn_k", width, width),
        v=_load_affine(book, f"{prefix}.attn_v", width, width),
        attention_output=_load_affine(book, f"{prefix}.attn_output", width, width),
        attention_norm=_load_norm(book, f"{prefix}.attn_output_norm", width),
        up=_load_affine(book, f"{prefix}.ffn_up", hidden, width),
        down=_load_affine(book, f"{prefix}.ffn_down", width, hidden),
        output_norm=_load_norm(book, f"{prefix}.layer_output_norm", width),
    )


def _load_affine(book: TensorBook, name: str, rows: int, columns: int) -> Affine:
    return Affine(book.matrix(f"{name}.weight", rows, columns), book.vector(f"{name}.bias", rows))


def _load_norm(book: TensorBook, name: str, width: int) -> Affine:
    return Affine(book.vector(f"{name}.weight", width), book.vector(f"{name}.bias", width))
