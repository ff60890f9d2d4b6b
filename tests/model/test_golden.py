"""Whole models against logits computed by llama.cpp, and against themselves: in chunks, in batches, on scattered pages.

Of each file there are llama.cpp's own logits, and those of the same weights in float32 ("exact"). A backend that does
not round activations has to agree with the exact ones up to that run's own rounding; one that does may be off by as
much as llama.cpp is, plus 10 %.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise, repeat
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quipu.backends.program import Backend, Batch, Executable, KVStorage, Recorder
from quipu.backends.reference import ReferenceBackend
from quipu.errors import UnsupportedModelError
from quipu.gguf import GGMLType, GGUFReader
from quipu.models import ARCHITECTURES, Model, load_model

STEMS = [
    "llama-F16",
    "llama-Q8_0",
    "llama-Q4_0",
    "llama-Q5_0",
    "llama-Q4_K_M",
    "llama-Q5_K_M",
    "llama-Q6_K",
    "llama-Q2_K",
    "llama-Q3_K_M",
    "llama-IQ4_XS",
    "llama-IQ3_XXS",
    "llama-IQ1_S",
    "llama-fusedqkv-Q4_K_M",
    "llama-linear-Q4_K_M",
    "llama-linear-oldkey-Q4_K_M",
    "llama-yarn-Q4_K_M",
    "llama3-rope-Q4_K_M",
    "mistral-swa-Q4_K_M",  # the architecture has no window, and the file carries none: llama.cpp attends fully
    "qwen2-Q8_0",
    "qwen2-Q4_K_M",
    "qwen3-Q4_K_M",
    "mixtral-Q4_K_M",
    "qwen2moe-Q4_K_M",
]
# Tokens whose second and third expert are so close (0.008 in the exact logits) that rounded activations may swap them,
# which moves the whole row. Runs that do not round are compared on them too.
NEAR_TIES = {"qwen2moe-Q4_K_M": [10]}
ENCODERS = {"bert"}  # they give embeddings, no logits: test_golden_embeddings.py
EXACT_ERROR = 0.001  # what the exact run's own rounding amounts to, with some room
PAGE_SIZE = 16
MAX_TOKENS = 96


def reference_backend() -> Backend:
    return ReferenceBackend(weight_cache_bytes=1 << 25)


def cpu_backend() -> Backend:
    module = pytest.importorskip("quipu.backends.cpu", reason="the native module is not built", exc_type=ImportError)
    backend: Backend = module.CPUBackend(2)
    return backend


@pytest.fixture(scope="module", params=[reference_backend, cpu_backend], ids=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> Backend:
    make: Callable[[], Backend] = request.param
    return make()


@cache
def golden_folder() -> Path:
    root = os.environ.get("QUIPU_TEST_DATA")
    if root is None:
        pytest.skip("QUIPU_TEST_DATA does not name the folder with the golden models")
    return Path(root) / "golden"


@cache
def golden_arrays(stem: str) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    """Token ids, llama.cpp's logits, and the exact ones."""
    for name in ("logits.npz", "logits_architectures.npz"):
        with np.load(golden_folder() / name) as arrays:
            if stem in arrays:
                return arrays["tokens"].astype(np.int32), arrays[stem], arrays[f"exact/{stem}"]
    raise KeyError(stem)


@cache
def golden_model(stem: str) -> Model:
    with GGUFReader(golden_folder() / f"{stem}.gguf") as reader:
        return load_model(reader)


def relative_error(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - expected) / np.linalg.norm(expected.astype(np.float64)))


def make_batch(pieces: Sequence[tuple[NDArray[np.int32], int]], tables: Sequence[Sequence[int]]) -> Batch:
    """A step with the logits of all its tokens.

    Args:
        pieces: per sequence its new tokens and how many tokens it has in the cache already.
        tables: per sequence its pages.
    """
    lengths = [len(tokens) for tokens, _ in pieces]
    width = max(map(len, tables))
    return Batch(
        token_ids=np.concatenate([tokens for tokens, _ in pieces]),
        positions=np.concatenate([np.arange(done, done + len(tokens), dtype=np.int32) for tokens, done in pieces]),
        query_starts=np.cumsum([0, *lengths], dtype=np.int32),
        kv_lengths=np.array([done + len(tokens) for tokens, done in pieces], dtype=np.int32),
        page_tables=np.array([[*table, *[0] * (width - len(table))] for table in tables], dtype=np.int32),
        output_rows=np.arange(sum(lengths), dtype=np.int32),
    )


