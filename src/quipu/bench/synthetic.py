"""Models of real shapes with random weights and a made-up vocabulary, to measure speed and memory without a download.

The blocks are random but valid, scaled so that activations stay finite; the vocabulary is a consistent byte-level BPE
with as many tokens and merges as the real one, so that loading and tokenizing cost what they cost there.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quipu.errors import UsageError
from quipu.gguf import GGMLType, GGUFWriter, TensorSpec
from quipu.quant import dequantize

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ExpertSizes:
    """Experts of a layer, how many of them a token uses, and the inner size of one."""

    count: int
    used: int
    length: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model. `num_merges` and `num_control` (tokens) belong to its vocabulary."""

    architecture: str
    num_layers: int
    embedding_length: int
    feed_forward_length: int
    num_heads: int
    num_kv_heads: int
    head_length: int
    vocab_size: int
    num_merges: int
    num_control: int
    context_length: int
    rope_freq_base: float
    pre_tokenizer: str
    has_biases: bool
    has_rope_factors: bool
    experts: ExpertSizes | None = None


_A3B_EXPERTS = ExpertSizes(128, 8, 768)

SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "llama-1b": Shape(
            "llama", 16, 2048, 8192, 32, 8, 64, 128256, 280147, 256, 131072, 500000.0, "llama-bpe", False, True
        ),
        # A quarter of its layers and of its vocabulary: what a type costs, without a gigabyte for each type.
        "llama-1b-short": Shape(
            "llama", 4, 2048, 8192, 32, 8, 64, 32000, 31488, 256, 131072, 500000.0, "llama-bpe", False, True
        ),
        "qwen2-0.5b": Shape(
            "qwen2", 24, 896, 4864, 14, 2, 64, 151936, 151387, 293, 32768, 1000000.0, "qwen2", True, False
        ),
        # Qwen3-30B-A3B with 6 of its 48 layers and a fifth of its vocabulary: the experts are what there is to measure.
        "qwen3moe-a3b-6": Shape(
            "qwen3moe", 6, 2048, 6144, 32, 4, 128, 32768, 32219, 293, 40960, 1e6, "qwen2", False, False, _A3B_EXPERTS
        ),
        "llama-tiny": Shape("llama", 2, 256, 512, 4, 2, 64, 1024, 800, 8, 2048, 10000.0, "llama-bpe", False, True),
        "qwen3moe-tiny": Shape(
            "qwen3moe", 2, 256, 512, 4, 2, 64, 1024, 800, 8, 2048, 1e6, "qwen2", False, False, ExpertSizes(16, 4, 256)
        ),
    }
)

# The types of a preset: (most tensors, half of attn_v and ffn_down, embedding and head).
_PRESETS: Mapping[str, tuple[GGMLType, GGMLType, GGMLType]] = MappingProxyType(
    {
        "Q4_K_M": (GGMLType.Q4_K, GGMLType.Q6_K, GGMLType.Q6_K),
        "Q4_K_S": (GGMLType.Q4_K, GGMLType.Q4_K, GGMLType.Q6_K),
        "Q5_K_M": (GGMLType.Q5_K, GGMLType.Q6_K, GGMLType.Q6_K),
    }
)

# Where rows are not whole blocks of 256, llama-quantize falls back to these types; so do its files, and so do ours.
_FALLBACKS: Mapping[GGMLType, GGMLType] = MappingProxyType(
    {
        GGMLType.Q2_K: GGMLType.Q4_0,
        GGMLType.Q3_K: GGMLType.Q4_0,
        GGMLType.Q4_K: GGMLType.Q5_0,
        GGMLType.Q5_K: GGMLType.Q5_1,
        GGMLType.Q6_K: GGMLType.Q8_0,
        GGMLType.TQ1_0: GGMLType.Q4_0,
        GGMLType.TQ2_0: GGMLType.Q4_0,
        GGMLType.Q2_0: GGMLType.Q4_0,
    }
)

