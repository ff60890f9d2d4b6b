"""Pages of the KV cache as bytes: read, written and copied, they give the same attention, for all pairs of types."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from conftest import float_weight
from numpy.typing import NDArray

from quipu.backends.cpu import CPUBackend
from quipu.backends.program import CACHE_TYPES, Backend, Batch, Executable, KVSpec, KVStorage, Recorder
from quipu.backends.reference import ReferenceBackend
from quipu.gguf.types import GGMLType

PAGE, LAYERS, TOKENS, HEADS, KV_HEADS = 16, 2, 40, 4, 2
PAIRS = [(kv_type, GGMLType.F16) for kv_type in CACHE_TYPES] + [(GGMLType.F32, kv_type) for kv_type in CACHE_TYPES]

Make = Callable[[], Backend]


@pytest.fixture(params=[ReferenceBackend, lambda: CPUBackend(2)], ids=["reference", "cpu"])
def any_backend(request: pytest.FixtureRequest) -> Backend:
    made: Backend = request.param()
    return made


def attention(backend: Backend, spec: KVSpec) -> Executable:
    """Attention of all layers, over tables whose row i is token i."""
    rng = np.random.default_rng(4)
    recorder = Recorder()
    widths = HEADS * spec.key_length, KV_HEADS * spec.key_length, KV_HEADS * spec.value_length
    tables = [
        float_weight(name, rng.standard_normal((TOKENS, width))) for name, width in zip("qkv", widths, strict=True)
    ]
    q, k, v = (recorder.embed(table) for table in tables)
    parts = [
        recorder.attention(q, k, v, layer=layer, num_heads=HEADS, num_kv_heads=KV_HEADS, scale=0.2 + layer)
        for layer in range(LAYERS)
    ]
    return backend.compile(recorder.finish(recorder.select_outputs(recorder.add(*parts))), max_tokens=TOKENS)


def run(executable: Executable, kv: KVStorage, begin: int, end: int, pages: list[int]) -> NDArray[np.float32]:
    positions = np.arange(begin, end, dtype=np.int32)
    batch = Batch(
        token_ids=positions,
        positions=positions,
        query_starts=np.array([0, end - begin], np.int32),
        kv_lengths=np.array([end], np.int32),
        page_tables=np.array([pages], np.int32),
        output_rows=np.arange(end - begin, dtype=np.int32),
    )
    return executable.run(batch, kv).copy()


@pytest.mark.parametrize("types", PAIRS, ids=lambda types: f"{types[0].name}-{types[1].name}")
@pytest.mark.parametrize("lengths", [(64, 64), (40, 24)], ids=["whole blocks", "padded"])
def test_moved_pages_give_the_same_bits(
    any_backend: Backend, types: tuple[GGMLType, GGMLType], lengths: tuple[int, int]
) -> None:
    spec = KVSpec(LAYERS, KV_HEADS, *lengths, *types, PAGE)
    executable = attention(any_backend, spec)
    kv, other = any_backend.create_kv_storage(spec, 8), any_backend.create_kv_storage(spec, 5)
    run(executable, kv, 0, 39, [6, 1, 3])
    expected = run(executable, kv, 39, 40, [6, 1, 3])
    data = [kv.read_page(page) for page in (6, 1, 3)]
    assert all(page.shape == (spec.bytes_per_page,) and page.dtype == np.uint8 for page in data)
    for page, content in zip((4, 0, 2), data, strict=True):
        other.write_page(page, content)
    np.testing.assert_array_equal(run(executable, other, 39, 40, [4, 0, 2]), expected)
    kv.copy_page(1, 7)
    kv.copy_page(3, 0)
    np.testing.assert_array_equal(run(executable, kv, 39, 40, [6, 7, 0]), expected)
    # A copy is written on, and what it was made of stays.
    run(executable, kv, 34, 36, [6, 7, 0])
    np.testing.assert_array_equal(kv.read_page(3), data[2])
    for page, content in zip((6, 1), data, strict=False):
        np.testing.assert_array_equal(kv.read_page(page), content)


def test_wrong_pages_are_refused() -> None:
    spec = KVSpec(LAYERS, KV_HEADS, 64, 64, GGMLType.F16, GGMLType.Q8_0, PAGE)
    kv = CPUBackend(1).create_kv_storage(spec, 3)
    data = np.zeros(spec.bytes_per_page, np.uint8)
    for page in (-1, 3):
        with pytest.raises(ValueError, match="out of range"):
            kv.read_page(page)
        with pytest.raises(ValueError, match="out of range"):
            kv.write_page(page, data)
        with pytest.raises(ValueError, match="out of range"):
            kv.copy_page(0, page)
        with pytest.raises(ValueError, match="out of range"):
            kv.copy_page(page, 0)
    with pytest.raises(ValueError, match="same page"):
        kv.copy_page(1, 1)
    with pytest.raises(ValueError, match="size of a page"):
        kv.write_page(0, data[:-1])