def prepare(
    backend: Backend, model: Model, kv_type: GGMLType = GGMLType.F32, num_pages: int = 16
) -> tuple[Executable, KVStorage]:
    executable = backend.compile(model.record(Recorder()), max_tokens=MAX_TOKENS)
    return executable, backend.create_kv_storage(model.kv_spec(kv_type, kv_type, PAGE_SIZE), num_pages)


def run_whole(
    backend: Backend, model: Model, tokens: NDArray[np.int32], kv_type: GGMLType = GGMLType.F32
) -> NDArray[np.float32]:
    """All tokens in one step, on pages in order: float32 [T, vocab]."""
    executable, kv = prepare(backend, model, kv_type)
    pages = range(-(-len(tokens) // PAGE_SIZE))
    return executable.run(make_batch([(tokens, 0)], [pages]), kv).copy()


def compared(logits: NDArray[np.float32], stem: str) -> NDArray[np.float32]:
    """The rows that a run with rounded activations is compared on."""
    return np.delete(logits, NEAR_TIES.get(stem, []), axis=0)


@pytest.mark.parametrize("stem", STEMS)
def test_logits(backend: Backend, stem: str) -> None:
    tokens, llama_cpp, exact = golden_arrays(stem)
    got = run_whole(backend, golden_model(stem), tokens)
    if backend.name == "reference":
        assert relative_error(got, exact) <= EXACT_ERROR
    else:
        error = relative_error(compared(got, stem), compared(exact, stem))
        assert error <= 1.1 * relative_error(compared(llama_cpp, stem), compared(exact, stem))


def test_every_golden_file_of_our_architectures_is_tested() -> None:
    stems = set()
    for path in golden_folder().glob("*.gguf"):
        with GGUFReader(path) as reader:
            if reader.metadata["general.architecture"] in set(ARCHITECTURES) - ENCODERS:
                stems.add(path.stem)
    assert stems == set(STEMS)


@pytest.mark.parametrize(
    ("stem", "named"),
    [("gpt-oss-MXFP4_MOE", "gpt-oss"), ("gemma-Q4_K_M", "gemma"), ("qwen2vl-Q4_K_M", "qwen2vl")],
)
def test_files_beyond_these_architectures_are_refused_by_name(stem: str, named: str) -> None:
    with GGUFReader(golden_folder() / f"{stem}.gguf") as reader, pytest.raises(UnsupportedModelError, match=named):
        load_model(reader)


SELF_STEMS = ["llama-F16", "llama3-rope-Q4_K_M", "qwen2-Q8_0", "qwen3-Q4_K_M", "mixtral-Q4_K_M", "qwen2moe-Q4_K_M"]


def allowed_difference(backend: Backend, stem: str) -> float:
    """How far two ways to compute the same logits may be apart.

    Where activations are rounded to 8 bits, a last-bit difference between two kernels tips a value now and then to the
    next step, and all later tokens see it. That moves the result, but not away from the truth: the difference stays
    below the error that rounding makes anyway.
    """
    if backend.name == "reference" or stem.endswith("F16"):
        return 5e-6
    _, llama_cpp, exact = golden_arrays(stem)
    return relative_error(llama_cpp, exact)


def chunks(total: int, sizes: Iterator[int]) -> list[tuple[int, int]]:
    """Borders of consecutive chunks of the given sizes that cover `total` tokens."""
    borders = [0]
    while borders[-1] < total:
        borders.append(min(total, borders[-1] + next(sizes)))
    return list(pairwise(borders))


def run_in_chunks(backend: Backend, model: Model, tokens: NDArray[np.int32], size: int) -> NDArray[np.float32]:
    """`size` tokens per step, on scattered pages: float32 [T, vocab]."""
    executable, kv = prepare(backend, model)
    pages = [11, 2, 7]
    steps = [make_batch([(tokens[begin:end], begin)], [pages]) for begin, end in chunks(len(tokens), repeat(size))]
    return np.concatenate([executable.run(step, kv).copy() for step in steps])


@pytest.mark.parametrize("size", [1, 5, 16, 33])
@pytest.mark.parametrize("stem", SELF_STEMS)
def test_chunks_give_what_the_whole_gives(backend: Backend, stem: str, size: int) -> None:
    tokens, llama_cpp, exact = golden_arrays(stem)
    model = golden_model(stem)
    got = run_in_chunks(backend, model, tokens, size)
    whole = run_whole(backend, model, tokens)
    assert relative_error(compared(got, stem), compared(whole, stem)) < allowed_difference(backend, stem)
    error = relative_error(compared(got, stem), compared(exact, stem))
    assert error <= max(EXACT_ERROR, 1.1 * relative_error(compared(llama_cpp, stem), compared(exact, stem)))


@pytest.mark.parametrize("stem", SELF_STEMS)
def test_few_tokens_at_a_time_give_the_same_bits(stem: str) -> None:
    """Speculative decoding relies on it: 1 to 8 tokens are one kernel class."""
    tokens, _, _ = golden_arrays(stem)
    backend, model = cpu_backend(), golden_model(stem)
    one_by_one = run_in_chunks(backend, model, tokens, 1)
    for size in (2, 5, 8):
        np.testing.assert_array_equal(run_in_chunks(backend, model, tokens, size), one_by_one)


@pytest.mark.parametrize("stem", SELF_STEMS)
def test_batches_give_what_single_sequences_give(backend: Backend, stem: str) -> None:
    """Three sequences on interleaved pages: one goes on, one begins, one decodes a single token."""
    tokens, _, _ = golden_arrays(stem)
    model = golden_model(stem)
    sequences = [tokens[:40], tokens[5:27], tokens[::-1][:31].copy()]
    expected = [run_whole(backend, model, sequence) for sequence in sequences]
    tables = [[9, 0, 4], [12, 3], [1, 15]]
    executable, kv = prepare(backend, model)
    first = make_batch([(sequences[0][:21], 0), (sequences[2][:30], 0)], [tables[0], tables[2]])
    early = executable.run(first, kv).copy()
    second = make_batch([(sequences[0][21:], 21), (sequences[1], 0), (sequences[2][30:], 30)], tables)
    late = executable.run(second, kv).copy()
    got = [np.concatenate([early[:21], late[:19]]), late[19:41], np.concatenate([early[21:], late[41:]])]
    for rows, wanted in zip(got, expected, strict=True):
        assert relative_error(rows, wanted) < allowed_difference(backend, stem)


@pytest.mark.parametrize("rows", [[0], [47], [3, 4, 20], list(range(1, 48, 2)), []])
def test_only_the_wanted_rows_come_back(backend: Backend, rows: list[int]) -> None:
    tokens, _, _ = golden_arrays("qwen3-Q4_K_M")
    model = golden_model("qwen3-Q4_K_M")
    whole = run_whole(backend, model, tokens)
    executable, kv = prepare(backend, model)
    batch = make_batch([(tokens, 0)], [[5, 1, 3]])
    wanted = Batch(
        batch.token_ids,
        batch.positions,
        batch.query_starts,
        batch.kv_lengths,
        batch.page_tables,
        np.array(rows, dtype=np.int32),
    )
    got = executable.run(wanted, kv)
    assert got.shape == (len(rows), whole.shape[1])
    if rows:
        assert relative_error(got, whole[rows]) < allowed_difference(backend, "qwen3-Q4_K_M")


def test_a_half_precision_cache_changes_little(backend: Backend) -> None:
    tokens, _, exact = golden_arrays("llama-F16")
    got = run_whole(backend, golden_model("llama-F16"), tokens, GGMLType.F16)
    assert relative_error(got, exact) < EXACT_ERROR


def test_the_two_backends_agree_where_weights_are_floats() -> None:
    tokens, _, _ = golden_arrays("llama-F16")
    model = golden_model("llama-F16")
    assert relative_error(run_whole(cpu_backend(), model, tokens), run_whole(reference_backend(), model, tokens)) < 5e-6