# Byte offsets of the float16 scales of a block, with the factor each needs for values around zero: a minimum, which is
# subtracted (or, negative here, added), balances the mean of the unsigned codes.
_SCALES: Mapping[GGMLType, tuple[tuple[int, float], ...]] = MappingProxyType(
    {
        GGMLType.Q4_0: ((0, 1.0),),
        GGMLType.Q4_1: ((0, 1.0), (2, -7.5)),
        GGMLType.Q5_0: ((0, 1.0),),
        GGMLType.Q5_1: ((0, 1.0), (2, -15.5)),
        GGMLType.Q8_0: ((0, 1.0),),
        GGMLType.Q2_K: ((80, 1.0), (82, 1.5)),
        GGMLType.Q3_K: ((108, 1.0),),
        GGMLType.Q4_K: ((0, 1.0), (2, 7.5)),
        GGMLType.Q5_K: ((0, 1.0), (2, 15.5)),
        GGMLType.Q6_K: ((208, 1.0),),
        GGMLType.IQ2_XXS: ((0, 1.0),),
        GGMLType.IQ2_XS: ((0, 1.0),),
        GGMLType.IQ2_S: ((0, 1.0),),
        GGMLType.IQ3_XXS: ((0, 1.0),),
        GGMLType.IQ3_S: ((0, 1.0),),
        GGMLType.IQ1_S: ((0, 1.0),),
        GGMLType.IQ1_M: (),  # these three: see _set_scales
        GGMLType.MXFP4: (),
        GGMLType.NVFP4: (),
        GGMLType.IQ4_NL: ((0, 1.0),),
        GGMLType.IQ4_XS: ((0, 1.0),),
        GGMLType.TQ1_0: ((52, 1.0),),
        GGMLType.TQ2_0: ((64, 1.0),),
        GGMLType.Q1_0: ((0, 1.0),),
        GGMLType.Q2_0: ((0, 1.0),),
    }
)
_WEIGHT_STD = 0.02
# Distinct random blocks of a type, repeated without end. The number is prime, so that rows of any length begin at
# different blocks: no two tokens of a vocabulary get equal rows, which would tie their logits.
_POOL_BLOCKS = 262_147
_SAMPLE_BLOCKS = 4096


