"""Conversion of BERT folders: tensors, keys and vocabulary as published, and refusals that name what is wrong."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bert_checkpoint import (
    CLS,
    CONTEXT,
    HEADS,
    LAYERS,
    SEP,
    VOCABULARY,
    WIDTH,
    Checkpoint,
    published_tokenizer,
    write_safetensors,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.convert import Conversion, Progress, convert
from quipu.errors import ModelFileError, ModelNotFoundError, QuipuError, UnsupportedModelError, UsageError
from quipu.gguf import GGMLType, GGUFReader, ModelKeys
from quipu.models import Encoder, load_model
from quipu.quant import dequantize
from quipu.tokenizer import Tokenizer
from quipu.types import Pooling

TEXTS = [
    "the cat sat",
    "Cat-sitting, isn't it?",
    "naïve CAFÉ 漢字 x9",
    "a" * 120,
    "",
    "  the\tcat\u00a0!",
    "[SEP] [MASK]",
]


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Rewrite a JSON file with what `change` makes of it."""
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(value)), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Checkpoint().write(tmp_path / "model")


@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16", "q8_0"])
def test_tensors(tmp_path: Path, outtype: str) -> None:
    checkpoint = Checkpoint()
    seen: list[Progress] = []
    done = convert(checkpoint.write(tmp_path / "model"), tmp_path / "a.gguf", outtype=outtype, progress=seen.append)
    assert done.warnings == ()
    with GGUFReader(tmp_path / "a.gguf") as reader:
        model = load_model(reader)
        assert isinstance(model, Encoder)
        types = {name: info.type for name, info in reader.tensors.items()}
        assert types["blk.1.ffn_up.weight"] == types["token_embd.weight"] == GGMLType[outtype.upper()]
        assert types["position_embd.weight"] == types["token_types.weight"] == GGMLType.F32
        assert types["blk.0.attn_q.bias"] == types["token_embd_norm.weight"] == GGMLType.F32
        for name, published in [
            ("token_embd.weight", "embeddings.word_embeddings.weight"),
            ("blk.1.ffn_down.weight", "encoder.layer.1.output.dense.weight"),
            ("blk.0.layer_output_norm.bias", "encoder.layer.0.output.LayerNorm.bias"),
        ]:
            values = dequantize(reader.tensor_data(name), types[name]).reshape(checkpoint.tensors[published].shape)
            error = {"f32": 0.0, "f16": 5e-4, "bf16": 8e-3, "q8_0": 2e-2}[outtype]
            np.testing.assert_allclose(values, checkpoint.tensors[published], rtol=error, atol=error)
    assert [step.tensor for step in seen] == list(types)
    assert seen[-1].done_bytes == seen[-1].total_bytes
    num_published = sum(v.size for name, v in checkpoint.tensors.items() if not name.startswith("pooler"))
    assert done == Conversion(
        tmp_path / "a.gguf", "bert", len(types), num_published, (tmp_path / "a.gguf").stat().st_size, ()
    )


def test_keys(folder: Path, tmp_path: Path) -> None:
    edit(folder / "config.json", lambda config: {**config, "_name_or_path": "someone/mini-bert"})
    convert(folder, tmp_path / "a.gguf")
    with GGUFReader(tmp_path / "a.gguf") as reader:
        keys = dict(reader.metadata)
        assert keys["general.architecture"] == "bert"
        assert keys["general.name"] == "mini-bert"
        assert keys["general.file_type"] == 1
        assert keys["bert.block_count"] == LAYERS
        assert keys["bert.context_length"] == CONTEXT
        assert keys["bert.embedding_length"] == WIDTH
        assert keys["bert.attention.head_count"] == HEADS
        assert keys["bert.attention.causal"] is False
        assert keys["bert.attention.layer_norm_epsilon"] == pytest.approx(1e-12)
        assert keys["bert.pooling_type"] == 1
        assert keys["tokenizer.ggml.model"] == "bert"
        assert keys["tokenizer.ggml.token_type_count"] == 2
        assert keys["tokenizer.ggml.cls_token_id"] == keys["tokenizer.ggml.bos_token_id"] == CLS
        assert keys["tokenizer.ggml.seperator_token_id"] == keys["tokenizer.ggml.eos_token_id"] == SEP
        tokens = list(keys["tokenizer.ggml.tokens"])
        assert tokens[CLS] == "[CLS]"
        assert tokens[VOCABULARY.index("cat")] == "\u2581cat"
        assert tokens[VOCABULARY.index("##ing")] == "ing"
        types = keys["tokenizer.ggml.token_type"].tolist()
        assert types[:6] == [3, 3, 3, 3, 3, 1]
        assert ModelKeys(keys).integer("context_length") == CONTEXT


