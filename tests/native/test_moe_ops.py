"""Mixture of experts on the native kernels against plain numpy: any number of experts and tokens, any routing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from conftest import SCALE_OFFSETS, float_weight, random_weight, run_on_rows, whole_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quipu import _native
from quipu.backends.cpu import CPUBackend
from quipu.backends.program import Batch, ExpertWeights, KVSpec, MixtureWeights, Recorder, Value
from quipu.backends.reference import choose_experts, swiglu
from quipu.gguf.types import GGMLType

Array = NDArray[np.float32]
FLOAT_ERROR = 1e-5
# A last-bit difference may tip an activation to the next of its 255 steps; the comparison rounds as the kernels do,
# but for the integer factors of blocks (see BLOCK_ERRORS).
INT8_ERROR = 6e-3


@dataclass
class Case:
    """A layer, its inputs, and the dequantized weights."""

    weights: MixtureWeights
    values: dict[str, Array]
    x: Array
    num_used: int
    normalize: bool = True
    scale: float = 1.0

    @property
    def num_experts(self) -> int:
        return self.weights.router.shape[0]


def make_case(
    *,
    num_experts: int,
    num_used: int,
    num_tokens: int,
    width: int,
    inner: int,
    types: tuple[GGMLType, GGMLType, GGMLType] = (GGMLType.F32,) * 3,
    shared_inner: int = 0,
    shared_router: bool = True,
    preference: Array | None = None,
    seed: int = 0,
    normalize: bool = True,
    scale: float = 1.0,
) -> Case:
    """Random weights, named after the seed; `preference` [experts] is added to every token's logits."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((num_tokens, width)).astype(np.float32)
    router = rng.standard_normal((num_experts, width)).astype(np.float32) / np.sqrt(np.float32(width))
    if preference is not None:
        x[:, 0] = 1.0
        router[:, 0] = preference
    values: dict[str, Array] = {"router": router}
    stacked = {}
    sizes = {"gate": (inner, width), "up": (inner, width), "down": (width, inner)}
    for (name, (rows, cols)), weight_type in zip(sizes.items(), types, strict=True):
        stacked[name], values[name] = random_weight(rng, f"{name} {seed}", weight_type, num_experts * rows, cols)
        values[name] = values[name].reshape(num_experts, rows, cols)
    shared = router_row = None
    if shared_inner:
        parts = {}
        sizes = {"gate": (shared_inner, width), "up": (shared_inner, width), "down": (width, shared_inner)}
        for (name, (rows, cols)), weight_type in zip(sizes.items(), types, strict=True):
            parts[name], values[f"shared {name}"] = random_weight(rng, f"shared {name} {seed}", weight_type, rows, cols)
        shared = ExpertWeights(**parts)
        if shared_router:
            values["shared router"] = rng.standard_normal((1, width)).astype(np.float32) / np.sqrt(np.float32(width))
            router_row = float_weight(f"shared router {seed}", values["shared router"])
    weights = MixtureWeights(float_weight(f"router {seed}", router), ExpertWeights(**stacked), shared, router_row)
    return Case(weights, values, x, num_used, normalize, scale)


def seen(x: Array, weight_type: GGMLType) -> Array:
    """Activations as the kernels of a type see them: 8 bits and one scale per 32 values, or as they are."""
    if not runs_on_int8(weight_type):
        return x
    groups = x.reshape(*x.shape[:-1], -1, 32)
    largest = np.abs(groups).max(-1, keepdims=True)
    steps = np.rint(groups * (np.float32(127) / np.where(largest == 0, 1, largest)))
    return (steps * (largest / np.float32(127))).reshape(x.shape).astype(np.float32)


def runs_on_int8(weight_type: GGMLType) -> bool:
    data = np.zeros((1, weight_type.row_bytes(256)), np.uint8)
    return bool(_native.matrix(data, 1, 256, int(weight_type)).runs_on_int8)


def expected_of(case: Case, x: Array | None = None) -> NDArray[np.float64]:
    """The layer in float64, expert by expert."""
    x = case.x if x is None else x
    types = {name: getattr(case.weights.experts, name).type for name in ("gate", "up", "down")}
    values = case.values

    def run(gate: Array, up: Array, down: Array, rows: Array) -> NDArray[np.float64]:
        g = (seen(rows, types["gate"]).astype(np.float64) @ gate.T).astype(np.float32)
        u = (seen(rows, types["up"]).astype(np.float64) @ up.T).astype(np.float32)
        return seen(swiglu(g, u), types["down"]).astype(np.float64) @ down.T

    ids, weights = choose_experts(x @ values["router"].T, case.num_used, normalize=case.normalize)
    output = np.zeros(x.shape, np.float64)
    for token, (chosen, shares) in enumerate(zip(ids, weights, strict=True)):
        for expert, share in zip(chosen, shares, strict=True):
            matrices = (values[name][expert] for name in ("gate", "up", "down"))
            output[token] += case.scale * share * run(*matrices, x[token : token + 1])[0]
    if "shared gate" in values:
        shared = run(*(values[f"shared {name}"] for name in ("gate", "up", "down")), x)
        if "shared router" in values:
            shared *= 1.0 / (1.0 + np.exp(-(x @ values["shared router"].T).astype(np.float64)))
        output += shared
    return output


