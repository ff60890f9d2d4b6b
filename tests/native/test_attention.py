"""Native attention against the reference backend: every pair of cache types, windows, sinks, soft caps, long contexts,
and what must not change a single bit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from conftest import float_weight
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quipu import _native
from quipu.backends.cpu import CPUBackend
from quipu.backends.program import CACHE_TYPES, Batch, Executable, KVSpec, KVStorage, Recorder
from quipu.backends.reference import ReferenceBackend
from quipu.gguf.types import GGMLType
from quipu.quant import encode

F32, F16 = GGMLType.F32, GGMLType.F16
QUANTIZED = [type_ for type_ in CACHE_TYPES if type_.block_size == 32]
Array = NDArray[np.float32]


class Case:
    """Attention over tables of queries, keys and values, whose row i is token id i, for any backend."""

    def __init__(
        self,
        rng: np.random.Generator,
        num_tokens: int,
        num_heads: int,
        num_kv_heads: int,
        key_length: int,
        value_length: int | None = None,
        *,
        types: tuple[GGMLType, GGMLType] = (F32, F32),
        page_size: int = 64,
        spread: float = 1.0,
        window: int | None = None,
        softcap: float | None = None,
        sinks: bool = False,
    ) -> None:
        value_length = value_length or key_length
        self.num_tokens = num_tokens
        self.spec = KVSpec(1, num_kv_heads, key_length, value_length, *types, page_size)
        self.num_pages = 2 * -(-num_tokens // page_size) + 3
        self.pages = rng.permutation(self.num_pages).astype(np.int32)
        widths = num_heads * key_length, num_kv_heads * key_length, num_kv_heads * value_length
        tables = [spread * rng.standard_normal((num_tokens, width)).astype(np.float32) for width in widths]
        recorder = Recorder()
        q, k, v = (recorder.embed(float_weight(name, table)) for name, table in zip("qkv", tables, strict=True))
        y = recorder.attention(
            q,
            k,
            v,
            layer=0,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            scale=key_length**-0.5,
            window=window,
            softcap=softcap,
            sinks=float_weight("sinks", 3 * rng.standard_normal((1, num_heads))) if sinks else None,
        )
        self.program = recorder.finish(recorder.select_outputs(y))

    def start(self, backend: CPUBackend | ReferenceBackend) -> tuple[Executable, KVStorage]:
        executable = backend.compile(self.program, max_tokens=self.num_tokens)
        return executable, backend.create_kv_storage(self.spec, self.num_pages)

    def batch(self, begin: int, end: int) -> Batch:
        positions = np.arange(begin, end, dtype=np.int32)
        return Batch(
            token_ids=positions,
            positions=positions,
            query_starts=np.array([0, end - begin], np.int32),
            kv_lengths=np.array([end], np.int32),
            page_tables=self.pages[None, : -(-end // self.spec.page_size)],
            output_rows=np.arange(end - begin, dtype=np.int32),
        )

    def run(self, backend: CPUBackend | ReferenceBackend, sizes: Sequence[int]) -> Array:
        """One sequence, in steps of `sizes` tokens; the results of all steps."""
        executable, kv = self.start(backend)
        ends = np.cumsum(sizes)
        return np.concatenate(
            [executable.run(self.batch(end - size, end), kv).copy() for size, end in zip(sizes, ends, strict=True)]
        )


def relative_error(got: Array, expected: Array) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("v_type", CACHE_TYPES, ids=lambda t: f"V {t.name}")
@pytest.mark.parametrize("k_type", CACHE_TYPES, ids=lambda t: f"K {t.name}")
def test_every_pair_of_cache_types_reads_the_same_codes(
    backend: CPUBackend, k_type: GGMLType, v_type: GGMLType
) -> None:
    """Only float sums differ: the codes, and what they decode to, are those of the reference."""
    rng = np.random.default_rng([int(k_type), int(v_type)])
    case = Case(rng, 100, 6, 2, 64, types=(k_type, v_type), page_size=32)
    expected = case.run(ReferenceBackend(), [100])
    for sizes in ([100], [70, 1, 1, 28]):
        assert relative_error(case.run(backend, sizes), expected) < 1e-6


@pytest.mark.parametrize("type_", CACHE_TYPES, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "key_length", "value_length", "page_size"),
    [
        (7, 1, 32, 32, 16),
        (4, 4, 80, 80, 32),
        (3, 1, 24, 40, 64),
        (2, 2, 8, 100, 16),
        (40, 2, 128, 96, 128),
        (1, 1, 1, 1, 16),
    ],
)
def test_odd_shapes(
    backend: CPUBackend,
    type_: GGMLType,
    heads: int,
    kv_heads: int,
    key_length: int,
    value_length: int,
    page_size: int,
) -> None:
    """Heads that are no whole number of vectors or blocks, and every number of rows in a register tile."""
    rng = np.random.default_rng(heads)
    case = Case(rng, 75, heads, kv_heads, key_length, value_length, types=(type_, type_), page_size=page_size)
    expected = case.run(ReferenceBackend(), [75])
    for sizes in ([75], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20]):
        assert relative_error(case.run(backend, sizes), expected) < 2e-6


@pytest.mark.parametrize("type_", [F32, F16, GGMLType.Q8_0, GGMLType.Q4_0], ids=lambda t: t.name)
@pytest.mark.parametrize("window", [None, 1, 5, 64, 100, 1000])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("sinks", [False, True])
def test_windows_soft_caps_and_sinks(
    backend: CPUBackend, type_: GGMLType, window: int | None, softcap: float | None, sinks: bool
) -> None:
    rng = np.random.default_rng(12)
    case = Case(rng, 330, 6, 2, 32, types=(type_, type_), spread=1.5, window=window, softcap=softcap, sinks=sinks)
    expected = case.run(ReferenceBackend(), [330])
    for sizes in ([330], [150, 1, 9, 1, 139, 30]):
        assert relative_error(case.run(backend, sizes), expected) < 3e-6


@pytest.mark.parametrize("type_", [F16, GGMLType.Q5_1], ids=lambda t: t.name)
@pytest.mark.parametrize("window", [None, 700])
def test_long_contexts_are_merged_from_chunks(backend: CPUBackend, type_: GGMLType, window: int | None) -> None:
    """Decode, small and large steps on a context of many chunks."""
    rng = np.random.default_rng(13)
    num_tokens = 1800
    case = Case(rng, num_tokens, 4, 2, 32, types=(type_, type_), spread=2.0, window=window, sinks=True)
    expected = case.run(ReferenceBackend(), [num_tokens])
    got = case.run(backend, [700, 1, 200, 1, 17, 100, 1, 700, 79, 1])
    assert relative_error(got, expected) < 2e-6


@pytest.mark.parametrize("type_", [F32, F16, GGMLType.Q8_0, GGMLType.IQ4_NL], ids=lambda t: t.name)
@pytest.mark.parametrize("window", [None, 90])
def test_up_to_eight_tokens_give_the_bits_of_one(backend: CPUBackend, type_: GGMLType, window: int | None) -> None:
    """Also where the tokens lie on both sides of a block, a page or a chunk."""
    rng = np.random.default_rng(14)
    case = Case(rng, 530, 7, 1, 64, types=(type_, type_), window=window, sinks=window is not None)
    alone = case.run(backend, [245] + [1] * 285)
    together = case.run(backend, [245, 8, 7, 8, 3] + [8] * 32 + [3])
    np.testing.assert_array_equal(alone, together)


def test_threads_and_neighbours_change_no_bit() -> None:
    """The same bits for one, two and five threads, and for a sequence alone or beside others."""
    rng = np.random.default_rng(15)
    case = Case(rng, 1400, 4, 2, 64, types=(GGMLType.Q8_0, GGMLType.Q4_1), page_size=32)
    sizes = [1300, 1, 6, 1, 92]
    one = case.run(CPUBackend(1), sizes)
    for num_threads in (2, 5):
        for _ in range(3):
            np.testing.assert_array_equal(case.run(CPUBackend(num_threads), sizes), one)
    # Sequences of 600, 1 and 300 tokens, each decoding one more, in one step and each by itself.
    executable, kv = case.start(CPUBackend(2))
    lengths = [600, 1, 300]
    firsts = np.cumsum([0, *(-(-length // 32) + 1 for length in lengths)])
    tables = [case.pages[begin:end] for begin, end in itertools.pairwise(firsts)]

    def batch(parts: list[tuple[int, int, int]]) -> Batch:
        """Parts are (sequence, begin, end); token id = position."""
        table = np.zeros((len(parts), max(map(len, tables))), np.int32)
        for row, (sequence, _, _) in zip(table, parts, strict=True):
            row[: len(tables[sequence])] = tables[sequence]
        positions = np.concatenate([np.arange(begin, end) for _, begin, end in parts]).astype(np.int32)
        return Batch(
            token_ids=positions,
            positions=positions,
            query_starts=np.cumsum([0, *(end - begin for _, begin, end in parts)], dtype=np.int32),
            kv_lengths=np.array([end for _, _, end in parts], np.int32),
            page_tables=table,
            output_rows=np.arange(len(positions), dtype=np.int32),
        )

    executable.run(batch([(s, 0, length) for s, length in enumerate(lengths)]), kv)
    decode = [(s, length, length + 1) for s, length in enumerate(lengths)]
    together = executable.run(batch(decode), kv).copy()
    for s, part in enumerate(decode):
        np.testing.assert_array_equal(executable.run(batch([part]), kv)[0], together[s])


def test_huge_scores_and_far_apart_ones(backend: CPUBackend) -> None:
    """A softmax of one winner, and weights down to nothing; no overflow and no NaN."""
    rng = np.random.default_rng(16)
    for spread in (1e-3, 8.0, 60.0):
        case = Case(rng, 200, 4, 2, 32, spread=spread)
        got, expected = case.run(backend, [199, 1]), case.run(ReferenceBackend(), [200])
        assert np.isfinite(got).all()
        # A score of s has an error of s * 2^-22 or so, which is the relative error of its weight.
        assert relative_error(got, expected) < 2e-6 + spread**2 * 2e-6


@pytest.mark.parametrize("type_", CACHE_TYPES, ids=lambda t: t.name)
@pytest.mark.parametrize("where", ["k", "v"])
def test_a_nan_is_never_swallowed(backend: CPUBackend, type_: GGMLType, where: str) -> None:
    rng = np.random.default_rng(17)
    tables = [rng.standard_normal((40, 64)).astype(np.float32) for _ in range(3)]
    for poison in (np.nan, np.inf) if where == "v" else (np.nan,):  # a key may be so far off that nobody sees it
        poisoned = [table.copy() for table in tables]
        poisoned["qkv".index(where)][30, 5] = poison
        recorder = Recorder()
        q, k, v = (recorder.embed(float_weight(name, table)) for name, table in zip("qkv", poisoned, strict=True))
        y = recorder.attention(q, k, v, layer=0, num_heads=1, num_kv_heads=1, scale=0.125)
        executable = backend.compile(recorder.finish(recorder.select_outputs(y)), max_tokens=40)
        kv = backend.create_kv_storage(KVSpec(1, 1, 64, 64, type_, type_, 16), 3)
        for begin, end in ((0, 30), (30, 40)):
            batch = Batch(
                token_ids=np.arange(begin, end, dtype=np.int32),
                positions=np.arange(begin, end, dtype=np.int32),
                query_starts=np.array([0, end - begin], np.int32),
                kv_lengths=np.array([end], np.int32),
                page_tables=np.array([[2, 0, 1]], np.int32),
                output_rows=np.arange(end - begin, dtype=np.int32),
            )
            got = executable.run(batch, kv)
            finite = np.isfinite(got).all(-1)
            assert finite.all() if begin == 0 else not finite.any()


def test_what_lies_in_unwritten_slots_does_not_matter(backend: CPUBackend) -> None:
    """Pages that held NaN before, as after other requests, give the same bits as fresh ones."""
    rng = np.random.default_rng(18)
    for type_ in CACHE_TYPES:
        case = Case(rng, 64, 3, 1, 40, types=(type_, type_), page_size=32)
        executable, kv = case.start(backend)
        fresh = executable.run(case.batch(0, 21), kv).copy()
        nan_case = Case(rng, 64, 3, 1, 40, types=(type_, type_), page_size=32, spread=np.nan)
        backend.compile(nan_case.program, max_tokens=64).run(
            Batch(**{**vars_of(case.batch(0, 64)), "page_tables": case.pages[None, :2]}), kv
        )
        np.testing.assert_array_equal(executable.run(case.batch(0, 21), kv), fresh)


def vars_of(batch: Batch) -> dict:
    return {name: getattr(batch, name) for name in Batch.__dataclass_fields__}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_shape_in_any_chunks(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    kv_heads = data.draw(st.integers(1, 3))
    num_tokens = data.draw(st.integers(1, 300))
    case = Case(
        rng,
        num_tokens,
        kv_heads * data.draw(st.integers(1, 9)),
        kv_heads,
        data.draw(st.integers(1, 70)),
        data.draw(st.integers(1, 70)),
        types=(data.draw(st.sampled_from(CACHE_TYPES)), data.draw(st.sampled_from(CACHE_TYPES))),
        page_size=data.draw(st.sampled_from([16, 48, 64, 256])),
        window=data.draw(st.none() | st.integers(1, 300)),
        softcap=data.draw(st.none() | st.floats(0.5, 50)),
        sinks=data.draw(st.booleans()),
    )
    sizes, left = [], num_tokens
    while left:
        sizes.append(data.draw(st.integers(1, left)))
        left -= sizes[-1]
    expected = case.run(ReferenceBackend(), [num_tokens])
    assert relative_error(case.run(CPUBackend(2), sizes), expected) < 5e-6


@pytest.mark.parametrize("type_", QUANTIZED, ids=lambda t: t.name)
def test_native_encoding_has_the_bits_of_numpy(type_: GGMLType) -> None:
    rng = np.random.default_rng(19)
    x = (rng.standard_normal((4000, 32)) * np.exp(4 * rng.standard_normal((4000, 1)))).astype(np.float32)
    x[:4] = [[0], [1], [-1], [1e-42]]
    x[4], x[5], x[6] = rng.choice([3e38, -3e38], (3, 32))
    x[7, 3], x[8, 31], x[9, 0] = np.nan, np.inf, -np.inf
    x[10:20] = np.round(x[10:20])  # ties
    check_encoding(type_, x)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    type_=st.sampled_from(QUANTIZED),
    values=st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=32, max_size=32),
)
def test_native_encoding_of_anything(type_: GGMLType, values: list[float]) -> None:
    check_encoding(type_, np.array([values], np.float32))


def check_encoding(type_: GGMLType, x: Array) -> None:
    x = x + np.float32(0)  # no -0: which of two zeros is the lowest is open
    got = np.empty(len(x) * type_.block_bytes, np.uint8)
    _native.encode(int(type_), x.reshape(-1), got)
    np.testing.assert_array_equal(got.reshape(len(x), -1), encode(x, type_))


def test_encoding_refuses_wrong_requests() -> None:
    with pytest.raises(ValueError, match="not encoded here"):
        _native.encode(int(GGMLType.Q4_K), np.zeros(256, np.float32), np.zeros(144, np.uint8))
    with pytest.raises(ValueError, match="whole blocks"):
        _native.encode(int(GGMLType.Q8_0), np.zeros(32, np.float32), np.zeros(33, np.uint8))


def test_wrong_options_are_refused_when_recorded() -> None:
    recorder = Recorder()
    x = recorder.embed(float_weight("x", np.zeros((4, 64), np.float32)))
    sizes = {"layer": 0, "num_heads": 2, "num_kv_heads": 1, "scale": 1.0}
    kv = recorder.embed(float_weight("kv", np.zeros((4, 32), np.float32)))
    with pytest.raises(ValueError, match="not positive"):
        recorder.attention(x, kv, kv, **sizes, window=0)
    with pytest.raises(ValueError, match="not positive"):
        recorder.attention(x, kv, kv, **sizes, softcap=-1.0)
    with pytest.raises(ValueError, match="not one for each of 2 heads"):
        recorder.attention(x, kv, kv, **sizes, sinks=float_weight("sinks", np.zeros((1, 3), np.float32)))
    with pytest.raises(ValueError, match="cannot hold Q4_K"):
        KVSpec(1, 1, 64, 64, GGMLType.Q4_K, F16, 64)