def write_synthetic_model(
    path: str | os.PathLike[str],
    shape: str,
    type_name: str,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Write a GGUF file of the named shape with random weights.

    Args:
        path: the file to make.
        shape: a name in SHAPES.
        type_name: a preset (`Q4_K_M`) or a tensor type (`Q8_0`, `F16`).
        seed: of the random weights.
        progress: called with (bytes written, bytes in all).

    Raises:
        UsageError: the shape or the type is unknown.
    """
    if shape not in SHAPES:
        raise UsageError(f"there is no synthetic shape {shape!r}; {', '.join(SHAPES)} exist")
    sizes = SHAPES[shape]
    specs = list(_tensor_specs(sizes, _types_of(type_name)))
    total = sum(spec.num_bytes for spec in specs)
    rng = np.random.default_rng(seed)
    pools: dict[GGMLType, NDArray[np.uint8]] = {}
    done = 0
    with GGUFWriter(path, _metadata(sizes, shape, type_name), specs) as writer:
        for spec in specs:
            for piece in _tensor_pieces(spec, pools, rng):
                writer.write(spec.name, piece)
                done += len(piece)
                if progress is not None:
                    progress(done, total)


def _types_of(type_name: str) -> tuple[GGMLType, GGMLType, GGMLType]:
    if type_name in _PRESETS:
        return _PRESETS[type_name]
    known = [*_SCALES, GGMLType.F32, GGMLType.F16, GGMLType.BF16]
    for candidate in known:
        if candidate.name == type_name:
            return (candidate,) * 3
    names = ", ".join([*_PRESETS, *(t.name for t in known)])
    raise UsageError(f"there is no synthetic type {type_name!r}; {names} exist")


def _uses_more_bits(index: int, count: int) -> bool:
    """The layers in which the _M presets spend more: the first and last eighth, and every third between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def _tensor_specs(sizes: Shape, types: tuple[GGMLType, GGMLType, GGMLType]) -> Iterator[TensorSpec]:
    base, better, head = types
    width, hidden = sizes.embedding_length, sizes.feed_forward_length
    experts = sizes.experts
    q_rows, kv_rows = sizes.num_heads * sizes.head_length, sizes.num_kv_heads * sizes.head_length

    def matrix(name: str, cols: int, rows: int, wanted: GGMLType, *stacked: int) -> TensorSpec:
        if cols % wanted.block_size:
            wanted = _FALLBACKS.get(wanted, GGMLType.IQ4_NL)
        return TensorSpec(name, (cols, rows, *stacked), wanted)

    def vector(name: str, length: int) -> TensorSpec:
        return TensorSpec(name, (length,), GGMLType.F32)

    yield matrix("token_embd.weight", width, sizes.vocab_size, head)
    if sizes.has_rope_factors:
        yield vector("rope_freqs.weight", sizes.head_length // 2)
    for i in range(sizes.num_layers):
        more = better if _uses_more_bits(i, sizes.num_layers) else base
        yield vector(f"blk.{i}.attn_norm.weight", width)
        yield matrix(f"blk.{i}.attn_q.weight", width, q_rows, base)
        yield matrix(f"blk.{i}.attn_k.weight", width, kv_rows, base)
        yield matrix(f"blk.{i}.attn_v.weight", width, kv_rows, more)
        if sizes.has_biases:
            yield vector(f"blk.{i}.attn_q.bias", q_rows)
            yield vector(f"blk.{i}.attn_k.bias", kv_rows)
            yield vector(f"blk.{i}.attn_v.bias", kv_rows)
        yield matrix(f"blk.{i}.attn_output.weight", q_rows, width, base)
        if sizes.architecture == "qwen3moe":
            yield vector(f"blk.{i}.attn_q_norm.weight", sizes.head_length)
            yield vector(f"blk.{i}.attn_k_norm.weight", sizes.head_length)
        yield vector(f"blk.{i}.ffn_norm.weight", width)
        if experts is not None:
            yield matrix(f"blk.{i}.ffn_gate_inp.weight", width, experts.count, GGMLType.F32)
            yield matrix(f"blk.{i}.ffn_gate_exps.weight", width, experts.length, base, experts.count)
            yield matrix(f"blk.{i}.ffn_up_exps.weight", width, experts.length, base, experts.count)
            yield matrix(f"blk.{i}.ffn_down_exps.weight", experts.length, width, more, experts.count)
            continue
        yield matrix(f"blk.{i}.ffn_gate.weight", width, hidden, base)
        yield matrix(f"blk.{i}.ffn_up.weight", width, hidden, base)
        yield matrix(f"blk.{i}.ffn_down.weight", hidden, width, more)
    yield vector("output_norm.weight", width)


def _tensor_pieces(
    spec: TensorSpec, pools: dict[GGMLType, NDArray[np.uint8]], rng: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    if len(spec.shape) == 1:
        value = 0.0 if spec.name.endswith(".bias") else 1.0
        yield np.full(spec.shape, value, np.float32).view(np.uint8)
        return
    if spec.type not in pools:
        pools[spec.type] = _random_blocks(spec.type, rng)
    pool = pools[spec.type]
    start, missing = int(rng.integers(_POOL_BLOCKS)) * spec.type.block_bytes, spec.num_bytes
    while missing:
        piece = pool[start : start + missing]
        yield piece
        start, missing = 0, missing - len(piece)


def _random_blocks(weight_type: GGMLType, rng: np.random.Generator) -> NDArray[np.uint8]:
    """_POOL_BLOCKS random blocks as flat bytes; their values have standard deviation _WEIGHT_STD."""
    if weight_type in (GGMLType.F32, GGMLType.F16, GGMLType.BF16):
        values = rng.normal(0.0, _WEIGHT_STD, _POOL_BLOCKS).astype(np.float32)
        if weight_type == GGMLType.F32:
            return values.view(np.uint8)
        if weight_type == GGMLType.F16:
            return values.astype(np.float16).view(np.uint8)
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    blocks = rng.integers(0, 256, (_POOL_BLOCKS, weight_type.block_bytes), dtype=np.uint8)
    _set_scales(blocks, weight_type, 1.0)
    spread = float(np.std(dequantize(blocks[:_SAMPLE_BLOCKS], weight_type)))
    _set_scales(blocks, weight_type, _WEIGHT_STD / spread)
    return blocks.reshape(-1)


def _set_scales(blocks: NDArray[np.uint8], weight_type: GGMLType, scale: float) -> None:
    for offset, factor in _SCALES[weight_type]:
        blocks[..., offset : offset + 2] = np.array([scale * factor], np.float16).view(np.uint8)
    if weight_type == GGMLType.IQ1_M:  # the nibbles of a half on top of four words
        nibbles = np.array([scale], np.float16).view(np.uint16) >> np.array([0, 4, 8, 12], np.uint16) & 15
        blocks[..., 49:56:2] = blocks[..., 49:56:2] & 15 | (nibbles << 4).astype(np.uint8)
    elif weight_type == GGMLType.MXFP4:  # the nearest power of two, halved
        blocks[..., 0] = 128 + round(np.log2(scale))
    elif weight_type == GGMLType.NVFP4:  # the nearest of the scales that one byte holds, halved
        codes = np.arange(127, dtype=np.uint8)
        probe = np.zeros((127, 36), np.uint8)
        probe[:, :4], probe[:, 4:] = codes[:, np.newaxis], 0x11  # code 1 stands for the scale
        blocks[..., :4] = codes[np.argmin(np.abs(dequantize(probe, weight_type)[:, 0] - scale))]


def _metadata(sizes: Shape, shape: str, type_name: str) -> dict[str, Any]:
    prefix = sizes.architecture
    tokens, merges = make_vocabulary(sizes.vocab_size, sizes.num_merges, sizes.num_control)
    token_types = np.ones(len(tokens), np.int32)
    token_types[len(tokens) - sizes.num_control :] = 3
    more: dict[str, Any] = {}
    if sizes.num_heads * sizes.head_length != sizes.embedding_length:
        more[f"{prefix}.attention.key_length"] = np.uint32(sizes.head_length)
        more[f"{prefix}.attention.value_length"] = np.uint32(sizes.head_length)
    if sizes.experts is not None:
        more[f"{prefix}.expert_count"] = np.uint32(sizes.experts.count)
        more[f"{prefix}.expert_used_count"] = np.uint32(sizes.experts.used)
        more[f"{prefix}.expert_feed_forward_length"] = np.uint32(sizes.experts.length)
    return {
        "general.architecture": prefix,
        "general.name": f"synthetic {shape} {type_name}",
        f"{prefix}.block_count": np.uint32(sizes.num_layers),
        f"{prefix}.context_length": np.uint32(sizes.context_length),
        f"{prefix}.embedding_length": np.uint32(sizes.embedding_length),
        f"{prefix}.feed_forward_length": np.uint32(sizes.feed_forward_length),
        f"{prefix}.attention.head_count": np.uint32(sizes.num_heads),
        f"{prefix}.attention.head_count_kv": np.uint32(sizes.num_kv_heads),
        f"{prefix}.attention.layer_norm_rms_epsilon": np.float32(1e-5),
        **more,
        f"{prefix}.rope.dimension_count": np.uint32(sizes.head_length),
        f"{prefix}.rope.freq_base": np.float32(sizes.rope_freq_base),
        f"{prefix}.vocab_size": np.uint32(sizes.vocab_size),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": sizes.pre_tokenizer,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": token_types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": np.uint32(tokens.index("<|begin|>")),
        "tokenizer.ggml.eos_token_id": np.uint32(tokens.index("<|end|>")),
    }


def make_vocabulary(vocab_size: int, num_merges: int, num_control: int) -> tuple[list[str], list[str]]:
    """A consistent byte-level BPE vocabulary: every merge joins two tokens into a token.

    All strings of up to three letters (with or without a space in front) are tokens before longer ones are, so a longer
    token can be reached by several merges, as in real vocabularies.

    Returns:
        vocab_size tokens, control tokens last, and num_merges merges in order of rank.

    Raises:
        ValueError: the vocabulary cannot hold that many merges.
    """
    tokens = byte_letters()
    room = vocab_size - num_control - len(tokens)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    heads = "\u0120" + letters  # the space, as byte-level vocabularies write it
    words: list[str] = []
    for length in (2, 3, 4):
        more = room - len(words)
        strings = itertools.product(heads, *[letters] * (length - 1))
        words += ["".join(parts) for parts in itertools.islice(strings, more)]
    if len(words) < room:
        raise ValueError(f"a vocabulary of {vocab_size} tokens needs longer words than four letters")
    known = {*tokens, *words}
    merges: list[str] = []
    spare: list[str] = []
    for word in words:
        splits = [f"{word[:i]} {word[i:]}" for i in range(1, len(word)) if word[:i] in known and word[i:] in known]
        merges.append(splits[0])
        spare += splits[1:]
    if not len(merges) <= num_merges <= len(merges) + len(spare):
        raise ValueError(f"{vocab_size} tokens allow {len(merges)} to {len(merges) + len(spare)} merges")
    merges += spare[: num_merges - len(merges)]
    control = ["<|begin|>", "<|end|>", *(f"<|reserved_{i}|>" for i in range(num_control - 2))]
    return [*tokens, *words, *control], merges


def byte_letters() -> list[str]:
    """The 256 characters that stand for bytes in byte-level vocabularies, in byte order (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
