"""However a prompt comes to be computed, its logits are the same: whole or in chunks, alone or beside others, fresh or
from cached pages, copied pages, pages from a file or from the disk; for every architecture and every type of KV cache.

"The same" is a budget for each type, in the table below. Where kernels of one class do all the work, it is the same
bits.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import VOCAB, tiny_model
from numpy.typing import NDArray

from quipu.backends.program import CACHE_TYPES, Backend
from quipu.backends.reference import ReferenceBackend
from quipu.engine import CacheOptions, Engine, ReferenceSampler
from quipu.engine.saved_state import read_state, write_state
from quipu.gguf import GGMLType, GGUFReader
from quipu.models import ARCHITECTURES, Model, load_model
from quipu.types import Request, ReuseLimit, SamplingParams

# Name -> (architecture, whether it has experts).
MODELS = {
    "llama": ("llama", False),
    "mixtral": ("llama", True),
    "qwen2": ("qwen2", False),
    "qwen3": ("qwen3", False),
    "qwen2moe": ("qwen2moe", True),
    "qwen3moe": ("qwen3moe", True),
}

# How far two ways may be apart, relative to the norm of the logits. The weights are float32, so that only the cache
# rounds. Sums in another order differ in their last bits. Where a key or value is stored with fewer bits, such a
# difference now and then tips one of them to the neighbouring step, and later tokens see it: a step of the type's,
# diluted over the values that are averaged. Softmax and experts amplify it a little.
BUDGETS = {
    GGMLType.F32: 1e-5,  # sums in another order, two layers
    GGMLType.F16: 2e-4,  # steps of 2^-11
    GGMLType.BF16: 1e-3,  # steps of 2^-8
    GGMLType.Q8_0: 3e-3,  # steps of 1/127 of a block's largest value
    GGMLType.Q5_1: 2e-2,  # steps of 1/31 of a block's range
    GGMLType.Q5_0: 2e-2,  # steps of 1/16
    GGMLType.Q4_1: 4e-2,  # steps of 1/15 of a block's range
    GGMLType.Q4_0: 4e-2,  # steps of 1/8
    GGMLType.IQ4_NL: 4e-2,  # steps of up to 1/5, for the largest values
}
MIXED = [(GGMLType.Q8_0, GGMLType.Q4_0), (GGMLType.F16, GGMLType.Q5_1), (GGMLType.IQ4_NL, GGMLType.F32)]
PAGE_SIZE = 16
KV_TYPES = [(kv_type, kv_type) for kv_type in CACHE_TYPES] + MIXED
SLOW_KV_TYPES = [(GGMLType.F16, GGMLType.F16), (GGMLType.Q8_0, GGMLType.Q4_0)]
ids_of_types = [f"{k_type.name}-{v_type.name}" for k_type, v_type in KV_TYPES]


def budget(kv_types: tuple[GGMLType, GGMLType]) -> float:
    return max(BUDGETS[kv_type] for kv_type in kv_types)


def reference_backend() -> Backend:
    return ReferenceBackend(weight_cache_bytes=1 << 24)


def cpu_backend() -> Backend:
    module = pytest.importorskip("quipu.backends.cpu", reason="the native module is not built", exc_type=ImportError)
    backend: Backend = module.CPUBackend(2)
    return backend


@pytest.fixture(scope="module", params=[reference_backend, cpu_backend], ids=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> Backend:
    made: Backend = request.param()
    return made


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    architecture, experts = MODELS[request.param]
    path = tiny_model(architecture, experts=experts).write(tmp_path_factory.mktemp(request.param))
    with GGUFReader(path) as reader:
        return load_model(reader)


def test_every_architecture_is_here() -> None:
    encoders = {"bert"}  # computed whole, without a cache: test_embeddings.py compares batches of them
    assert {architecture for architecture, _ in MODELS.values()} == set(ARCHITECTURES) - encoders


class Lab:
    """An engine whose logits are looked at."""

    def __init__(self, model: Model, backend: Backend, **options: Any) -> None:
        defaults: dict[str, Any] = {"ctx_size": 96, "kv_tokens": 480, "page_size": PAGE_SIZE, "ubatch_size": 96}
        shuffle = random.Random(options.pop("seed", 1))
        self.engine = Engine(model, backend, None, ReferenceSampler(), shuffle_pages=shuffle, **{**defaults, **options})
        self.rows: dict[str, NDArray[np.float32]] = {}
        self.cached: dict[str, int] = {}
        self.limits: dict[str, ReuseLimit] = {}
        forward = self.engine._runner.forward

        def watched(step: Sequence[Any]) -> NDArray[np.float32]:
            logits = forward(step)
            ends = np.cumsum([work.num_outputs for work in step])
            for work, end in zip(step, ends, strict=True):
                if work.num_outputs:
                    self.rows[work.sequence.request_id] = logits[end - 1].copy()
            return logits

        self.engine._runner.forward = watched  # type: ignore[method-assign]

    def run(self, prompts: Sequence[NDArray[np.int32]], **options: Any) -> list[NDArray[np.float32]]:
        """The logits after each of the prompts, which are computed together."""
        for number, prompt in enumerate(prompts):
            sampling = SamplingParams(max_tokens=1, temperature=0.0)
            self.engine.submit(Request(str(number), tuple(prompt.tolist()), sampling, **options))
        while self.engine.has_work:
            for event in self.engine.step():
                assert event.reuse is not None
                self.cached[event.request_id] = event.reuse.cached_tokens
                self.limits[event.request_id] = event.reuse.limit
        self.engine.check_integrity()
        return [self.rows[str(number)] for number in range(len(prompts))]


def some_prompts() -> list[NDArray[np.int32]]:
    """Prompts of several lengths; the second to the fourth begin like the first."""
    rng = np.random.default_rng(8)
    first = rng.integers(0, VOCAB, 70).astype(np.int32)
    others = [rng.integers(0, VOCAB, length).astype(np.int32) for length in (9, 6, 30, 1, 17)]
    return [
        first,
        np.concatenate([first[:64], others[0]]),
        np.concatenate([first[:41], others[1]]),
        np.concatenate([first[:16], others[2]]),
        others[3],
        others[4],
    ]


def fresh(model: Model, backend: Backend, **options: Any) -> list[NDArray[np.float32]]:
    """Each prompt alone, in one piece where the step allows it, on an engine that has seen nothing."""
    lab = Lab(model, backend, cache=CacheOptions(enabled=False), **options)
    return [lab.run([prompt])[0] for prompt in some_prompts()]


def assert_close(
    got: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]], kv_types: tuple[GGMLType, GGMLType]
) -> None:
    errors = [
        float(np.linalg.norm(one.astype(np.float64) - two) / np.linalg.norm(two))
        for one, two in zip(got, expected, strict=True)
    ]
    assert max(errors) <= budget(kv_types), errors


@pytest.mark.parametrize("kv_types", KV_TYPES, ids=ids_of_types)
def test_all_ways_are_the_same(
    backend: Backend, model: Model, kv_types: tuple[GGMLType, GGMLType], tmp_path: Path
) -> None:
    if backend.name == "reference" and kv_types not in SLOW_KV_TYPES:
        pytest.skip("numpy is slow; the others run on the native backend")
    prompts = some_prompts()
    expected = fresh(model, backend, kv_types=kv_types)
    for size in (1, 7, 40) if backend.name == "cpu" else (7,):
        assert_close(fresh(model, backend, kv_types=kv_types, ubatch_size=size), expected, kv_types)
    together = Lab(model, backend, kv_types=kv_types, cache=CacheOptions(enabled=False), seed=2)
    assert_close(together.run(prompts), expected, kv_types)

    cached = Lab(model, backend, kv_types=kv_types, seed=3)
    assert_close([cached.run([prompt])[0] for prompt in prompts], expected, kv_types)
    # Whole pages and parts of them: of the third, two pages of 16 and 9 tokens of another.
    assert_close(cached.run(prompts), expected, kv_types)
    assert [cached.cached[str(number)] for number in range(6)] == [69, 72, 46, 45, 0, 16]
    state = cached.engine.export_state(prompts[0])

    write_state(tmp_path / "state", state, cached.engine.state_fingerprint)
    restored = Lab(model, backend, kv_types=kv_types, seed=4)
    engine = restored.engine
    again = read_state(
        tmp_path / "state",
        engine.state_fingerprint,
        page_bytes=engine.page_bytes,
        page_size=PAGE_SIZE,
        max_tokens=engine.kv_size,
        vocab_size=engine.vocab_size,
    )
    assert engine.import_state(again) == 70
    assert_close(restored.run(prompts), expected, kv_types)
    assert [restored.cached[str(number)] for number in range(4)] == [69, 64, 41, 16]

    disk = CacheOptions(folder=tmp_path / "pages", folder_bytes=1 << 24)
    first = Lab(model, backend, kv_types=kv_types, cache=disk, seed=5)
    first.run(prompts)
    first.engine.close()
    second = Lab(model, backend, kv_types=kv_types, cache=disk, seed=6)
    assert_close(second.run(prompts), expected, kv_types)
    assert [second.cached[str(number)] for number in (0, 1, 3)] == [64, 64, 32]
    assert second.cached["2"] in (32, 41)  # a part of the first one's pages, where they were there sooner
    second.engine.close()


@pytest.mark.parametrize("kv_types", KV_TYPES, ids=ids_of_types)
def test_cached_pages_give_the_same_bits_within_one_kernel_class(
    model: Model, kv_types: tuple[GGMLType, GGMLType]
) -> None:
    """Up to 8 tokens at a time go through one loop, whatever lies beside them."""
    backend = cpu_backend()
    expected = fresh(model, backend, kv_types=kv_types, ubatch_size=8)
    cached = Lab(model, backend, kv_types=kv_types, ubatch_size=8, seed=7)
    for _ in range(2):
        for got, wanted in zip(cached.run(some_prompts()), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert cached.cached["0"] == 69


def test_a_context_shift_is_what_the_kept_tokens_alone_would_be(backend: Backend, model: Model) -> None:
    """Tokens that stay are computed again, so the logits are those of a prompt of just these tokens."""
    lab = Lab(model, backend, ctx_size=48, kv_tokens=96)
    prompt = some_prompts()[0][:40]
    sampling = SamplingParams(max_tokens=20, temperature=0.0)
    lab.engine.submit(Request("a", tuple(prompt.tolist()), sampling, context_shift=True, keep=5))
    generated: list[int] = []
    num_warnings = 0
    while lab.engine.has_work:
        for event in lab.engine.step():
            generated += event.token_ids
            num_warnings += len(event.warnings)
    assert (len(generated), num_warnings) == (20, 1)
    known = [*prompt.tolist(), *generated[:8]]  # full: 48
    known = [*known[:5], *known[5 + 43 // 2 :], *generated[8:-1]]
    expected = Lab(model, backend).run([np.array(known, dtype=np.int32)])
    assert_close([lab.rows["a"]], expected, (GGMLType.F16, GGMLType.F16))


def test_tenants_get_what_they_would_get_alone(backend: Backend, model: Model) -> None:
    prompts = some_prompts()
    expected = fresh(model, backend)
    lab = Lab(model, backend)
    for salt in ("a", "b"):
        assert_close(lab.run(prompts, cache_salt=salt), expected, (GGMLType.F16, GGMLType.F16))
        assert lab.limits["0"] is ReuseLimit.NO_COMMON_PREFIX