@pytest.mark.parametrize(
    ("mode", "pooling"), [("mean_tokens", Pooling.MEAN), ("cls_token", Pooling.CLS), ("lasttoken", Pooling.LAST)]
)
def test_pooling_of_sentence_transformers(tmp_path: Path, mode: str, pooling: Pooling) -> None:
    convert(Checkpoint().write(tmp_path / "model", pooling=mode), tmp_path / "a.gguf")
    with GGUFReader(tmp_path / "a.gguf") as reader:
        assert load_model(reader).embedding.pooling is pooling


def test_without_modules_nothing_is_said_about_pooling(tmp_path: Path) -> None:
    convert(Checkpoint().write(tmp_path / "model", pooling=None), tmp_path / "a.gguf")
    with GGUFReader(tmp_path / "a.gguf") as reader:
        assert "bert.pooling_type" not in reader.metadata
        assert load_model(reader).embedding.pooling is Pooling.MEAN


@pytest.mark.parametrize("num_labels", [1, 3])
def test_a_classifier_ranks(tmp_path: Path, num_labels: int) -> None:
    convert(Checkpoint(num_labels).write(tmp_path / "model", pooling=None), tmp_path / "a.gguf")
    with GGUFReader(tmp_path / "a.gguf") as reader:
        model = load_model(reader)
        assert (model.embedding.pooling, model.embedding.num_scores) == (Pooling.RANK, num_labels)


@pytest.mark.parametrize("source", ["json", "text"])
def test_tokens_are_those_of_the_published_tokenizer(tmp_path: Path, source: str) -> None:
    convert(Checkpoint().write(tmp_path / "model", tokenizer=source), tmp_path / "a.gguf")
    ours, published = Tokenizer.from_gguf(tmp_path / "a.gguf"), published_tokenizer()
    for text in TEXTS:
        assert ours.encode(text, parse_special=True) == published.encode(text).ids, text
    for first, second in itertools.pairwise(TEXTS[:-1]):
        pair = published.encode(first, second)
        ids, types = ours.join_pair(ours.encode(first, add_special=False), ours.encode(second, add_special=False))
        assert (ids, types) == (pair.ids, pair.type_ids)


