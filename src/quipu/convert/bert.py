"""bert: BertModel, and BertForSequenceClassification with one score as a cross-encoder."""

from __future__ import annotations

from quipu.convert.checkpoint import Checkpoint
from quipu.convert.declaration import Declaration, TensorPlan, with_biases
from quipu.convert.pooling import read_pooling
from quipu.convert.wordpiece import read_wordpiece
from quipu.errors import UnsupportedModelError
from quipu.gguf.encode import WritableValue
from quipu.models.embedding import POOLING_TYPES
from quipu.types import Pooling

_CLASSIFIER = "BertForSequenceClassification"

# Published names, below an optional "bert.", and names in the file.
_TABLES = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
}
_NORMS = {
    "embeddings.LayerNorm": "token_embd_norm",
    "encoder.layer.{layer}.attention.output.LayerNorm": "blk.{layer}.attn_output_norm",
    "encoder.layer.{layer}.output.LayerNorm": "blk.{layer}.layer_output_norm",
}
_LINEARS = {
    "encoder.layer.{layer}.attention.self.query": "blk.{layer}.attn_q",
    "encoder.layer.{layer}.attention.self.key": "blk.{layer}.attn_k",
    "encoder.layer.{layer}.attention.self.value": "blk.{layer}.attn_v",
    "encoder.layer.{layer}.attention.output.dense": "blk.{layer}.attn_output",
    "encoder.layer.{layer}.intermediate.dense": "blk.{layer}.ffn_up",
    "encoder.layer.{layer}.output.dense": "blk.{layer}.ffn_down",
}
_HEAD = {"bert.pooler.dense": "cls", "classifier": "cls.output"}
_LEGACY_NORM_PARTS = {"weight": "gamma", "bias": "beta"}  # in files that go back to TensorFlow


def read_metadata(checkpoint: Checkpoint) -> dict[str, WritableValue]:
    """The keys of a bert model.

    Raises:
        ModelFileError: a value is missing, of the wrong kind or out of range.
        UnsupportedModelError: the configuration asks for something that the architecture does not do.
    """
    config = checkpoint.config
    for name, default in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        if config.text(name, default) != default:
            raise UnsupportedModelError(
                f"{config.path}: {name} = {config.text(name)!r} is not supported, only {default!r} is; use "
                "another model"
            )
    if config.flag("is_decoder", False):
        raise UnsupportedModelError(f"{config.path}: is_decoder is true, but only encoders are bert; use another model")
    metadata: dict[str, WritableValue] = {
        "bert.block_count": num_layers(checkpoint),
        "bert.context_length": config.integer("max_position_embeddings", minimum=1),
        "bert.embedding_length": config.integer("hidden_size", minimum=1),
        "bert.feed_forward_length": config.integer("intermediate_size", minimum=1),
        "bert.attention.head_count": config.integer("num_attention_heads", minimum=1),
        "bert.attention.layer_norm_epsilon": config.number("layer_norm_eps", 1e-12, minimum=0.0),
        "bert.attention.causal": False,
    }
    pooling = Pooling.RANK if is_classifier(checkpoint) else read_pooling(checkpoint)
    if pooling is not None:
        metadata["bert.pooling_type"] = POOLING_TYPES.index(pooling)
    return metadata


def read_vocabulary(checkpoint: Checkpoint) -> dict[str, WritableValue]:
    """The keys of its tokenizer; raises as `read_wordpiece`."""
    config = checkpoint.config
    metadata = read_wordpiece(checkpoint, num_rows=config.integer("vocab_size", minimum=1))
    metadata["tokenizer.ggml.token_type_count"] = config.integer("type_vocab_size", 2, minimum=1)
    return metadata


def plan_tensors(checkpoint: Checkpoint) -> TensorPlan:
    """The tensors there are. What was trained beside the encoder alone (masked words, next sentence) is left out."""
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in checkpoint.tensors else ""
    renamed = _TABLES | with_biases(_NORMS) | with_biases(_LINEARS)
    if f"{prefix}embeddings.LayerNorm.gamma" in checkpoint.tensors:
        legacy = {f"{norm}.{part}": f"{norm}.{old}" for norm in _NORMS for part, old in _LEGACY_NORM_PARTS.items()}
        renamed = {legacy.get(published, published): target for published, target in renamed.items()}
    renamed = {prefix + published: target for published, target in renamed.items()}
    ignored = [f"{prefix}embeddings.position_ids", "cls."]
    if is_classifier(checkpoint):
        renamed |= with_biases(_HEAD)
    else:
        ignored.append(f"{prefix}pooler.")
    return TensorPlan(renamed, tuple(ignored), frozenset({"token_types.weight", "position_embd.weight"}))


def num_layers(checkpoint: Checkpoint) -> int:
    """How many layers the model has."""
    return checkpoint.config.integer("num_hidden_layers", minimum=1, maximum=4096)


def is_classifier(checkpoint: Checkpoint) -> bool:
    """Whether the model has a classification head."""
    return _CLASSIFIER in checkpoint.config.items("architectures")


DECLARATION = Declaration(
    architecture="bert",
    classes=frozenset({"BertModel", "BertForMaskedLM", "BertForPreTraining", _CLASSIFIER}),
    metadata=read_metadata,
    vocabulary=read_vocabulary,
    tensors=plan_tensors,
    num_layers=num_layers,
)
