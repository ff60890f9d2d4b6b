"""From a file to a model: what is read, what is shared instead of copied, and what is refused, by name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import EXPERT_INNER, HEAD_LENGTH, HEADS, INNER, KV_HEADS, VOCAB, WIDTH, ModelFile, tiny_model
from numpy.typing import NDArray

from quipu.backends.program import Batch, Recorder, Weight
from quipu.backends.reference import ReferenceBackend
from quipu.errors import ModelFileError, QuipuError, UnsupportedModelError
from quipu.gguf import GGMLType, GGUFReader
from quipu.models import Model, load_model

ARCHITECTURES = ["llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe"]


def load(file: ModelFile, folder: Path) -> Model:
    with GGUFReader(file.write(folder)) as reader:
        return load_model(reader)


def refusal(file: ModelFile, folder: Path, kind: type[QuipuError]) -> str:
    """The message of the refusal; its kind is exactly `kind`."""
    with pytest.raises(QuipuError) as caught:
        load(file, folder)
    assert type(caught.value) is kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def logits_of(model: Model, num_tokens: int = 9) -> NDArray[np.float32]:
    backend = ReferenceBackend()
    tokens = np.arange(1, num_tokens + 1, dtype=np.int32)
    batch = Batch(
        token_ids=tokens,
        positions=tokens - 1,
        query_starts=np.array([0, num_tokens], np.int32),
        kv_lengths=np.array([num_tokens], np.int32),
        page_tables=np.array([[0]], np.int32),
        output_rows=tokens - 1,
    )
    kv = backend.create_kv_storage(model.kv_spec(GGMLType.F32, GGMLType.F32, 16), 1)
    return backend.compile(model.record(Recorder()), max_tokens=16).run(batch, kv)


def recorded_weights(model: Model) -> list[Weight]:
    return [weight for op in model.record(Recorder()).ops for weight in op.weights if weight is not None]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_loads(architecture: str, tmp_path: Path) -> None:
    file = tiny_model(architecture)
    model = load(file, tmp_path)
    assert model.spec.architecture == architecture
    assert (model.spec.vocab_size, model.spec.embedding_length, model.spec.num_layers) == (VOCAB, WIDTH, 2)
    assert (model.spec.num_heads, model.spec.num_kv_heads) == (HEADS, KV_HEADS)
    assert (model.spec.key_length, model.spec.value_length) == (HEAD_LENGTH, HEAD_LENGTH)
    assert model.spec.context_length == 128
    assert model.spec.rope.pairing == ("norm" if architecture == "llama" else "neox")
    assert {weight.name for weight in recorded_weights(model)} == set(file.tensors)
    assert np.isfinite(logits_of(model)).all()  # the mapping outlives the reader, which is closed


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_stay_in_the_mapped_file(architecture: str, tmp_path: Path) -> None:
    for weight in recorded_weights(load(tiny_model(architecture), tmp_path)):
        assert not weight.data.flags.owndata
        assert not weight.data.flags.writeable


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "qwen2moe"])
def test_without_output_the_embedding_makes_the_logits(architecture: str, tmp_path: Path) -> None:
    file = tiny_model(architecture)
    file.tensors["output.weight"] = file.tensors["token_embd.weight"].copy()
    expected = logits_of(load(file, tmp_path))
    del file.tensors["output.weight"]
    tied = load(file, tmp_path)
    np.testing.assert_array_equal(logits_of(tied), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("with_biases", [False, True])
def test_fused_projections_are_slices(architecture: str, with_biases: bool, tmp_path: Path) -> None:
    file = tiny_model(architecture)
    rng = np.random.default_rng(1)
    for layer in range(2):
        for part, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            name = f"blk.{layer}.attn_{part}.bias"
            file.tensors.pop(name, None)
            if with_biases:
                file.tensors[name] = rng.standard_normal(rows * HEAD_LENGTH).astype(np.float32)
    expected = logits_of(load(file, tmp_path))
    for layer in range(2):
        for kind in ("weight", "bias") if with_biases else ("weight",):
            parts = [file.tensors.pop(f"blk.{layer}.attn_{part}.{kind}") for part in "qkv"]
            file.tensors[f"blk.{layer}.attn_qkv.{kind}"] = np.concatenate(parts)
    fused = load(file, tmp_path)
    assert not any(weight.data.flags.owndata for weight in recorded_weights(fused))
    np.testing.assert_allclose(logits_of(fused), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"])
def test_a_bias_is_applied_wherever_there_is_one(name: str, tmp_path: Path) -> None:
    """A bias on rows of zeros is the whole output, so it must equal a weight that makes the same numbers."""
    file = tiny_model("llama")
    plain = logits_of(load(file, tmp_path))
    rows = len(file.tensors[f"blk.1.{name}.weight"])
    file.tensors[f"blk.1.{name}.bias"] = np.zeros(rows, np.float32)
    np.testing.assert_allclose(logits_of(load(file, tmp_path)), plain, rtol=1e-5, atol=1e-6)
    file.tensors[f"blk.1.{name}.bias"] = np.linspace(0.5, 1.0, rows, dtype=np.float32)
    assert np.abs(logits_of(load(file, tmp_path)) - plain).max() > 1e-3


def test_the_vocabulary_size_may_come_from_the_embedding_alone(tmp_path: Path) -> None:
    assert load(tiny_model("llama"), tmp_path).spec.vocab_size == VOCAB
    assert load(tiny_model("llama", changes={"vocab_size": VOCAB}), tmp_path).spec.vocab_size == VOCAB


@pytest.mark.parametrize(
    "changes",
    [
        {"expert_count": 0},
        {"attention.causal": True},
        {"attention.sliding_window": 0},
        {"use_parallel_residual": False},
        {"rope.scaling.type": "none", "rope.scaling.factor": 8.0},
        {"rope.scaling.factor": 0.0},
        {"attention.head_count_kv": [KV_HEADS] * 2, "feed_forward_length": [INNER] * 2},
        {"attention.key_length": HEAD_LENGTH, "rope.dimension_count": HEAD_LENGTH},
    ],
    ids=str,
)
def test_values_that_change_nothing_are_accepted(changes: dict[str, Any], tmp_path: Path) -> None:
    expected = logits_of(load(tiny_model("llama"), tmp_path))
    np.testing.assert_array_equal(logits_of(load(tiny_model("llama", changes=changes), tmp_path)), expected)


def test_an_unknown_architecture_is_named_beside_the_known_ones(tmp_path: Path) -> None:
    message = refusal(tiny_model("gptj"), tmp_path, UnsupportedModelError)
    assert "'gptj'" in message
    assert all(name in message for name in ARCHITECTURES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_is_required(architecture: str, tmp_path: Path) -> None:
    optional = {f"blk.{layer}.attn_{part}.bias" for layer in range(2) for part in "qkv"}
    if architecture != "qwen2moe":
        optional.add("output.weight")
    for name in tiny_model(architecture).tensors:
        if name not in optional:
            file = tiny_model(architecture)
            del file.tensors[name]
            message = refusal(file, tmp_path, ModelFileError)
            assert name in message
            assert "missing" in message


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_shape_is_checked(architecture: str, tmp_path: Path) -> None:
    for name, array in tiny_model(architecture).tensors.items():
        file = tiny_model(architecture, changes={"vocab_size": VOCAB})
        file.tensors[name] = np.concatenate([array, array])
        message = refusal(file, tmp_path, ModelFileError)
        assert name in message
        assert str(2 * len(array)) in message
        assert str(len(array)) in message


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_experts_belong_to_the_architectures_that_have_them(architecture: str, tmp_path: Path) -> None:
    file = tiny_model(architecture, changes={"expert_count": 8, "expert_used_count": 2})
    assert f"{architecture}.expert_count" in refusal(file, tmp_path, UnsupportedModelError)


EXPERT_FILES: dict[str, tuple[str, dict[str, Any], type[QuipuError], str]] = {
    "sigmoid": ("qwen3moe", {"expert_gating_func": 2}, UnsupportedModelError, r"expert_gating_func = 2 \(sigmoid\)"),
    "unknown gating": ("llama", {"expert_gating_func": 9}, UnsupportedModelError, r"gating_func = 9 \(unknown\)"),
    "no experts": ("qwen3moe", {"expert_count": 0}, ModelFileError, "qwen3moe.expert_count"),
    "no expert count": ("qwen2moe", {"expert_count": None}, ModelFileError, "qwen2moe.expert_count"),
    "none used": ("llama", {"expert_used_count": 0}, ModelFileError, "llama.expert_used_count"),
    "more than there are": ("llama", {"expert_used_count": 6}, ModelFileError, "expert_used_count is 6.*5 experts"),
    "absurdly many": ("llama", {"expert_count": 2**31 - 1}, ModelFileError, "llama.expert_count"),
    "inner size": ("qwen3moe", {"expert_feed_forward_length": 25}, ModelFileError, "ffn_gate_exps.weight.*32x24x5"),
    "groups": ("qwen3moe", {"expert_group_count": 8}, UnsupportedModelError, "qwen3moe.expert_group_count"),
    "scale": ("qwen3moe", {"expert_weights_scale": float("nan")}, ModelFileError, "expert_weights_scale"),
    "list": ("llama", {"expert_count": [5, 5]}, ModelFileError, "llama.expert_count"),
}


@pytest.mark.parametrize(("architecture", "changes", "kind", "message"), EXPERT_FILES.values(), ids=EXPERT_FILES)
def test_experts_that_are_not_understood_are_refused(
    architecture: str, changes: dict[str, Any], kind: type[QuipuError], message: str, tmp_path: Path
) -> None:
    file = tiny_model(architecture, changes=changes, experts=True)
    assert re.search(message, refusal(file, tmp_path, kind))


def test_experts_stored_one_by_one_are_refused(tmp_path: Path) -> None:
    file = tiny_model("llama", experts=True)
    for name in ("gate", "up", "down"):
        stacked = file.tensors.pop(f"blk.0.ffn_{name}_exps.weight")
        file.tensors |= {f"blk.0.ffn_{name}.{i}.weight": matrix for i, matrix in enumerate(stacked)}
    assert "'blk.0.ffn_gate.0.weight' holds one expert alone" in refusal(file, tmp_path, UnsupportedModelError)


def test_mixtral_is_a_llama_with_experts(tmp_path: Path) -> None:
    file = tiny_model("llama", experts=True)
    model = load(file, tmp_path)
    assert model.spec.experts is not None
    assert (model.spec.experts.num_experts, model.spec.experts.num_used, model.spec.experts.normalize) == (5, 2, True)
    assert {weight.name for weight in recorded_weights(model)} == set(file.tensors)
    assert np.isfinite(logits_of(model)).all()


def test_with_equal_experts_the_router_does_not_matter(tmp_path: Path) -> None:
    """Normalized shares of equal experts sum to that expert, which is a dense model."""
    dense, mixed = tiny_model("llama"), tiny_model("llama", experts=True)
    for name, array in dense.tensors.items():
        part = name.split(".")[-2]
        if part in ("ffn_gate", "ffn_up", "ffn_down"):
            mixed.tensors[name.replace(part, f"{part}_exps")] = np.stack([array] * 5)
        else:
            mixed.tensors[name] = array
    expected = logits_of(load(dense, tmp_path))
    np.testing.assert_allclose(logits_of(load(mixed, tmp_path)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"expert_weights_norm": True}, False),
        ({"expert_weights_norm": False}, True),
        ({"expert_weights_scale": 0.0}, False),
        ({"expert_weights_scale": 2.5}, True),
        ({"expert_gating_func": 1}, False),
        ({"expert_used_count": 3}, True),
        ({"expert_group_count": 1, "expert_group_used_count": 1}, False),
        ({"feed_forward_length": None}, False),
        ({"expert_feed_forward_length": None, "feed_forward_length": 2 * EXPERT_INNER}, False),
    ],
    ids=str,
)
def test_keys_of_experts_are_obeyed(changes: dict[str, Any], differs: bool, tmp_path: Path) -> None:
    plain = logits_of(load(tiny_model("qwen3moe"), tmp_path))
    changed = logits_of(load(tiny_model("qwen3moe", changes=changes), tmp_path))
    assert (np.abs(changed - plain).max() > 1e-3) == differs


@pytest.mark.parametrize(
    "name", ["blk.0.attn_sinks.weight", "blk.1.ffn_gate_inp.weight", "cls.output.weight", "blk.2.x"]
)
def test_a_tensor_that_would_not_be_used_is_refused(name: str, tmp_path: Path) -> None:
    file = tiny_model("llama")
    file.tensors[name] = np.ones(HEADS, np.float32)
    assert name in refusal(file, tmp_path, UnsupportedModelError)


def test_rotary_frequencies_of_old_converters_are_ignored(tmp_path: Path) -> None:
    file = tiny_model("llama")
    file.tensors["blk.0.attn_rot_embd"] = np.ones(4, np.float32)
    load(file, tmp_path)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    file = tiny_model("llama")
    del file.tensors["blk.1.ffn_up.weight"]
    file.raw["blk.1.ffn_up.weight"] = ((WIDTH, INNER), GGMLType.I8, np.zeros((INNER, WIDTH), np.uint8))
    message = refusal(file, tmp_path, UnsupportedModelError)
    assert "blk.1.ffn_up.weight" in message
    assert "I8" in message


UNSUPPORTED: dict[str, Any] = {
    "expert_shared_count": 1,
    "expert_group_count": 4,
    "attention.sliding_window": 16,
    "attention.causal": False,
    "attention.clamp_kqv": 8.0,
    "attention.max_alibi_bias": 8.0,
    "attention.scale": 0.25,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "embedding_scale": 12.0,
    "residual_scale": 0.22,
    "logit_scale": 0.0625,
    "nextn_predict_layers": 1,
    "leading_dense_block_count": 1,
    "use_parallel_residual": True,
    "rope.scaling.type": "longrope",
    "rope.scaling.yarn_beta_fast": 16.0,
    "rope.scaling.yarn_log_multiplier": 0.1,
    "attention.head_count_kv": [2, 4],
    "feed_forward_length": [INNER, 2 * INNER],
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_metadata_that_would_be_ignored_is_refused(architecture: str, name: str, tmp_path: Path) -> None:
    file = tiny_model(architecture, changes={name: UNSUPPORTED[name]})
    assert f"{architecture}.{name}" in refusal(file, tmp_path, UnsupportedModelError)


def test_llama_rotates_whole_heads(tmp_path: Path) -> None:
    file = tiny_model("llama", changes={"rope.dimension_count": 4})
    assert "4 rotated" in refusal(file, tmp_path, UnsupportedModelError)
    assert load(tiny_model("qwen2", changes={"rope.dimension_count": 4}), tmp_path).spec.rope.num_rotated == 4


IMPOSSIBLE: dict[str, tuple[str, Any]] = {
    "no layers": ("block_count", 0),
    "too many layers": ("block_count", 2**31 - 1),
    "no layer count": ("block_count", None),
    "no width": ("embedding_length", None),
    "no context": ("context_length", 0),
    "no heads": ("attention.head_count", 0),
    "more heads than values": ("attention.head_count", 2**30),
    "uneven heads": ("attention.head_count_kv", 3),
    "no epsilon": ("attention.layer_norm_rms_epsilon", None),
    "epsilon": ("attention.layer_norm_rms_epsilon", -1.0),
    "NaN epsilon": ("attention.layer_norm_rms_epsilon", float("nan")),
    "a text": ("embedding_length", "many"),
    "huge heads": ("attention.key_length", 2**31 - 1),
    "frequency base": ("rope.freq_base", 0.0),
    "scaling factor": ("rope.scaling.factor", -2.0),
}


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_metadata_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    message = refusal(tiny_model("llama", changes={name: value}), tmp_path, ModelFileError)
    assert f"llama.{name}" in message or "heads" in message


@pytest.mark.parametrize("rotated", [3, 2**31 - 2, HEAD_LENGTH + 2, 0])
def test_an_impossible_number_of_rotated_dimensions_is_refused(rotated: int, tmp_path: Path) -> None:
    message = refusal(tiny_model("qwen3", changes={"rope.dimension_count": rotated}), tmp_path, ModelFileError)
    assert "rotated" in message or "rope.dimension_count" in message


@pytest.mark.parametrize("name", ["expert_shared_count", "attention.causal", "logit_scale"])
def test_an_array_where_a_number_belongs_is_refused(name: str, tmp_path: Path) -> None:
    file = tiny_model("llama", changes={name: [0, 0, 0]})
    assert f"llama.{name}" in refusal(file, tmp_path, UnsupportedModelError)


def test_token_list_and_embedding_have_to_agree(tmp_path: Path) -> None:
    file = tiny_model("llama")
    file.metadata["tokenizer.ggml.tokens"] = [f"t{i}" for i in range(VOCAB + 1)]
    message = refusal(file, tmp_path, ModelFileError)
    assert str(VOCAB) in message
    assert str(VOCAB + 1) in message
    file.metadata["tokenizer.ggml.tokens"] = [f"t{i}" for i in range(VOCAB)]
    load(file, tmp_path)
    file.metadata["tokenizer.ggml.tokens"] = 5  # the tokenizer refuses this; the model alone does not need the list
    load(file, tmp_path)


def frequencies(changes: dict[str, Any], folder: Path, change: Callable[[ModelFile], None] | None = None) -> Any:
    file = tiny_model("llama", changes=changes)
    if change is not None:
        change(file)
    rope = load(file, folder).spec.rope
    return rope.inverse_frequencies.astype(np.float64), rope.magnitude


PLAIN = 10000.0 ** (-np.arange(0, HEAD_LENGTH, 2) / HEAD_LENGTH)


def test_rope_frequencies(tmp_path: Path) -> None:
    for changes, expected in (
        ({}, PLAIN),
        ({"rope.freq_base": 500.0}, 500.0 ** (-np.arange(0, HEAD_LENGTH, 2) / HEAD_LENGTH)),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, PLAIN / 4),
        ({"rope.scaling.factor": 4.0}, PLAIN / 4),
        ({"rope.scale_linear": 4.0}, PLAIN / 4),
    ):
        got, magnitude = frequencies(changes, tmp_path)
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        assert magnitude == 1.0


def test_frequency_factors_divide(tmp_path: Path) -> None:
    factors = np.array([1.0, 2.0, 4.0, 8.0], np.float32)
    got, _ = frequencies({}, tmp_path, lambda file: file.tensors.update({"rope_freqs.weight": factors}))
    np.testing.assert_allclose(got, PLAIN / factors, rtol=1e-6)


@pytest.mark.parametrize("factors", [[1, 1, 1], [1, 1, 0, 1], [1, 1, 1, float("nan")], [1, -1, 1, 1]])
def test_impossible_frequency_factors_are_refused(factors: list[float], tmp_path: Path) -> None:
    file = tiny_model("llama")
    file.tensors["rope_freqs.weight"] = np.array(factors, np.float32)
    assert "rope_freqs.weight" in refusal(file, tmp_path, ModelFileError)


def test_yarn(tmp_path: Path) -> None:
    """Fast frequencies stay, slow ones are divided, and the magnitude grows with the factor."""
    changes = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 4096,
        "rope.scaling.attn_factor": 2.0,
    }
    got, magnitude = frequencies(changes, tmp_path)
    assert math.isclose(magnitude, 2.0 * (1 + 0.1 * math.log(4.0)))
    # n_rot ln(n0 / (2 pi b)) / (2 ln base): 1.3 for 32 rotations, 2.8 for 1, so pairs 1 to 3 are the ramp.
    np.testing.assert_allclose(got, PLAIN * [1, 1, 1 - 0.5 * 0.75, 0.25], rtol=1e-6)


def test_yarn_needs_a_base_above_one(tmp_path: Path) -> None:
    file = tiny_model("llama", changes={"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, "rope.freq_base": 1.0})
    assert re.search(r"llama\.rope\.freq_base is 1", refusal(file, tmp_path, ModelFileError))
