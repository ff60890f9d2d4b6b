"""Synthetic models: valid files of any type, weights of a sane size, a vocabulary that hangs together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quipu.backends.program import Batch, Recorder
from quipu.backends.reference import ReferenceBackend
from quipu.bench.synthetic import SHAPES, _tensor_specs, _types_of, make_vocabulary, write_synthetic_model
from quipu.errors import UsageError
from quipu.gguf import GGMLType, GGUFReader
from quipu.models import load_model
from quipu.quant import dequantize
from quipu.tokenizer import Tokenizer

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
TYPES += ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0"]
TYPES += ["IQ1_M", "MXFP4", "NVFP4", "Q1_0", "Q2_0", "Q4_K_M", "Q4_K_S", "Q5_K_M"]


@pytest.fixture(scope="module", params=[*(("llama-tiny", name) for name in TYPES), ("qwen3moe-tiny", "Q4_K_M")])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GGUFReader:
    path = tmp_path_factory.mktemp("synthetic") / "model.gguf"
    shape, type_name = request.param
    write_synthetic_model(path, shape, type_name, seed=4)
    return GGUFReader(path)


def test_weights_have_the_size_of_trained_ones(tiny: GGUFReader) -> None:
    for name in ("token_embd.weight", "blk.0.ffn_down.weight", "blk.0.ffn_down_exps.weight", "blk.1.attn_q.weight"):
        if name not in tiny.tensors:
            continue
        values = dequantize(tiny.tensor_data(name), tiny.tensors[name].type)
        assert np.isfinite(values).all()
        assert 0.015 < values.std() < 0.025
        # Two bits stand for -1, 0, 1 and 2, so random ones are off centre by half a step.
        if tiny.tensors[name].type not in (GGMLType.TQ2_0, GGMLType.Q2_0):
            assert abs(values.mean()) < 0.004


def test_no_two_tokens_have_the_same_embedding(tiny: GGUFReader) -> None:
    rows = tiny.tensor_data("token_embd.weight")
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_the_model_computes_finite_logits_that_differ(tiny: GGUFReader) -> None:
    model, backend = load_model(tiny), ReferenceBackend()
    tokens = np.arange(5, dtype=np.int32)
    batch = Batch(
        token_ids=tokens,
        positions=tokens,
        query_starts=np.array([0, 5], np.int32),
        kv_lengths=np.array([5], np.int32),
        page_tables=np.array([[0]], np.int32),
        output_rows=np.array([4], np.int32),
    )
    kv = backend.create_kv_storage(model.kv_spec(GGMLType.F16, GGMLType.F16, 16), 1)
    logits = backend.compile(model.record(Recorder()), max_tokens=5).run(batch, kv)
    assert np.isfinite(logits).all()
    assert len(np.unique(logits)) > 0.95 * logits.size


@pytest.mark.parametrize("shape", SHAPES)
def test_the_vocabulary_hangs_together(shape: str) -> None:
    sizes = SHAPES[shape]
    tokens, merges = make_vocabulary(sizes.vocab_size, sizes.num_merges, sizes.num_control)
    assert (len(tokens), len(merges)) == (sizes.vocab_size, sizes.num_merges)
    assert len(set(tokens)) == len(tokens)
    assert len(set(merges)) == len(merges)
    known = set(tokens[: len(tokens) - sizes.num_control])
    pairs = [merge.split(" ") for merge in merges]
    assert all(left in known and right in known and left + right in known for left, right in pairs)
    assert known == {left + right for left, right in pairs} | set(tokens[:256])


def test_text_survives_the_vocabulary(tmp_path: Path) -> None:
    write_synthetic_model(tmp_path / "model.gguf", "llama-tiny", "Q8_0", seed=0)
    tokenizer = Tokenizer.from_gguf(tmp_path / "model.gguf")
    text = "Hello there, this is some text.\n\tÄpfel, 漢字 and 🙂!"
    ids = tokenizer.encode(text, add_special=False)
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text.encode())


def test_shapes_of_real_models() -> None:
    """The numbers are those of the published models, and the types those that llama-quantize gives them."""
    for shape, vocab_size, num_merges in (("llama-1b", 128_256, 280_147), ("qwen2-0.5b", 151_936, 151_387)):
        assert (SHAPES[shape].vocab_size, SHAPES[shape].num_merges) == (vocab_size, num_merges)
    types = {spec.name: spec.type.name for spec in _tensor_specs(SHAPES["llama-1b"], _types_of("Q4_K_M"))}
    better = [i for i in range(16) if types[f"blk.{i}.ffn_down.weight"] == "Q6_K"]
    assert better == [0, 1, 4, 7, 10, 13, 14, 15]
    assert better == [i for i in range(16) if types[f"blk.{i}.attn_v.weight"] == "Q6_K"]
    assert (types["token_embd.weight"], types["blk.0.attn_q.weight"]) == ("Q6_K", "Q4_K")
    # Rows of 896 are not whole blocks of 256: six bits become Q8_0, four become Q5_0.
    types = {spec.name: spec.type.name for spec in _tensor_specs(SHAPES["qwen2-0.5b"], _types_of("Q4_K_M"))}
    assert types["token_embd.weight"] == types["blk.0.attn_v.weight"] == "Q8_0"
    assert types["blk.0.attn_q.weight"] == types["blk.3.attn_v.weight"] == "Q5_0"
    assert types["blk.3.ffn_down.weight"] == "Q4_K"  # rows of 4864 are


def test_the_seed_decides(tmp_path: Path) -> None:
    contents = []
    for seed in (1, 1, 2):
        write_synthetic_model(tmp_path / "model.gguf", "llama-tiny", "Q4_0", seed=seed)
        contents.append((tmp_path / "model.gguf").read_bytes())
    assert contents[0] == contents[1]
    assert contents[1] != contents[2]


def test_progress_counts_all_bytes(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    path = tmp_path / "model.gguf"
    write_synthetic_model(path, "llama-tiny", "F16", seed=0, progress=lambda *step: steps.append(step))
    with GGUFReader(path) as reader:
        total = sum(info.num_bytes for info in reader.tensors.values())
    assert steps[-1] == (total, total)
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})


@pytest.mark.parametrize(("shape", "type_name"), [("llama-9b", "Q4_K_M"), ("llama-tiny", "Q9_K"), ("llama-tiny", "I8")])
def test_unknown_names_are_refused(shape: str, type_name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"'{shape}'.*llama-1b|'{type_name}'.*Q4_K_M"):
        write_synthetic_model(tmp_path / "model.gguf", shape, type_name, seed=0)
    assert list(tmp_path.iterdir()) == []