def test_rows_without_a_token(folder: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint()
    name = "embeddings.word_embeddings.weight"
    checkpoint.tensors[name] = np.vstack([checkpoint.tensors[name], np.ones((2, WIDTH), np.float32)])
    checkpoint.config["vocab_size"] += 2
    convert(checkpoint.write(tmp_path / "padded"), tmp_path / "a.gguf")
    with GGUFReader(tmp_path / "a.gguf") as reader:
        assert list(reader.metadata["tokenizer.ggml.tokens"])[-1] == f"[PAD{len(VOCABULARY) + 1}]"
        assert reader.metadata["tokenizer.ggml.token_type"].tolist()[-2:] == [5, 5]


def test_shards(tmp_path: Path) -> None:
    checkpoint = Checkpoint()
    convert(checkpoint.write(tmp_path / "model"), tmp_path / "whole.gguf")
    folder = checkpoint.write(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    parts = [dict(list(checkpoint.tensors.items())[part::2]) for part in range(2)]
    index = {}
    for number, part in enumerate(parts):
        write_safetensors(folder / f"part-{number}.safetensors", {name: ("F32", v) for name, v in part.items()})
        index |= dict.fromkeys(part, f"part-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    convert(folder, tmp_path / "parts.gguf")
    assert (tmp_path / "parts.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    hostile = {**index, "pooler.dense.bias": "../outside.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": hostile}))
    with pytest.raises(ModelFileError, match="in no file of this folder"):
        convert(folder, tmp_path / "b.gguf")
    index.popitem()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(ModelFileError, match="does not name tensor"):
        convert(folder, tmp_path / "b.gguf")


def test_norms_by_their_oldest_names(tmp_path: Path) -> None:
    checkpoint = Checkpoint()
    convert(checkpoint.write(tmp_path / "model"), tmp_path / "new.gguf")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): values
        for name, values in checkpoint.tensors.items()
    }
    checkpoint.tensors = renamed
    convert(checkpoint.write(tmp_path / "model"), tmp_path / "old.gguf")
    assert (tmp_path / "old.gguf").read_bytes() == (tmp_path / "new.gguf").read_bytes()


def test_rows_that_are_no_whole_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert_checkpoint.INNER", 90)
    done = convert(Checkpoint().write(tmp_path / "model"), tmp_path / "a.gguf", outtype="q8_0")
    assert len(done.warnings) == 1
    assert "2 matrices, such as blk.0.ffn_down.weight, are stored as F16" in done.warnings[0]


@pytest.mark.parametrize(
    ("file", "change", "error", "reason"),
    [
        ("config.json", lambda c: {**c, "hidden_act": "relu"}, UnsupportedModelError, "hidden_act = 'relu'"),
        ("config.json", lambda c: {**c, "position_embedding_type": "x"}, UnsupportedModelError, "position_embedding"),
        ("config.json", lambda c: {**c, "is_decoder": True}, UnsupportedModelError, "is_decoder"),
        ("config.json", lambda c: {**c, "architectures": ["GPT"]}, UnsupportedModelError, "BertModel"),
        ("config.json", lambda c: {**c, "architectures": "BertModel"}, ModelFileError, "a list"),
        ("config.json", lambda c: {**c, "hidden_size": "64"}, ModelFileError, "'hidden_size'"),
        ("config.json", lambda c: {**c, "hidden_size": None}, ModelFileError, "'hidden_size' is missing"),
        ("config.json", lambda c: {**c, "num_hidden_layers": 3}, ModelFileError, "encoder.layer.2"),
        ("config.json", lambda c: {**c, "num_hidden_layers": 1}, UnsupportedModelError, "has no place"),
        ("config.json", lambda c: {**c, "num_hidden_layers": 10**9}, ModelFileError, "4096"),
        ("config.json", lambda c: {**c, "vocab_size": 7}, ModelFileError, "7 rows"),
        ("config.json", lambda c: {**c, "layer_norm_eps": float("nan")}, ModelFileError, "layer_norm_eps"),
        ("config.json", lambda c: [c], ModelFileError, "no JSON object"),
        ("modules.json", lambda m: {"a": m}, ModelFileError, "a list"),
        ("modules.json", lambda m: [{**m[1], "path": "../1_Pooling"}], ModelFileError, "no config.json"),
        ("modules.json", lambda m: [{**m[1], "path": "2_Pooling"}], ModelFileError, "no config.json"),
        (
            "1_Pooling/config.json",
            lambda p: {**p, "pooling_mode_max_tokens": True},
            UnsupportedModelError,
            "max_tokens, pooling_mode_mean",
        ),
        ("tokenizer.json", lambda t: {**t, "model": {"type": "BPE"}}, UnsupportedModelError, "'WordPiece'"),
        (
            "tokenizer.json",
            lambda t: {**t, "normalizer": {**t["normalizer"], "clean_text": False}},
            UnsupportedModelError,
            "clean_text",
        ),
        ("tokenizer.json", lambda t: {**t, "normalizer": None}, UnsupportedModelError, "BertNormalizer"),
        ("tokenizer.json", lambda t: {**t, "added_tokens": [{"id": 3, "content": "the"}]}, ModelFileError, "'the'"),
        ("tokenizer.json", lambda t: {**t, "added_tokens": [{"id": -1, "content": "x"}]}, ModelFileError, "'id'"),
        ("tokenizer_config.json", lambda t: {"cls_token": "<s>"}, ModelFileError, "no '<s>'"),
    ],
)
def test_refusals(
    folder: Path, tmp_path: Path, file: str, change: Callable[[Any], Any], error: type[QuipuError], reason: str
) -> None:
    edit(folder / file, change)
    with pytest.raises(error, match=reason) as caught:
        convert(folder, tmp_path / "a.gguf")
    assert str(folder) in str(caught.value)
    assert not (tmp_path / "a.gguf").exists()


def test_refusals_of_whole_files(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.gguf"
    with pytest.raises(UsageError, match="outtype must be one of f32, f16, bf16, q8_0"):
        convert(folder, target, outtype="q4_k")
    with pytest.raises(ModelNotFoundError, match="no folder"):
        convert(tmp_path / "nowhere", target)
    with pytest.raises(QuipuError, match="cannot be written"):
        convert(folder, tmp_path / "nowhere" / "a.gguf")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"neither tokenizer.json nor vocab.txt"):
        convert(folder, target)
    (folder / "vocab.txt").write_text("a\na\n")
    with pytest.raises(ModelFileError, match="twice"):
        convert(folder, target)
    (folder / "vocab.txt").write_bytes(b"\xff")
    with pytest.raises(ModelFileError, match="UTF-8"):
        convert(folder, target)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors"):
        convert(folder, target)
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match="pickle"):
        convert(folder, target)
    (folder / "config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        convert(folder, target)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    checkpoint = Checkpoint()
    checkpoint.tensors["encoder.layer.1.output.dense.weight"][3, 4] = np.nan
    with pytest.raises(ModelFileError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        convert(checkpoint.write(tmp_path / "model"), tmp_path / "a.gguf")
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]  # nothing half written is left


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_folders_are_converted_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes of any JSON file changed: a file that loads, or one of our errors."""
    base = tmp_path_factory.mktemp("fuzz")
    folder = Checkpoint().write(base / "model")
    file = data.draw(st.sampled_from(["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"]))
    content = bytearray((folder / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.sampled_from(b'0129-"{}[],:tfn\\ .eE') | st.integers(0, 255))
    (folder / file).write_bytes(content)
    with contextlib.suppress(QuipuError):
        convert(folder, base / "a.gguf", outtype="f32")
        with GGUFReader(base / "a.gguf") as reader:
            load_model(reader)
