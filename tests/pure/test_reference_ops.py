"""The reference backend, op by op, against formulas written out in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quipu.backends.program import CACHE_TYPES, Batch, KVSpec, Recorder, RopeParams, Value, Weight
from quipu.backends.reference import ReferenceBackend, ReferenceKVStorage, attend, rms_norm, rotate, swiglu
from quipu.gguf.types import GGMLType
from quipu.quant import dequantize, encode


def float_weight(name: str, values: NDArray[np.floating]) -> Weight:
    values = np.atleast_2d(np.ascontiguousarray(values, dtype=np.float32))
    return Weight(name, GGMLType.F32, values.shape, values.view(np.uint8).reshape(len(values), -1))


def batch_of(lengths: Sequence[int], tables: Sequence[Sequence[int]], done: Sequence[int] | None = None) -> Batch:
    """New tokens per sequence, pages, and tokens in the cache already; token ids count up, all logits are wanted."""
    before = done or [0] * len(lengths)
    total, width = sum(lengths), max(map(len, tables))
    return Batch(
        token_ids=np.arange(total, dtype=np.int32),
        positions=np.concatenate([np.arange(b, b + n, dtype=np.int32) for n, b in zip(lengths, before, strict=True)]),
        query_starts=np.cumsum([0, *lengths], dtype=np.int32),
        kv_lengths=np.add(lengths, before).astype(np.int32),
        page_tables=np.array([[*table, *[0] * (width - len(table))] for table in tables], dtype=np.int32),
        output_rows=np.arange(total, dtype=np.int32),
    )


def run_rows(
    x: NDArray[np.float32], build: Callable[[Recorder, Value], Value], *, cache_bytes: int = 0
) -> NDArray[np.float32]:
    """Feed the rows of x, as an embedding, through a graph."""
    recorder = Recorder()
    result = build(recorder, recorder.embed(float_weight("rows", x)))
    backend = ReferenceBackend(weight_cache_bytes=cache_bytes)
    executable = backend.compile(recorder.finish(recorder.select_outputs(result)), max_tokens=len(x))
    kv = backend.create_kv_storage(KVSpec(1, 1, 8, 8, GGMLType.F32, GGMLType.F32, 16), 8)
    pages = range(-(-len(x) // 16))
    executable.run(batch_of([len(x)], [pages]), kv)
    return executable.run(
        batch_of([len(x)], [pages]), kv
    )  # a second run shows that nothing was kept that should not be


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)


def test_embed_gives_rows_of_any_type(rng: np.random.Generator) -> None:
    blocks = rng.integers(0, 256, (5, 34), dtype=np.uint8)
    blocks[:, :2] = np.array([0.01], np.float16).view(np.uint8)
    recorder = Recorder()
    x = recorder.embed(Weight("table", GGMLType.Q8_0, (5, 32), blocks))
    executable = ReferenceBackend().compile(recorder.finish(recorder.select_outputs(x)), max_tokens=4)
    batch = replace(batch_of([4], [[0]]), token_ids=np.array([4, 0, 4, 2], np.int32))
    kv = ReferenceKVStorage(KVSpec(1, 1, 8, 8, GGMLType.F32, GGMLType.F32, 16), 1)
    np.testing.assert_array_equal(executable.run(batch, kv), dequantize(blocks, "Q8_0")[[4, 0, 4, 2]])


@pytest.mark.parametrize("group", [64, 16])
def test_rms_norm(rng: np.random.Generator, group: int) -> None:
    x, weight = normal(rng, 3, 64), normal(rng, group)
    got = run_rows(x, lambda r, v: r.rms_norm(v, float_weight("norm", weight), 1e-3))
    for row in range(3):
        for start in range(0, 64, group):
            part = x[row, start : start + group].astype(np.float64)
            expected = part / math.sqrt(sum(part**2) / group + 1e-3) * weight
            np.testing.assert_allclose(got[row, start : start + group], expected, rtol=1e-6)


def test_rms_norm_of_zeros_is_zero() -> None:
    assert not rms_norm(np.zeros((2, 8), np.float32), np.ones(8, np.float32), 1e-6).any()


@pytest.mark.parametrize("cache_bytes", [0, 3000, 1 << 20])
def test_linear_with_biases_and_residual(rng: np.random.Generator, cache_bytes: int) -> None:
    x, a, b = normal(rng, 4, 24), normal(rng, 24, 24), normal(rng, 40, 24)
    bias = normal(rng, 40)

    def build(r: Recorder, v: Value) -> Value:
        first, second = r.linear(v, [float_weight("a", a), float_weight("b", b)], [None, float_weight("bias", bias)])
        (summed,) = r.linear(first, [float_weight("a2", a)], residual=v)
        (projected,) = r.linear(summed, [float_weight("b2", b)])
        return r.add(projected, second)

    wide = x.astype(np.float64)
    expected = (wide @ a.T @ a.T + wide) @ b.T + wide @ b.T + bias
    np.testing.assert_allclose(run_rows(x, build, cache_bytes=cache_bytes), expected, rtol=2e-4, atol=2e-4)


def test_a_large_weight_is_read_in_slices(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = normal(rng, 2, 16), normal(rng, 37, 16)
    whole = run_rows(x, lambda r, v: r.linear(v, [float_weight("w", weight)])[0])
    monkeypatch.setattr("quipu.backends.reference._SLICE_VALUES", 80)  # five rows
    sliced = run_rows(x, lambda r, v: r.linear(v, [float_weight("w", weight)])[0])
    np.testing.assert_allclose(sliced, whole, rtol=1e-6)


def test_swiglu_and_its_fused_form(rng: np.random.Generator) -> None:
    x, gate, up = normal(rng, 3, 16), normal(rng, 20, 16), normal(rng, 20, 16)
    fused = run_rows(x, lambda r, v: r.swiglu_linear(v, float_weight("g", gate), float_weight("u", up)))
    apart = run_rows(x, lambda r, v: r.swiglu(*r.linear(v, [float_weight("g", gate), float_weight("u", up)])))
    np.testing.assert_array_equal(fused, apart)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(fused, wide @ gate.T / (1 + np.exp(-(wide @ gate.T))) * (wide @ up.T), rtol=1e-4)


def test_swiglu_at_the_extremes() -> None:
    gate = np.array([[-1e4, -100.0, 0.0, 100.0, 1e4]], np.float32)
    np.testing.assert_allclose(swiglu(gate, np.ones_like(gate)), [[0, 0, 0, 100, 1e4]], atol=1e-30)


def inverse_frequencies(num_rotated: int) -> NDArray[np.float32]:
    return (10000.0 ** (-np.arange(0, num_rotated, 2) / num_rotated)).astype(np.float32)


@pytest.mark.parametrize("num_rotated", [16, 8])
@pytest.mark.parametrize("pairing", ["norm", "neox"])
def test_rope_against_complex_numbers(rng: np.random.Generator, pairing: str, num_rotated: int) -> None:
    x = normal(rng, 5, 3 * 16)
    positions = np.array([0, 1, 7, 100, 4095], np.int32)
    params = RopeParams(inverse_frequencies(num_rotated), 1.25, "norm" if pairing == "norm" else "neox")
    got = rotate(x, positions, 16, params)
    for token, position in enumerate(positions):
        for head in range(3):
            values = x[token, 16 * head : 16 * head + 16].astype(np.float64)
            expected = values.copy()
            for pair, frequency in enumerate(params.inverse_frequencies):
                i, j = (2 * pair, 2 * pair + 1) if pairing == "norm" else (pair, pair + num_rotated // 2)
                turned = complex(values[i], values[j]) * 1.25 * np.exp(1j * position * float(frequency))
                expected[i], expected[j] = turned.real, turned.imag
            np.testing.assert_allclose(got[token, 16 * head : 16 * head + 16], expected, rtol=1e-5, atol=1e-6)


@given(
    position=st.integers(0, 100_000),
    pairing=st.sampled_from(["norm", "neox"]),
    values=st.lists(st.floats(-100, 100, width=32), min_size=8, max_size=8),
)
def test_rope_keeps_the_length_of_every_pair(position: int, pairing: str, values: list[float]) -> None:
    x = np.array([values], np.float32)
    params = RopeParams(inverse_frequencies(8), 1.0, "norm" if pairing == "norm" else "neox")
    got = rotate(x, np.array([position], np.int32), 8, params)
    pairs = (lambda a: a.reshape(4, 2)) if pairing == "norm" else (lambda a: a.reshape(2, 4).T)
    np.testing.assert_allclose(
        np.linalg.norm(pairs(got[0]), axis=1), np.linalg.norm(pairs(x[0]), axis=1), rtol=1e-5, atol=1e-5
    )


def dense_attention(
    q: NDArray[np.float32], k: NDArray[np.float32], v: NDArray[np.float32], num_heads: int, num_kv_heads: int
) -> NDArray[np.float64]:
    """Causal softmax attention over whole sequences, head by head: [n, heads * value length]."""
    n, group = len(q), num_heads // num_kv_heads
    heads = []
    for head in range(num_heads):
        a, b, c = (
            table.reshape(n, count, -1)[:, index].astype(np.float64)
            for table, count, index in (
                (q, num_heads, head),
                (k, num_kv_heads, head // group),
                (v, num_kv_heads, head // group),
            )
        )
        scores = a @ b.T * 0.3
        scores[np.triu_indices(n, 1)] = -np.inf
        weights = np.exp(scores - scores.max(1, keepdims=True))
        heads.append(weights / weights.sum(1, keepdims=True) @ c)
    return np.concatenate(heads, axis=1)


HEADS, KV_HEADS, KEY_LENGTH, VALUE_LENGTH = 6, 2, 8, 12


class AttentionRun:
    """Attention over tables of queries, keys and values, whose row i is token id i."""

    def __init__(self, tables: list[NDArray[np.float32]], kv_type: GGMLType = GGMLType.F32) -> None:
        recorder = Recorder()
        q, k, v = (recorder.embed(float_weight(name, table)) for name, table in zip("qkv", tables, strict=True))
        result = recorder.attention(q, k, v, layer=0, num_heads=HEADS, num_kv_heads=KV_HEADS, scale=0.3)
        backend = ReferenceBackend()
        self.executable = backend.compile(recorder.finish(recorder.select_outputs(result)), max_tokens=64)
        self.kv = backend.create_kv_storage(KVSpec(1, KV_HEADS, KEY_LENGTH, VALUE_LENGTH, kv_type, kv_type, 4), 12)
        for pages in (*self.kv.keys, *self.kv.values):
            pages.fill(0xFF)  # NaN: whatever is read without having been written shows

    def run(self, batch: Batch) -> NDArray[np.float32]:
        return self.executable.run(batch, self.kv).copy()


@pytest.fixture
def tables(rng: np.random.Generator) -> list[NDArray[np.float32]]:
    return [
        normal(rng, 20, HEADS * KEY_LENGTH),
        normal(rng, 20, KV_HEADS * KEY_LENGTH),
        normal(rng, 20, KV_HEADS * VALUE_LENGTH),
    ]


@pytest.mark.parametrize("kv_type", [GGMLType.F32, GGMLType.F16], ids=lambda t: t.name)
@pytest.mark.parametrize("sizes", [[20], [1] * 20, [7, 1, 1, 11]])
def test_attention_in_chunks_on_scattered_pages(
    tables: list[NDArray[np.float32]], sizes: list[int], kv_type: GGMLType
) -> None:
    attention, done, parts = AttentionRun(tables, kv_type), 0, []
    for size in sizes:
        batch = batch_of([size], [[9, 3, 11, 0, 6]], [done])
        parts.append(attention.run(replace(batch, token_ids=batch.positions)))
        done += size
    bound = 1e-5 if kv_type == GGMLType.F32 else 3e-3
    np.testing.assert_allclose(np.concatenate(parts), dense_attention(*tables, HEADS, KV_HEADS), atol=bound)


def test_sequences_of_one_step_do_not_see_each_other(tables: list[NDArray[np.float32]]) -> None:
    got = AttentionRun(tables).run(batch_of([9, 3, 8], [[2, 8, 5], [7], [1, 10]]))
    for rows in (slice(0, 9), slice(9, 12), slice(12, 20)):
        expected = dense_attention(*(table[rows] for table in tables), HEADS, KV_HEADS)
        np.testing.assert_allclose(got[rows], expected, atol=1e-5)


def test_select_outputs_takes_the_wanted_rows(rng: np.random.Generator) -> None:
    x = normal(rng, 6, 8)
    recorder = Recorder()
    program = recorder.finish(recorder.select_outputs(recorder.embed(float_weight("rows", x))))
    kv = ReferenceKVStorage(KVSpec(1, 1, 8, 8, GGMLType.F32, GGMLType.F32, 16), 1)
    batch = replace(batch_of([6], [[0]]), output_rows=np.array([1, 4], np.int32))
    np.testing.assert_array_equal(ReferenceBackend().compile(program, max_tokens=6).run(batch, kv), x[[1, 4]])


WRONG_BATCHES = {
    "token id": {"token_ids": np.array([0, 1, 20], np.int32)},
    "negative token id": {"token_ids": np.array([0, -1, 2], np.int32)},
    "output row": {"output_rows": np.array([3], np.int32)},
    "order of output rows": {"output_rows": np.array([1, 1], np.int32)},
    "page": {"page_tables": np.array([[12]], np.int32)},
    "missing page": {"page_tables": np.zeros((1, 0), np.int32)},
    "positions": {"positions": np.array([1, 2, 3], np.int32)},
    "cache length": {"kv_lengths": np.array([2], np.int32)},
    "query starts": {"query_starts": np.array([0, 2], np.int32)},
    "number of positions": {"positions": np.array([0, 1], np.int32)},
}


@pytest.mark.parametrize("change", WRONG_BATCHES.values(), ids=WRONG_BATCHES)
def test_a_wrong_batch_is_refused_before_anything_is_written(
    tables: list[NDArray[np.float32]], change: dict[str, NDArray[np.int32]]
) -> None:
    attention = AttentionRun(tables)
    with pytest.raises(ValueError, match=r"token|output_rows|page|position|query_starts"):
        attention.run(replace(batch_of([3], [[0]]), **change))
    assert all((pages == 0xFF).all() for pages in (*attention.kv.keys, *attention.kv.values))


def test_a_step_larger_than_compiled_for_is_refused(tables: list[NDArray[np.float32]]) -> None:
    recorder = Recorder()
    program = recorder.finish(recorder.select_outputs(recorder.embed(float_weight("q", tables[0]))))
    kv = ReferenceKVStorage(KVSpec(1, 1, 8, 8, GGMLType.F32, GGMLType.F32, 16), 1)
    with pytest.raises(ValueError, match="the batch has 3 tokens, the program was compiled for 1 to 2"):
        ReferenceBackend().compile(program, max_tokens=2).run(batch_of([3], [[0]]), kv)


@pytest.mark.parametrize("kv_type", CACHE_TYPES, ids=lambda t: t.name)
def test_the_cache_holds_what_encoding_keeps(rng: np.random.Generator, kv_type: GGMLType) -> None:
    """Keys and values are seen as their type rounds them; heads that are no whole number of blocks are padded."""
    n, length = 9, 40
    q, k, v = (normal(rng, n, length) for _ in range(3))
    recorder = Recorder()
    values = [recorder.embed(float_weight(name, table)) for name, table in zip("qkv", (q, k, v), strict=True)]
    result = recorder.attention(*values, layer=0, num_heads=1, num_kv_heads=1, scale=0.3)
    backend = ReferenceBackend()
    executable = backend.compile(recorder.finish(recorder.select_outputs(result)), max_tokens=n)
    spec = KVSpec(1, 1, length, length, kv_type, kv_type, 4)
    got = executable.run(batch_of([n], [[4, 0, 2]]), backend.create_kv_storage(spec, 5))
    padded = np.zeros((2, n, 64), np.float32)
    padded[:, :, :length] = k, v
    seen = dequantize(encode(padded, kv_type), kv_type)[:, :, :length]
    np.testing.assert_allclose(got, dense_attention(q, *seen, 1, 1), atol=1e-5)
    assert spec.bytes_per_token == 2 * kv_type.row_bytes(40 if kv_type.block_size == 1 else 64)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 1, 4, 50])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_windows_soft_caps_and_sinks(
    rng: np.random.Generator, window: int | None, softcap: float | None, with_sinks: bool
) -> None:
    n, heads, length = 11, 4, 8
    q, k, v = normal(rng, n, heads, length), normal(rng, n, 2, length), normal(rng, n, 2, length)
    sinks = normal(rng, heads) if with_sinks else None
    got = attend(q, k, v, np.arange(n, dtype=np.int32), 0.3, window=window, softcap=softcap, sinks=sinks)
    for i in range(n):
        for head in range(heads):
            first = 0 if window is None else max(0, i + 1 - window)
            scores = [0.3 * float(q[i, head] @ k[p, head // 2]) for p in range(first, i + 1)]
            if softcap is not None:
                scores = [softcap * math.tanh(score / softcap) for score in scores]
            weights = [math.exp(score) for score in scores]
            total = sum(weights) + (math.exp(float(sinks[head])) if sinks is not None else 0.0)
            mixed = sum(
                w * v[p, head // 2].astype(np.float64) for w, p in zip(weights, range(first, i + 1), strict=True)
            )
            np.testing.assert_allclose(got[i, head * length : (head + 1) * length], mixed / total, atol=1e-5)
