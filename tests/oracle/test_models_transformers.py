"""Random models built by transformers, written through our GGUF writer, computed by our backends: the same logits.

Needs PyTorch and transformers (`make oracle`). Everything is float32: weights, KV cache, and transformers' own run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quipu.backends.program import Backend, Batch, Recorder
from quipu.backends.reference import ReferenceBackend
from quipu.gguf import GGMLType, GGUFReader, write_gguf
from quipu.models import Model, load_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed; `make oracle` installs it")
transformers = pytest.importorskip("transformers", reason="transformers is not installed; `make oracle` installs it")

NUM_TOKENS = 90
MAX_ERROR = 1e-5  # the rounding of two float32 runs is below 2e-6; the requirement is 1e-4
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}


@dataclass(frozen=True)
class Case:
    """A configuration for transformers, and the metadata that says the same in a GGUF file.

    `family` is what transformers calls the architecture, where that is another name.
    """

    name: str
    architecture: str
    config: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    family: str | None = None


CASES = [
    Case("llama", "llama", {"num_key_value_heads": 2}),
    Case("llama without groups", "llama", {"num_key_value_heads": 8}),
    Case("llama with one kv head", "llama", {"num_key_value_heads": 1}),
    Case("llama tied", "llama", {"tie_word_embeddings": True}),
    Case("llama with biases", "llama", {"attention_bias": True, "mlp_bias": True}),
    Case("llama with long heads", "llama", {"head_dim": 48, "rms_norm_eps": 1e-3}),
    Case("llama 3 rope", "llama", {"rope_parameters": LLAMA3}, {"rope.freq_base": 500000.0}),
    Case(
        "llama linear",
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 3.0},
    ),
    Case(
        "llama yarn",
        "llama",
        {"rope_parameters": YARN},
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32},
    ),
    Case("qwen2", "qwen2", {}),
    Case("qwen2 tied", "qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    Case(
        "qwen2 yarn",
        "qwen2",
        {"rope_parameters": YARN},
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32},
    ),
    Case("qwen3", "qwen3", {"head_dim": 64}),
    Case("qwen3 tied", "qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    Case("qwen3 with biases", "qwen3", {"head_dim": 32, "attention_bias": True}),
    Case("qwen3 with another base", "qwen3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    Case("mixtral", "llama", {}, family="mixtral"),
    Case("mixtral with many experts", "llama", {"num_local_experts": 20, "num_experts_per_tok": 3}, family="mixtral"),
    Case("qwen3moe", "qwen3moe", {"norm_topk_prob": True, "head_dim": 64}),
    Case("qwen3moe not normalized", "qwen3moe", {"norm_topk_prob": False}, {"expert_weights_norm": False}),
    Case("qwen3moe with one expert used", "qwen3moe", {"norm_topk_prob": True, "num_experts_per_tok": 1}),
    Case("qwen3moe with all experts used", "qwen3moe", {"norm_topk_prob": True, "num_experts_per_tok": 12}),
    Case("qwen2moe", "qwen2moe", {"norm_topk_prob": False}),
    Case("qwen2moe normalized", "qwen2moe", {"norm_topk_prob": True}, {"expert_weights_norm": True}),
]

MODULE_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
}


EXPERT_SIZES: dict[str, dict[str, int]] = {
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2moe": {
        "num_experts": 12,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 96,
        "shared_expert_intermediate_size": 160,
    },
    "qwen3moe": {"num_experts": 12, "num_experts_per_tok": 3, "moe_intermediate_size": 96},
}


def build(case: Case) -> Any:
    """A transformers model with random weights of a sane size, norms and biases included."""
    classes = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
        "mixtral": (transformers.MixtralConfig, transformers.MixtralForCausalLM),
        "qwen2moe": (transformers.Qwen2MoeConfig, transformers.Qwen2MoeForCausalLM),
        "qwen3moe": (transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM),
    }
    family = case.family or case.architecture
    config_class, model_class = classes[family]
    sizes = {
        "vocab_size": 160,
        "hidden_size": 256,
        "intermediate_size": 352,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attn_implementation": "eager",
    }
    if family in EXPERT_SIZES:
        sizes |= {"experts_implementation": "eager", **EXPERT_SIZES[family]}
    model = model_class(config_class(**{**sizes, **case.config})).to(torch.float32).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                values = 1 + 0.2 * values
            elif parameter.ndim >= 2:
                values = values / math.sqrt(parameter.shape[-1])
            parameter.copy_(values)
    return model


def rotate_rows(array: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """Llama's rows of q or k as GGUF orders them: pairs (i, i + n/2) of each head become neighbours."""
    halves = array.reshape(num_heads, 2, array.shape[0] // num_heads // 2, *array.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))


def llama3_factors(rope: dict[str, Any], head_length: int) -> NDArray[np.float32]:
    """Llama 3.1's rule as the factors that `rope_freqs.weight` holds, from the rule's definition."""
    frequencies = rope["rope_theta"] ** (-np.arange(0, head_length, 2) / head_length)
    rotations = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = np.clip((rotations - low) / (high - low), 0, 1)
    return (1 / (kept + (1 - kept) / rope["factor"])).astype(np.float32)


def gguf_tensors(case: Case, model: Any) -> Iterator[tuple[str, NDArray[np.float32]]]:
    config = model.config
    for name, tensor in model.state_dict().items():
        array = np.ascontiguousarray(tensor.numpy())
        if name == "lm_head.weight":
            if not config.tie_word_embeddings:
                yield "output.weight", array
        elif not name.startswith("model.layers."):
            yield (
                {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name],
                array,
            )
        else:
            layer, rest = name.removeprefix("model.layers.").split(".", 1)
            module, kind = rest.rsplit(".", 1)
            if module == "mlp.experts":
                yield from expert_tensors(f"blk.{layer}", kind, array)
                continue
            if case.architecture == "llama" and module in ("self_attn.q_proj", "self_attn.k_proj"):
                heads = config.num_attention_heads if "q_proj" in module else config.num_key_value_heads
                array = rotate_rows(array, heads)
            yield f"blk.{layer}.{MODULE_NAMES[module]}.{kind}", array
    if config.rope_parameters["rope_type"] == "llama3":
        yield "rope_freqs.weight", llama3_factors(config.rope_parameters, config.head_dim)


def expert_tensors(prefix: str, kind: str, array: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Stacked experts [experts, rows, columns]; gate and up are one tensor in transformers, two in GGUF."""
    if kind == "down_proj":
        yield f"{prefix}.ffn_down_exps.weight", array
        return
    half = array.shape[1] // 2
    yield f"{prefix}.ffn_gate_exps.weight", np.ascontiguousarray(array[:, :half])
    yield f"{prefix}.ffn_up_exps.weight", np.ascontiguousarray(array[:, half:])


def expert_keys(config: Any) -> dict[str, Any]:
    """The metadata of experts, where there are any."""
    keys = {
        "expert_count": getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None),
        "expert_used_count": getattr(config, "num_experts_per_tok", None),
        "expert_feed_forward_length": getattr(config, "moe_intermediate_size", None),
        "expert_shared_feed_forward_length": getattr(config, "shared_expert_intermediate_size", None),
    }
    return {name: value for name, value in keys.items() if value is not None}


def write_model(case: Case, model: Any, path: Path) -> None:
    config = model.config
    keys = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
        **expert_keys(config),
        **case.metadata,
    }
    head_length = getattr(config, "head_dim", None)
    if head_length is not None:
        keys |= {"attention.key_length": head_length, "attention.value_length": head_length}
    metadata = {"general.architecture": case.architecture, "tokenizer.ggml.model": "no_vocab"}
    metadata |= {f"{case.architecture}.{name}": value for name, value in keys.items()}
    write_gguf(path, metadata, gguf_tensors(case, model))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name.replace(" ", "-"))
def computed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, NDArray[np.int32], NDArray[np.float32]]:
    """Our model, the tokens, and the logits [T, vocab] of transformers."""
    model = build(request.param)
    path = tmp_path_factory.mktemp("model") / "model.gguf"
    write_model(request.param, model, path)
    tokens = np.random.default_rng(2).integers(0, model.config.vocab_size, NUM_TOKENS).astype(np.int32)
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0].numpy()
    with GGUFReader(path) as reader:
        return load_model(reader), tokens, logits


def cpu_backend() -> Backend:
    module = pytest.importorskip("quipu.backends.cpu", reason="the native module is not built", exc_type=ImportError)
    backend: Backend = module.CPUBackend(2)
    return backend


@pytest.mark.parametrize("make_backend", [ReferenceBackend, cpu_backend], ids=["reference", "cpu"])
@pytest.mark.parametrize("step", [NUM_TOKENS, 7], ids=["whole", "chunks"])
def test_logits(
    computed: tuple[Model, NDArray[np.int32], NDArray[np.float32]], make_backend: Callable[[], Backend], step: int
) -> None:
    model, tokens, expected = computed
    backend = make_backend()
    executable = backend.compile(model.record(Recorder()), max_tokens=NUM_TOKENS)
    kv = backend.create_kv_storage(model.kv_spec(GGMLType.F32, GGMLType.F32, 16), 8)
    parts = []
    for begin in range(0, NUM_TOKENS, step):
        end = min(begin + step, NUM_TOKENS)
        batch = Batch(
            token_ids=tokens[begin:end],
            positions=np.arange(begin, end, dtype=np.int32),
            query_starts=np.array([0, end - begin], np.int32),
            kv_lengths=np.array([end], np.int32),
            page_tables=np.array([[6, 0, 3, 7, 1, 4]], np.int32),
            output_rows=np.arange(end - begin, dtype=np.int32),
        )
        parts.append(executable.run(batch, kv).copy())
    got = np.concatenate(parts).astype(np.float64)
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error < MAX_ERROR
