"""Loading bert models: what a file has to have, and refusals that name what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bert_checkpoint import CONTEXT, HEADS, WIDTH, Checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.backends.program import KVSpec, Recorder
from quipu.convert import convert
from quipu.errors import ModelFileError, QuipuError, UnsupportedModelError
from quipu.gguf import GGMLType, GGUFReader, write_gguf
from quipu.models import Encoder, load_model
from quipu.types import Pooling

Parts = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Metadata, and tensors by name: (shape in GGUF order, type, bytes)."""
    folder = tmp_path_factory.mktemp("bert")
    convert(Checkpoint(num_labels=1).write(folder / "model", pooling=None), folder / "a.gguf", outtype="f32")
    with GGUFReader(folder / "a.gguf") as reader:
        tensors = {
            name: (info.shape, info.type, reader.tensor_data(name).reshape(-1).copy())
            for name, info in reader.tensors.items()
        }
        metadata = {key: list(value) if key.endswith("tokens") else value for key, value in reader.metadata.items()}
        return {
            key: np.copy(value) if isinstance(value, np.ndarray) else value for key, value in metadata.items()
        }, tensors


def load(path: Path, metadata: dict[str, Any], tensors: dict[str, Any]) -> Encoder:
    write_gguf(path, metadata, [(name, *stored) for name, stored in tensors.items()])
    with GGUFReader(path) as reader:
        model = load_model(reader)
    assert isinstance(model, Encoder)
    return model


def vector(length: int) -> tuple[tuple[int, ...], GGMLType, np.ndarray]:
    return (length,), GGMLType.F32, np.ones(length, np.float32).view(np.uint8)


def test_sizes(tmp_path: Path, parts: Parts) -> None:
    model = load(tmp_path / "a.gguf", *parts)
    assert model.spec.embedding_length == model.embedding.length == WIDTH
    assert model.spec.context_length == CONTEXT
    assert model.spec.head_length == WIDTH // HEADS
    assert model.embedding.is_encoder
    assert (model.embedding.num_scores, model.embedding.num_token_types) == (1, 2)
    assert model.embedding.pooling is Pooling.RANK
    # All layers share one layer of an exact cache.
    expected = KVSpec(1, HEADS, WIDTH // HEADS, WIDTH // HEADS, GGMLType.F32, GGMLType.F32, 16)
    assert model.kv_spec(GGMLType.Q4_0, GGMLType.F16, 16) == expected
    assert model.record(Recorder()).result.width == WIDTH
    assert model.record_embedding(Recorder(), scores=True).result.width == 1


def test_without_the_layer_before_the_scores(tmp_path: Path, parts: Parts) -> None:
    metadata, tensors = parts
    kept = {name: stored for name, stored in tensors.items() if name not in ("cls.weight", "cls.bias")}
    model = load(tmp_path / "a.gguf", metadata, kept)
    assert model.head is None
    assert not any(
        op.attributes.get("function") == "tanh" for op in model.record_embedding(Recorder(), scores=True).ops
    )


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (lambda m, t: m.update({"bert.attention.causal": True}), UnsupportedModelError, "causal = True"),
        (lambda m, t: m.update({"bert.expert_count": 4}), UnsupportedModelError, "expert_count = 4"),
        (lambda m, t: m.update({"bert.pooling_type": 9}), UnsupportedModelError, "pooling_type = 9"),
        (lambda m, t: m.update({"bert.pooling_type": "mean"}), ModelFileError, "whole number"),
        (lambda m, t: m.update({"bert.attention.head_count": 5}), ModelFileError, "5 heads do not divide"),
        (lambda m, t: m.update({"bert.context_length": 81}), ModelFileError, "position_embd.weight"),
        (lambda m, t: m.update({"bert.block_count": 3}), ModelFileError, "blk.2.attn_q.weight"),
        (lambda m, t: m.update({"bert.block_count": 1}), UnsupportedModelError, "would not be used"),
        (lambda m, t: m.pop("bert.attention.layer_norm_epsilon"), ModelFileError, "layer_norm_epsilon"),
        (lambda m, t: t.pop("token_types.weight"), ModelFileError, "token_types.weight"),
        (lambda m, t: t.pop("token_embd.weight"), ModelFileError, "token_embd.weight"),
        (lambda m, t: t.pop("blk.1.ffn_up.bias"), ModelFileError, "blk.1.ffn_up.bias"),
        (lambda m, t: t.pop("cls.output.weight"), ModelFileError, "cls.output.weight"),
        (lambda m, t: t.pop("cls.bias"), ModelFileError, "cls.bias"),
        (lambda m, t: t.update({"blk.0.attn_q_norm.weight": vector(WIDTH)}), UnsupportedModelError, "attn_q_norm"),
        (lambda m, t: t.update({"blk.0.attn_output_norm.bias": vector(3)}), ModelFileError, "attn_output_norm.bias"),
    ],
)
def test_refusals(
    tmp_path: Path,
    parts: Parts,
    change: Callable[[dict[str, Any], dict[str, Any]], object],
    error: type[QuipuError],
    reason: str,
) -> None:
    metadata, tensors = dict(parts[0]), dict(parts[1])
    change(metadata, tensors)
    with pytest.raises(error, match=reason):
        load(tmp_path / "a.gguf", metadata, tensors)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_numbers_are_loaded_or_refused(
    tmp_path_factory: pytest.TempPathFactory, parts: Parts, data: st.DataObject
) -> None:
    """A model that loads can also be recorded: no number of the file slips through to an error of ours."""
    metadata = dict(parts[0])
    keys = sorted(key for key in metadata if key.startswith("bert."))
    numbers = st.integers(0, 2**31) | st.sampled_from([1, 2, 4, 16, 64, 80, 96]) | st.floats(width=32) | st.booleans()
    for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3)):
        value = data.draw(numbers)
        metadata[key] = value
    try:
        model = load(tmp_path_factory.mktemp("fuzz") / "a.gguf", metadata, parts[1])
    except QuipuError:
        return
    model.record(Recorder())
    model.kv_spec(GGMLType.F16, GGMLType.F16, 16)