def record(case: Case, recorder: Recorder, x: Value, residual: Value | None = None) -> Value:
    return recorder.moe(
        x, case.weights, num_used=case.num_used, normalize=case.normalize, scale=case.scale, residual=residual
    )


def computed(backend: CPUBackend, case: Case, x: Array | None = None) -> Array:
    return run_on_rows(backend, case.x if x is None else x, lambda recorder, v: record(case, recorder, v))


def relative_error(got: Array, expected: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@st.composite
def cases(draw: st.DrawFn, on_int8: bool) -> Case:
    num_experts = draw(st.sampled_from([1, 2, 3, 4, 7, 16, 40]))
    num_used = draw(st.integers(1, min(num_experts, 6)))
    # All tokens to the same experts, to few of them, or wherever the logits fall.
    spread = draw(st.sampled_from(["one", "few", "any"]))
    preference = np.zeros(num_experts, np.float32)
    if spread != "any":
        favoured = draw(st.lists(st.integers(0, num_experts - 1), min_size=1, max_size=8))
        preference[favoured[: num_used if spread == "one" else 8]] = 50.0
    group = 32 if on_int8 else 1
    types = (GGMLType.Q8_0, GGMLType.Q4_0, GGMLType.Q5_0) if on_int8 else (GGMLType.F32, GGMLType.F16, GGMLType.BF16)
    return make_case(
        num_experts=num_experts,
        num_used=num_used,
        num_tokens=draw(st.sampled_from([1, 2, 5, 8, 9, 16, 17, 33, 70])),
        width=group * draw(st.integers(1, 5 if on_int8 else 70)),
        inner=group * draw(st.integers(1, 10 if on_int8 else 150)),
        types=tuple(draw(st.permutations(types))),
        shared_inner=group * draw(st.sampled_from([0, 1, 4])),
        shared_router=draw(st.booleans()),
        preference=preference,
        seed=draw(st.integers(0, 2**20)),
        normalize=draw(st.booleans()),
        scale=draw(st.sampled_from([1.0, 2.5])),
    )


TWO_THREADS = CPUBackend(2)


@settings(max_examples=120, deadline=None)
@given(case=cases(on_int8=False))
def test_floats_match_numpy(case: Case) -> None:
    assert relative_error(computed(TWO_THREADS, case), expected_of(case)) < FLOAT_ERROR


@settings(max_examples=120, deadline=None)
@given(case=cases(on_int8=True))
def test_quantized_weights_match_numpy(case: Case) -> None:
    assert relative_error(computed(TWO_THREADS, case), expected_of(case)) < INT8_ERROR


@pytest.mark.parametrize("num_tokens", [1, 4, 20, 90])
@pytest.mark.parametrize("weight_type", [GGMLType.F32, *SCALE_OFFSETS], ids=lambda t: t.name)
def test_every_weight_type(backend: CPUBackend, weight_type: GGMLType, num_tokens: int) -> None:
    block = max(weight_type.block_size, 32)
    case = make_case(
        num_experts=5,
        num_used=2,
        num_tokens=num_tokens,
        width=2 * block,
        inner=3 * block,
        types=(weight_type,) * 3,
        shared_inner=block,
        seed=int(weight_type),
    )
    bound = INT8_ERROR if runs_on_int8(weight_type) else FLOAT_ERROR
    assert relative_error(computed(backend, case), expected_of(case)) < bound


@pytest.mark.parametrize(
    "types",
    [
        (GGMLType.Q4_K, GGMLType.F16, GGMLType.Q8_0),
        (GGMLType.F32, GGMLType.Q6_K, GGMLType.F32),
        (GGMLType.Q4_K, GGMLType.Q4_K, GGMLType.F16),
    ],
    ids=lambda types: "-".join(t.name for t in types),
)
@pytest.mark.parametrize("num_tokens", [3, 50])
def test_kernels_of_two_kinds_in_one_layer(
    backend: CPUBackend, types: tuple[GGMLType, GGMLType, GGMLType], num_tokens: int
) -> None:
    case = make_case(num_experts=6, num_used=3, num_tokens=num_tokens, width=256, inner=352, types=types, seed=5)
    assert relative_error(computed(backend, case), expected_of(case)) < INT8_ERROR


@pytest.mark.parametrize("num_tokens", [2, 30])
def test_norm_and_residual(backend: CPUBackend, num_tokens: int) -> None:
    """A norm in front is fused into the first step; the residual is what came before the norm."""
    case = make_case(num_experts=4, num_used=2, num_tokens=num_tokens, width=96, inner=64, shared_inner=32, seed=6)
    scale = np.random.default_rng(7).uniform(0.5, 2.0, (1, 96)).astype(np.float32)

    def build(recorder: Recorder, x: Value) -> Value:
        return record(case, recorder, recorder.rms_norm(x, float_weight("norm", scale), 1e-5), residual=x)

    mean = (case.x.astype(np.float64) ** 2).mean(-1, keepdims=True)
    normed = (case.x / np.sqrt(mean + 1e-5) * scale).astype(np.float32)
    expected = expected_of(case, normed) + case.x
    assert relative_error(run_on_rows(backend, case.x, build), expected) < FLOAT_ERROR


@pytest.mark.parametrize("num_tokens", [4, 40])
def test_layers_share_their_workspace(backend: CPUBackend, num_tokens: int) -> None:
    """Layers of different sizes one after another: no step may read what another layer left behind."""
    first = make_case(num_experts=8, num_used=3, num_tokens=num_tokens, width=64, inner=96, seed=8)
    second = make_case(num_experts=3, num_used=1, num_tokens=num_tokens, width=64, inner=32, shared_inner=160, seed=9)
    middle = expected_of(first).astype(np.float32)

    def build(recorder: Recorder, x: Value) -> Value:
        return record(second, recorder, record(first, recorder, x))

    assert relative_error(run_on_rows(backend, first.x, build), expected_of(second, middle)) < FLOAT_ERROR


@pytest.mark.parametrize("types", [(GGMLType.Q4_K, GGMLType.Q4_K, GGMLType.Q6_K), (GGMLType.F16,) * 3], ids=str)
def test_up_to_eight_tokens_give_the_bits_of_one(
    backend: CPUBackend, types: tuple[GGMLType, GGMLType, GGMLType]
) -> None:
    case = make_case(
        num_experts=6, num_used=3, num_tokens=8, width=512, inner=768, types=types, shared_inner=256, seed=10
    )
    together = computed(backend, case)
    for token in range(8):
        np.testing.assert_array_equal(computed(backend, case, case.x[token : token + 1])[0], together[token])


@pytest.mark.parametrize("num_tokens", [1, 6, 12, 100])
@pytest.mark.parametrize("types", [(GGMLType.Q4_K, GGMLType.Q4_K, GGMLType.Q6_K), (GGMLType.F32,) * 3], ids=str)
def test_the_number_of_threads_changes_no_bit(num_tokens: int, types: tuple[GGMLType, GGMLType, GGMLType]) -> None:
    case = make_case(
        num_experts=12, num_used=4, num_tokens=num_tokens, width=256, inner=512, types=types, shared_inner=512, seed=11
    )
    alone = computed(CPUBackend(1), case)
    for num_threads in (2, 5):
        several = CPUBackend(num_threads)
        for _ in range(3):
            np.testing.assert_array_equal(computed(several, case), alone)


@pytest.mark.parametrize("num_tokens", [1, 8, 9, 64])
def test_equal_logits_choose_the_lowest_experts(backend: CPUBackend, num_tokens: int) -> None:
    case = make_case(num_experts=9, num_used=4, num_tokens=num_tokens, width=32, inner=16, seed=12)
    case.values["router"][:] = 0.0
    ids, weights = choose_experts(np.zeros((1, 9), np.float32), 4, normalize=True)
    assert (ids.tolist(), weights.tolist()) == ([[0, 1, 2, 3]], [[0.25] * 4])
    assert relative_error(computed(backend, case), expected_of(case)) < FLOAT_ERROR


@pytest.mark.parametrize("num_tokens", [2, 20])
@pytest.mark.parametrize("weight_type", [GGMLType.Q4_K, GGMLType.F32], ids=lambda t: t.name)
def test_a_nan_is_never_swallowed(backend: CPUBackend, weight_type: GGMLType, num_tokens: int) -> None:
    case = make_case(
        num_experts=6, num_used=2, num_tokens=num_tokens, width=256, inner=256, types=(weight_type,) * 3, seed=13
    )
    for poison in (np.nan, np.inf, -np.inf):
        x = case.x.copy()
        x[-1, 100] = poison
        got = computed(backend, case, x)
        assert not np.isfinite(got[-1]).any()
        assert np.isfinite(got[:-1]).all()


def test_a_step_without_outputs_computes_nothing(backend: CPUBackend) -> None:
    case = make_case(num_experts=4, num_used=2, num_tokens=3, width=32, inner=32, seed=14)
    recorder = Recorder()
    x = recorder.select_outputs(recorder.embed(float_weight("rows", case.x)))
    executable = backend.compile(recorder.finish(record(case, recorder, x)), max_tokens=16)
    kv = backend.create_kv_storage(KVSpec(1, 1, 64, 64, GGMLType.F32, GGMLType.F32, 64), 1)
    batch = whole_batch(3)
    for wanted in ([0, 1, 2], [], [1]):
        fields = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
        got = executable.run(Batch(**{**fields, "output_rows": np.array(wanted, np.int32)}), kv)
        expected = expected_of(case)[wanted]
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_the_scalar_kernels_pass_the_same_tests() -> None:
    if os.environ.get("QUIPU_INSTRUCTION_SET") == "scalar":
        pytest.skip("already running on the scalar kernels")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", "not numpy", __file__]
    done = subprocess.run(
        command, env={**os.environ, "QUIPU_INSTRUCTION_SET": "scalar"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-3000:]
