"""Native ops of encoders against the reference: layer norm, activations, summed embeddings, unmasked attention."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from conftest import float_weight, random_weight, run_on_rows, whole_batch
from numpy.typing import NDArray

from quipu.backends import reference
from quipu.backends.cpu import CPUBackend
from quipu.backends.program import Activation, Backend, Batch, KVSpec, Program, Recorder
from quipu.backends.reference import ReferenceBackend
from quipu.gguf.types import GGMLType


@pytest.mark.parametrize("num_rows", [1, 3, 20])
@pytest.mark.parametrize("width", [1, 7, 8, 63, 64, 200, 384])
def test_layer_norm(backend: CPUBackend, num_rows: int, width: int) -> None:
    rng = np.random.default_rng([num_rows, width])
    x = rng.standard_normal((num_rows, width)).astype(np.float32) * 3 + 100  # far from zero: the mean must go first
    weight, bias = rng.standard_normal((2, 1, width)).astype(np.float32)
    got = run_on_rows(
        backend, x, lambda r, v: r.layer_norm(v, float_weight("weight", weight), float_weight("bias", bias), 1e-12)
    )
    expected = reference.layer_norm(x, weight[0], bias[0], 1e-12)
    np.testing.assert_allclose(got, expected, rtol=3e-5, atol=1e-5)


def test_layer_norm_of_equal_values(backend: CPUBackend) -> None:
    bias = np.arange(64, dtype=np.float32)[None]
    got = run_on_rows(
        backend,
        np.full((2, 64), 3.25, np.float32),
        lambda r, v: r.layer_norm(v, float_weight("weight", bias + 1), float_weight("bias", bias), 1e-12),
    )
    np.testing.assert_array_equal(got, np.broadcast_to(bias, (2, 64)))


@pytest.mark.parametrize("function", ["gelu", "gelu_tanh", "tanh"])
def test_activations(backend: CPUBackend, function: Activation) -> None:
    x = np.concatenate([np.linspace(-12, 12, 4801), [0.0, -0.0, 1e-30, -100, 100, -1e30, 1e30]]).astype(np.float32)
    got = run_on_rows(backend, x[None], lambda r, v: r.activation(v, function))[0]
    with np.errstate(over="ignore"):
        expected = reference.ACTIVATIONS[function](x.astype(np.float64))
    # The formulas are good to 1.5e-7 of the value that is scaled by |x|.
    np.testing.assert_allclose(got, expected, rtol=3e-7, atol=2e-7 * np.minimum(np.abs(x), 12).max() / 4)
    near = np.abs(x) < 1
    np.testing.assert_allclose(got[near], expected[near], atol=2e-7, rtol=0)


def test_gelu_is_that_of_the_definition() -> None:
    x = np.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(reference.gelu(x), expected, rtol=1e-15)
    np.testing.assert_allclose(reference.gelu_tanh(x), expected, atol=5e-4)
    assert reference.gelu_tanh(x)[4] != reference.gelu(x)[4]


@pytest.mark.parametrize("function", ["gelu", "gelu_tanh", "tanh"])
def test_a_nan_stays_one(backend: CPUBackend, function: Activation) -> None:
    x = np.ones((1, 16), np.float32)
    x[0, 3] = np.nan
    got = run_on_rows(backend, x, lambda r, v: r.activation(v, function))[0]
    assert np.flatnonzero(np.isnan(got)).tolist() == [3]


def embedding_batch(token_ids: NDArray[np.int32], token_types: NDArray[np.int32] | None) -> Batch:
    return replace(whole_batch(len(token_ids)), token_ids=token_ids, token_types=token_types)


@pytest.mark.parametrize("weight_type", [GGMLType.F32, GGMLType.F16, GGMLType.Q8_0], ids=lambda t: t.name)
@pytest.mark.parametrize("with_types", [True, False])
def test_embeddings_are_summed(backend: CPUBackend, weight_type: GGMLType, with_types: bool) -> None:
    rng = np.random.default_rng(8)
    (table, a), (positions, b), (types, c) = (
        random_weight(rng, name, weight_type, rows, 96)
        for name, rows in (("table", 50), ("positions", 40), ("types", 2))
    )
    ids, of_ids = rng.integers(0, 50, 33).astype(np.int32), rng.integers(0, 2, 33).astype(np.int32)
    recorder = Recorder()
    program = recorder.finish(recorder.select_outputs(recorder.embed(table, positions, types)))
    kv = backend.create_kv_storage(KVSpec(1, 1, 64, 64, GGMLType.F32, GGMLType.F32, 64), 8)
    executable = backend.compile(program, max_tokens=64)
    got = executable.run(embedding_batch(ids, of_ids if with_types else None), kv)
    expected = a[ids] + c[of_ids if with_types else np.zeros_like(ids)] + b[:33]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("make_backend", [ReferenceBackend, lambda: CPUBackend(1)], ids=["reference", "cpu"])
def test_rows_that_tables_do_not_have(make_backend: Callable[[], Backend]) -> None:
    other = make_backend()
    table = float_weight("table", np.ones((4, 32), np.float32))
    recorder = Recorder()
    program = recorder.finish(recorder.select_outputs(recorder.embed(table, table, table)))
    executable = other.compile(program, max_tokens=16)
    kv = other.create_kv_storage(KVSpec(1, 1, 32, 32, GGMLType.F32, GGMLType.F32, 64), 8)
    ids = np.zeros(4, np.int32)
    assert (executable.run(embedding_batch(ids, ids + 3), kv) == 3).all()
    with pytest.raises(ValueError, match="positions go to 4"):
        executable.run(embedding_batch(np.zeros(5, np.int32), None), kv)
    for wrong in (4, -1):
        with pytest.raises(ValueError, match="token_types go from"):
            executable.run(embedding_batch(ids, np.array([0, 0, 0, wrong], np.int32)), kv)


def test_one_type_per_token(backend: CPUBackend) -> None:
    table = float_weight("table", np.ones((4, 32), np.float32))
    recorder = Recorder()
    executable = backend.compile(
        recorder.finish(recorder.select_outputs(recorder.embed(table, table, table))), max_tokens=8
    )
    kv = backend.create_kv_storage(KVSpec(1, 1, 32, 32, GGMLType.F32, GGMLType.F32, 64), 8)
    with pytest.raises(ValueError, match="one type per token"):
        executable.run(embedding_batch(np.zeros(4, np.int32), np.zeros(3, np.int32)), kv)


def attention_program(
    tables: list[NDArray[np.float32]], heads: int, kv_heads: int, *, causal: bool, layers: int
) -> Program:
    """Attention whose queries, keys and values are rows of tables, in layers that share one layer of the cache."""
    recorder = Recorder()
    q, k, v = (recorder.embed(float_weight(f"table {i}", table)) for i, table in enumerate(tables))
    for _ in range(layers):
        scale = (tables[0].shape[1] // heads) ** -0.5
        q = recorder.attention(q, k, v, layer=0, num_heads=heads, num_kv_heads=kv_heads, scale=scale, causal=causal)
    return recorder.finish(recorder.select_outputs(q))


@pytest.mark.parametrize("lengths", [[1], [2, 1, 5], [64], [65, 63], [130, 1, 17, 300], [900]])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("kv_type", [GGMLType.F32, GGMLType.F16, GGMLType.Q8_0], ids=lambda t: t.name)
def test_attention_without_a_mask(
    backend: CPUBackend, lengths: list[int], heads: int, kv_heads: int, kv_type: GGMLType
) -> None:
    rng = np.random.default_rng([heads, len(lengths), lengths[0]])
    num_tokens, page_size, head_length = sum(lengths), 32, 32
    tables = [
        rng.standard_normal((num_tokens, n * head_length)).astype(np.float32) for n in (heads, kv_heads, kv_heads)
    ]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    counts = [-(-length // page_size) for length in lengths]
    pages = iter(rng.permutation(sum(counts)).tolist())  # scattered
    page_tables = np.zeros((len(lengths), max(counts)), np.int32)
    for row, count in zip(page_tables, counts, strict=True):
        row[:count] = [next(pages) for _ in range(count)]
    batch = Batch(
        token_ids=np.arange(num_tokens, dtype=np.int32),
        positions=np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
        query_starts=starts,
        kv_lengths=np.array(lengths, np.int32),
        page_tables=page_tables,
        output_rows=np.arange(num_tokens, dtype=np.int32),
    )
    program = attention_program(tables, heads, kv_heads, causal=False, layers=2 if heads == kv_heads else 1)
    spec = KVSpec(1, kv_heads, head_length, head_length, kv_type, kv_type, page_size)
    results = []
    for one in (ReferenceBackend(), backend):
        kv = one.create_kv_storage(spec, sum(counts))
        executable = one.compile(program, max_tokens=num_tokens)
        for _ in range(2):  # what an earlier run left in the cache is written over
            results.append(executable.run(batch, kv).copy())
    np.testing.assert_allclose(results[2], results[0], rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(results[3], results[2])
    # Every sequence by itself gives the same bits.
    kv = backend.create_kv_storage(spec, sum(counts))
    for sequence, (begin, end) in enumerate(itertools.pairwise(starts)):
        alone = Batch(
            token_ids=batch.token_ids[begin:end],
            positions=batch.positions[begin:end],
            query_starts=np.array([0, end - begin], np.int32),
            kv_lengths=batch.kv_lengths[sequence : sequence + 1],
            page_tables=batch.page_tables[sequence : sequence + 1],
            output_rows=np.arange(end - begin, dtype=np.int32),
        )
        got = backend.compile(program, max_tokens=num_tokens).run(alone, kv)
        np.testing.assert_array_equal(got, results[2][begin:end])


def test_without_a_mask_a_token_sees_later_ones(backend: CPUBackend) -> None:
    """The first of two tokens mixes both values; with the mask it has its own."""
    q = np.zeros((2, 32), np.float32)
    v = np.stack([np.zeros(32), np.full(32, 2.0)]).astype(np.float32)
    for causal, expected in ((True, [0, 1]), (False, [1, 1])):
        program = attention_program([q, q, v], 1, 1, causal=causal, layers=1)
        kv = backend.create_kv_storage(KVSpec(1, 1, 32, 32, GGMLType.F32, GGMLType.F32, 64), 2)
        got = backend.compile(program, max_tokens=8).run(whole_batch(2), kv)
        np.testing.assert_allclose(got, np.repeat(np.array(expected, np.float32)[:, None], 32, axis=1), rtol=1e-6)


def test_shapes_are_checked_when_recording() -> None:
    weight = float_weight("w", np.ones((1, 32), np.float32))
    short = float_weight("short", np.ones((1, 16), np.float32))
    recorder = Recorder()
    x = recorder.embed(weight)
    with pytest.raises(ValueError, match="short expects rows of 16"):
        recorder.layer_norm(x, weight, short, 1e-5)
    with pytest.raises(ValueError, match="short has rows of 16"):
        recorder.embed(weight, short)
    with pytest.raises(ValueError, match="a window needs a causal mask"):
        recorder.attention(x, x, x, layer=0, num_heads=1, num_kv_heads=1, scale=1.0, window=4, causal=False)
