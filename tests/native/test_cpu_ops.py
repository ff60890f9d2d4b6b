"""Native ops against plain numpy, over every weight type, odd sizes and every kernel class (rows, tiles, float)."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import BLOCK_ERRORS, SCALE_OFFSETS, float_weight, random_weight, run_on_rows, whole_batch

from quipu.backends.cpu import CPUBackend
from quipu.backends.program import Batch, KVSpec, Recorder, RopeParams, Weight
from quipu.gguf.types import GGMLType
from quipu.quant import dequantize

FLOAT_TYPES = [GGMLType.F32, GGMLType.F16, GGMLType.BF16]
INT8_TYPES = list(SCALE_OFFSETS)
FLOAT_ERROR = 3e-6


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def rounded_activations(x: np.ndarray) -> np.ndarray:
    """What the int8 kernels see: 8 bits and one scale per 32 values."""
    groups = x.reshape(*x.shape[:-1], -1, 32)
    largest = np.abs(groups).max(-1, keepdims=True)
    return (np.rint(groups * (np.float32(127) / largest)) * (largest / np.float32(127))).reshape(x.shape)


def product(x: np.ndarray, weight_type: GGMLType, values: np.ndarray) -> np.ndarray:
    """The product that a kernel of this type must give, in float64."""
    seen = rounded_activations(x) if weight_type in INT8_TYPES else x
    return seen.astype(np.float64) @ values.T.astype(np.float64)


@pytest.mark.parametrize("num_tokens", [1, 3, 8, 9, 16, 33])
@pytest.mark.parametrize("weight_type", [*FLOAT_TYPES, *SCALE_OFFSETS], ids=lambda t: t.name)
def test_linear_matches_numpy(backend: CPUBackend, weight_type: GGMLType, num_tokens: int) -> None:
    rng = np.random.default_rng([int(weight_type), num_tokens])
    step = max(weight_type.block_size, 32)
    for cols in (256, 2304) if step == 256 else (step, 3 * step, 896):
        for rows in (64, 101, 150):
            weight, values = random_weight(rng, "w", weight_type, rows, cols)
            x = rng.standard_normal((num_tokens, cols)).astype(np.float32)
            got = run_on_rows(backend, x, lambda recorder, v, w=weight: recorder.linear(v, [w])[0])
            assert relative_error(got, product(x, weight_type, values)) < BLOCK_ERRORS.get(weight_type, 1e-5), (
                cols,
                rows,
            )


@pytest.mark.parametrize("weight_type", [*FLOAT_TYPES, *SCALE_OFFSETS], ids=lambda t: t.name)
def test_no_wanted_logits_are_no_work(backend: CPUBackend, weight_type: GGMLType) -> None:
    """Most steps of a long prompt want none; then nothing of the output matrix may be read, nor of the activations."""
    rng = np.random.default_rng(int(weight_type))
    weight, _ = random_weight(rng, "w", weight_type, 64, 256)
    recorder = Recorder()
    rows = recorder.embed(float_weight("rows", rng.standard_normal((20, 256)).astype(np.float32)))
    inner = recorder.swiglu_linear(recorder.select_outputs(rows), weight, weight)
    (result,) = recorder.linear(inner, [random_weight(rng, "v", GGMLType.F32, 32, 64)[0]])
    executable = backend.compile(recorder.finish(result), max_tokens=16)
    kv = backend.create_kv_storage(KVSpec(1, 1, 64, 64, GGMLType.F32, GGMLType.F32, 64), 1)
    for num_tokens in (1, 3, 16):
        batch = dataclasses.replace(whole_batch(num_tokens), output_rows=np.zeros(0, dtype=np.int32))
        assert executable.run(batch, kv).shape == (0, 32)


LONG_KNOWN_TYPES = [GGMLType.Q4_0, GGMLType.Q5_0, GGMLType.Q8_0, GGMLType.Q4_K, GGMLType.Q5_K, GGMLType.Q6_K]


@pytest.mark.parametrize("weight_type", LONG_KNOWN_TYPES, ids=lambda t: t.name)
@pytest.mark.parametrize("num_tokens", [2, 20])
def test_integer_sums_never_overflow(backend: CPUBackend, weight_type: GGMLType, num_tokens: int) -> None:
    """Largest codes against largest activations of one sign: a saturated or wrapped sum would be far off."""
    cols, rows = 512, 7
    num_blocks = cols // weight_type.block_size
    blocks = np.full((rows, num_blocks, weight_type.block_bytes), 0xFF, dtype=np.uint8)
    if weight_type == GGMLType.Q8_0:
        blocks[:] = 0x80  # -128, whose magnitude does not fit a signed byte
    if weight_type == GGMLType.Q6_K:
        blocks[:, :, 192:208] = 0x7F  # scales
    for offset in SCALE_OFFSETS[weight_type]:
        blocks[:, :, offset : offset + 2] = np.float16(0.01).reshape(1).view(np.uint8)
    weight = Weight("w", weight_type, (rows, cols), blocks.reshape(rows, -1))
    values = dequantize(weight.data, weight_type)
    for sign in (1.0, -1.0):
        x = np.full((num_tokens, cols), sign, dtype=np.float32)
        got = run_on_rows(backend, x, lambda recorder, v: recorder.linear(v, [weight])[0])
        np.testing.assert_allclose(got, x @ values.T, rtol=2e-4)


@pytest.mark.parametrize("num_tokens", [1, 8, 40])
def test_bias_residual_and_several_weights(backend: CPUBackend, num_tokens: int) -> None:
    rng = np.random.default_rng(1)
    a, a_values = random_weight(rng, "a", GGMLType.Q8_0, 70, 64)
    b, b_values = random_weight(rng, "b", GGMLType.F16, 64, 64)
    bias = rng.standard_normal((1, 70)).astype(np.float32)
    x = rng.standard_normal((num_tokens, 64)).astype(np.float32)

    def first(recorder: Recorder, v):
        return recorder.linear(v, [a, b], [float_weight("bias", bias), None])[0]

    def second(recorder: Recorder, v):
        return recorder.linear(v, [a, b], [float_weight("bias", bias), None])[1]

    def with_residual(recorder: Recorder, v):
        return recorder.linear(v, [b], residual=v)[0]

    assert relative_error(run_on_rows(backend, x, first), product(x, GGMLType.Q8_0, a_values) + bias) < FLOAT_ERROR
    assert relative_error(run_on_rows(backend, x, second), x @ b_values.T) < FLOAT_ERROR
    assert relative_error(run_on_rows(backend, x, with_residual), x @ b_values.T + x) < FLOAT_ERROR


@pytest.mark.parametrize("num_tokens", [1, 5, 24])
@pytest.mark.parametrize("weight_type", [GGMLType.Q4_K, GGMLType.F32, GGMLType.Q2_K], ids=lambda t: t.name)
def test_swiglu_linear_equals_its_parts(backend: CPUBackend, weight_type: GGMLType, num_tokens: int) -> None:
    rng = np.random.default_rng(2)
    gate, _ = random_weight(rng, "gate", weight_type, 130, 256)
    up, _ = random_weight(rng, "up", weight_type, 130, 256)
    x = rng.standard_normal((num_tokens, 256)).astype(np.float32)
    fused = run_on_rows(backend, x, lambda recorder, v: recorder.swiglu_linear(v, gate, up))
    parts = run_on_rows(backend, x, lambda recorder, v: recorder.swiglu(*recorder.linear(v, [gate, up])))
    np.testing.assert_array_equal(fused, parts)


@pytest.mark.parametrize(
    "weight_type", [GGMLType.Q4_K, GGMLType.Q6_K, GGMLType.Q8_0, GGMLType.F16], ids=lambda t: t.name
)
def test_up_to_eight_tokens_give_the_bits_of_one(backend: CPUBackend, weight_type: GGMLType) -> None:
    rng = np.random.default_rng(3)
    weight, _ = random_weight(rng, "w", weight_type, 100, 512)
    x = rng.standard_normal((8, 512)).astype(np.float32)
    together = run_on_rows(backend, x, lambda recorder, v: recorder.linear(v, [weight])[0])
    for row in range(8):
        alone = run_on_rows(backend, x[row : row + 1], lambda recorder, v: recorder.linear(v, [weight])[0])
        np.testing.assert_array_equal(alone[0], together[row])


def test_norm_fused_with_packing_equals_norm_alone(backend: CPUBackend) -> None:
    rng = np.random.default_rng(4)
    weight, values = random_weight(rng, "w", GGMLType.F32, 33, 192)
    scale = rng.uniform(0.5, 2.0, (1, 192)).astype(np.float32)
    for num_tokens in (1, 8, 19):
        x = rng.standard_normal((num_tokens, 192)).astype(np.float32)
        normed = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-5) * scale

        def fused(recorder: Recorder, v):
            return recorder.linear(recorder.rms_norm(v, float_weight("norm", scale), 1e-5), [weight])[0]

        alone = run_on_rows(backend, x, lambda recorder, v: recorder.rms_norm(v, float_weight("norm", scale), 1e-5))
        np.testing.assert_allclose(alone, normed, rtol=2e-6, atol=1e-6)
        assert relative_error(run_on_rows(backend, x, fused), normed @ values.T) < FLOAT_ERROR


def test_norm_over_heads(backend: CPUBackend) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((3, 6 * 40)).astype(np.float32)
    scale = rng.uniform(0.5, 2.0, (1, 40)).astype(np.float32)
    got = run_on_rows(backend, x, lambda recorder, v: recorder.rms_norm(v, float_weight("norm", scale), 1e-6))
    heads = x.reshape(3, 6, 40).astype(np.float64)
    expected = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-6) * scale
    np.testing.assert_allclose(got, expected.reshape(3, -1), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("pairing", ["norm", "neox"])
@pytest.mark.parametrize("num_rotated", [64, 40])
def test_rope(backend: CPUBackend, pairing: str, num_rotated: int) -> None:
    rng = np.random.default_rng(6)
    heads, head_dim, num_tokens = 3, 64, 13
    frequencies = (10000.0 ** (-np.arange(0, num_rotated, 2) / num_rotated)).astype(np.float32)
    x = rng.standard_normal((num_tokens, heads * head_dim)).astype(np.float32)
    rope = RopeParams(frequencies, 1.1, pairing)
    got = run_on_rows(backend, x, lambda recorder, v: recorder.rope(v, head_dim, rope))
    expected = x.reshape(num_tokens, heads, head_dim).astype(np.float64).copy()
    half = num_rotated // 2
    for p in range(num_tokens):
        for i in range(half):
            a, b = (2 * i, 2 * i + 1) if pairing == "norm" else (i, i + half)
            cos, sin = 1.1 * np.cos(p * float(frequencies[i])), 1.1 * np.sin(p * float(frequencies[i]))
            xa, xb = expected[p, :, a].copy(), expected[p, :, b].copy()
            expected[p, :, a], expected[p, :, b] = xa * cos - xb * sin, xa * sin + xb * cos
    np.testing.assert_allclose(got, expected.reshape(num_tokens, -1), rtol=1e-5, atol=1e-6)


def attention_program(tables: list[np.ndarray], num_heads: int, num_kv_heads: int):
    """Queries, keys and values by token id, straight into attention."""
    recorder = Recorder()
    q, k, v = (recorder.embed(float_weight(name, table)) for name, table in zip("qkv", tables, strict=True))
    head_dim = q.width // num_heads
    y = recorder.attention(q, k, v, layer=0, num_heads=num_heads, num_kv_heads=num_kv_heads, scale=head_dim**-0.5)
    return recorder.finish(recorder.select_outputs(y))


def dense_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, num_heads: int, num_kv_heads: int) -> np.ndarray:
    """Causal softmax attention in float64, one head at a time."""
    n = len(q)
    q, k, v = (
        x.astype(np.float64).reshape(n, h, -1) for x, h in ((q, num_heads), (k, num_kv_heads), (v, num_kv_heads))
    )
    out = np.zeros((n, num_heads, v.shape[-1]))
    for h in range(num_heads):
        kv_head = h // (num_heads // num_kv_heads)
        scores = q[:, h] @ k[:, kv_head].T / np.sqrt(q.shape[-1])
        scores[np.triu_indices(n, 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, h] = weights / weights.sum(-1, keepdims=True) @ v[:, kv_head]
    return out.reshape(n, -1)


@pytest.mark.parametrize("kv_type", [GGMLType.F32, GGMLType.F16], ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "head_dim", "page_size"),
    [(8, 2, 64, 64), (7, 1, 32, 16), (4, 4, 80, 32), (3, 1, 24, 64)],
)
def test_attention_over_scattered_pages(
    backend: CPUBackend, kv_type: GGMLType, num_heads: int, num_kv_heads: int, head_dim: int, page_size: int
) -> None:
    """Whole, in uneven chunks, and token by token: the same numbers, wherever the pages lie."""
    rng = np.random.default_rng(7)
    n = 150
    tables = [
        rng.standard_normal((n, h * head_dim)).astype(np.float32) for h in (num_heads, num_kv_heads, num_kv_heads)
    ]
    expected = dense_attention(*tables, num_heads, num_kv_heads)
    executable = backend.compile(attention_program(tables, num_heads, num_kv_heads), max_tokens=n)
    spec = KVSpec(1, num_kv_heads, head_dim, head_dim, kv_type, kv_type, page_size)
    bound = 1e-6 if kv_type == GGMLType.F32 else 2e-3
    for chunks in ([n], [40, 1, 7, 102], [1] * n):
        kv = backend.create_kv_storage(spec, 64)
        pages = rng.permutation(64)[: -(-n // page_size)].astype(np.int32)[None]
        outputs, done = [], 0
        for size in chunks:
            positions = np.arange(done, done + size, dtype=np.int32)
            done += size
            batch = Batch(
                token_ids=positions,
                positions=positions,
                query_starts=np.array([0, size], np.int32),
                kv_lengths=np.array([done], np.int32),
                page_tables=pages,
                output_rows=np.arange(size, dtype=np.int32),
            )
            outputs.append(executable.run(batch, kv).copy())
        assert relative_error(np.concatenate(outputs), expected) < bound


def test_attention_of_several_sequences_in_one_step(backend: CPUBackend) -> None:
    rng = np.random.default_rng(8)
    n, heads, dim = 96, 4, 32
    tables = [rng.standard_normal((n, heads * dim)).astype(np.float32) for _ in range(3)]
    executable = backend.compile(attention_program(tables, heads, heads), max_tokens=n)
    kv = backend.create_kv_storage(KVSpec(1, heads, dim, dim, GGMLType.F32, GGMLType.F32, 16), 32)
    lengths = [17, 1, 48, 30]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    pages = rng.permutation(32).astype(np.int32)[: 4 * 3].reshape(4, 3)
    batch = Batch(
        token_ids=np.arange(n, dtype=np.int32),
        positions=np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
        query_starts=starts,
        kv_lengths=np.array(lengths, np.int32),
        page_tables=pages,
        output_rows=np.arange(n, dtype=np.int32),
    )
    got = executable.run(batch, kv)
    for begin, end in itertools.pairwise(starts):
        expected = dense_attention(*(table[begin:end] for table in tables), heads, heads)
        assert relative_error(got[begin:end], expected) < 1e-6


@pytest.mark.parametrize("num_tokens", [1, 20])
@pytest.mark.parametrize("weight_type", [GGMLType.Q4_K, GGMLType.F32], ids=lambda t: t.name)
def test_a_nan_is_never_swallowed(backend: CPUBackend, weight_type: GGMLType, num_tokens: int) -> None:
    rng = np.random.default_rng(9)
    weight, _ = random_weight(rng, "w", weight_type, 20, 256)
    for poison in (np.nan, np.inf, -np.inf):
        x = rng.standard_normal((num_tokens, 256)).astype(np.float32)
        x[-1, 100] = poison
        got = run_on_rows(backend, x, lambda recorder, v: recorder.linear(v, [weight])[0])
        assert not np.isfinite(got[-1]).any()
        assert np.isfinite(got[:-1]).all()


@pytest.mark.parametrize(
    "change",
    [
        {"token_ids": np.array([0, 99], np.int32)},
        {"token_ids": np.array([0, -1], np.int32)},
        {"positions": np.array([0, 2], np.int32)},
        {"query_starts": np.array([0, 3], np.int32)},
        {"kv_lengths": np.array([65], np.int32)},
        {"page_tables": np.array([[8]], np.int32)},
        {"page_tables": np.array([[-1]], np.int32)},
        {"output_rows": np.array([2], np.int32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_indices_out_of_range_are_refused_before_anything_is_written(backend: CPUBackend, change: dict) -> None:
    rng = np.random.default_rng(10)
    tables = [rng.standard_normal((8, 64)).astype(np.float32) for _ in range(3)]
    executable = backend.compile(attention_program(tables, 1, 1), max_tokens=16)
    kv = backend.create_kv_storage(KVSpec(1, 1, 64, 64, GGMLType.F32, GGMLType.F32, 64), 8)
    good = whole_batch(2)
    fields = {name: getattr(good, name) for name in Batch.__dataclass_fields__}
    with pytest.raises(ValueError, match="run:"):
        executable.run(Batch(**{**fields, **change}), kv)
    assert np.isfinite(executable.run(good, kv)).all()


def test_more_threads_than_cores_beside_a_busy_neighbour_finish() -> None:
    """Waiting threads give way: eight of them, and one that never pauses, still get through."""
    rng = np.random.default_rng(11)
    weight, values = random_weight(rng, "w", GGMLType.F32, 64, 64)
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        crowded = CPUBackend(8)
        x = rng.standard_normal((2, 64)).astype(np.float32)
        for _ in range(50):
            got = run_on_rows(crowded, x, lambda recorder, v: recorder.linear(v, [weight])[0])
            assert relative_error(got, x @ values.T) < FLOAT_ERROR
    finally:
        neighbour.kill()
        neighbour.wait()


def test_the_scalar_kernels_pass_the_same_tests() -> None:
    """The portable kernel set, chosen by QUIPU_INSTRUCTION_SET, on this very file."""
    if os.environ.get("QUIPU_INSTRUCTION_SET") == "scalar":
        pytest.skip("already running on the scalar kernels")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", "not crowded and not neighbour", __file__]
    done = subprocess.run(
        command, env={**os.environ, "QUIPU_INSTRUCTION_SET": "scalar"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_an_unknown_instruction_set_is_refused() -> None:
    code = "from quipu import _native; _native.instruction_set()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "QUIPU_INSTRUCTION_SET": "mmx"}, capture_output=True, text=True
    )
    assert "QUIPU_INSTRUCTION_SET=mmx is unknown" in done.stderr
