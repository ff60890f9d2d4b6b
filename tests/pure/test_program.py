"""Recording programs: what is written down, and that every wrong size is refused with a readable sentence."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from quipu.backends.program import ExpertWeights, KVSpec, MixtureWeights, Recorder, RopeParams, Value, Weight
from quipu.gguf.types import GGMLType


def weight(name: str, rows: int, cols: int) -> Weight:
    return Weight(name, GGMLType.F32, (rows, cols), np.zeros((rows, 4 * cols), np.uint8))


def rope(num_rotated: int) -> RopeParams:
    return RopeParams(np.ones(num_rotated // 2, np.float32), 1.0, "neox")


def experts(count: int, inner: int, width: int) -> ExpertWeights:
    return ExpertWeights(
        weight("gate", count * inner, width), weight("up", count * inner, width), weight("down", count * width, inner)
    )


def mixture(r: Recorder, x: Value, stacked: ExpertWeights, *more: object, router: int = 4, used: int = 2) -> Value:
    return r.moe(x, MixtureWeights(weight("router", router, 64), stacked, *more), num_used=used, normalize=True)  # type: ignore[arg-type]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def x(recorder: Recorder) -> Value:
    """Rows of 64 values."""
    return recorder.embed(weight("token_embd.weight", 10, 64))


def test_a_program_holds_its_ops_in_order(recorder: Recorder, x: Value) -> None:
    q, k, v = recorder.linear(x, [weight("q", 64, 64), weight("k", 32, 64), weight("v", 16, 64)])
    k = recorder.rope(k, 32, rope(32))
    attended = recorder.attention(recorder.rope(q, 32, rope(32)), k, v, layer=0, num_heads=2, num_kv_heads=1, scale=1.0)
    (x,) = recorder.linear(attended, [weight("o", 64, 32)], residual=x)
    logits = recorder.select_outputs(recorder.rms_norm(x, weight("norm", 1, 64), 1e-6))
    program = recorder.finish(logits)
    names = ["embed", "linear", "rope", "rope", "attention", "linear", "rms_norm", "select_outputs"]
    assert [op.name for op in program.ops] == names
    assert program.result == logits
    assert (logits.rows, logits.width) == ("outputs", 64)
    values = [value for op in program.ops for value in op.outputs]
    assert [value.index for value in values] == list(range(program.num_values))
    assert attended.width == 32  # two heads of the values' length, not of the keys'


def test_every_value_is_written_before_it_is_read(recorder: Recorder, x: Value) -> None:
    hidden = recorder.swiglu_linear(x, weight("gate", 96, 64), weight("up", 96, 64))
    (x,) = recorder.linear(hidden, [weight("down", 64, 96)], [weight("bias", 1, 64)], residual=x)
    program = recorder.finish(recorder.select_outputs(recorder.add(x, x)))
    written: set[int] = set()
    for op in program.ops:
        assert {value.index for value in op.inputs} <= written
        written |= {value.index for value in op.outputs}


WRONG: dict[str, tuple[Callable[[Recorder, Value], object], str]] = {
    "linear columns": (
        lambda r, x: r.linear(x, [weight("blk.0.attn_q.weight", 8, 32)]),
        "blk.0.attn_q.weight expects rows of 32 values, not 64",
    ),
    "linear bias": (
        lambda r, x: r.linear(x, [weight("w", 8, 64)], [weight("b", 1, 9)]),
        "b has 9 values, w has 8 rows",
    ),
    "linear bias count": (
        lambda r, x: r.linear(x, [weight("w", 8, 64), weight("v", 8, 64)], [weight("b", 1, 8)]),
        "one bias per weight",
    ),
    "residual of several": (
        lambda r, x: r.linear(x, [weight("w", 64, 64), weight("v", 64, 64)], residual=x),
        "residual only with a single weight",
    ),
    "residual width": (
        lambda r, x: r.linear(x, [weight("w", 8, 64)], residual=x),
        "w: the residual has width 64, not 8",
    ),
    "norm": (lambda r, x: r.rms_norm(x, weight("n", 1, 48), 1e-5), "n: norm over 48 values does not divide rows of 64"),
    "gate and up": (
        lambda r, x: r.swiglu_linear(x, weight("gate", 96, 64), weight("up", 80, 64)),
        "gate is (96, 64) but up is (80, 64)",
    ),
    "gate columns": (
        lambda r, x: r.swiglu_linear(x, weight("gate", 96, 32), weight("up", 96, 32)),
        "gate expects rows of 32 values, not 64",
    ),
    "swiglu": (
        lambda r, x: r.swiglu(x, r.embed(weight("e", 3, 32))),
        "swiglu: widths 64 and 32 differ",
    ),
    "too many experts": (
        lambda r, x: mixture(r, x, experts(4, 96, 64), used=5),
        "router: 5 of 4 experts cannot be used",
    ),
    "expert columns": (
        lambda r, x: mixture(r, x, experts(4, 96, 32)),
        "gate expects rows of 32 values, not 64",
    ),
    "expert rows": (
        lambda r, x: mixture(r, x, experts(3, 96, 64)),
        "down is (192, 96), not (256, 72) for 4 experts",
    ),
    "expert gate and up": (
        lambda r, x: mixture(r, x, ExpertWeights(weight("g", 4, 64), weight("u", 8, 64), weight("d", 256, 1))),
        "g is (4, 64) but u is (8, 64)",
    ),
    "shared expert": (
        lambda r, x: mixture(r, x, experts(4, 96, 64), experts(2, 32, 64)),
        "down is (128, 32), not (64, 64) for 1 experts",
    ),
    "shared router alone": (
        lambda r, x: mixture(r, x, experts(4, 96, 64), None, weight("s", 1, 64)),
        "s weighs a shared expert, but there is none",
    ),
    "shared router": (
        lambda r, x: mixture(r, x, experts(4, 96, 64), experts(1, 32, 64), weight("s", 2, 64)),
        "s is (2, 64), not (1, 64)",
    ),
    "add": (lambda r, x: r.add(x, r.embed(weight("e", 3, 32))), "add: widths 64 and 32 differ"),
    "rope heads": (lambda r, x: r.rope(x, 48, rope(32)), "heads of 48, 32 rotated, do not fit rows of 64"),
    "rope too many": (lambda r, x: r.rope(x, 16, rope(32)), "heads of 16, 32 rotated, do not fit rows of 64"),
    "heads": (
        lambda r, x: r.attention(x, x, x, layer=0, num_heads=3, num_kv_heads=2, scale=1.0),
        "attention: 3 heads, 2 KV heads",
    ),
    "keys": (
        lambda r, x: r.attention(x, x, x, layer=0, num_heads=4, num_kv_heads=2, scale=1.0),
        "keys of width 64 do not match queries of width 64",
    ),
    "result": (lambda r, x: r.finish(x), "call select_outputs first"),
}


@pytest.mark.parametrize(("build", "message"), WRONG.values(), ids=WRONG)
def test_wrong_sizes_are_refused(
    recorder: Recorder, x: Value, build: Callable[[Recorder, Value], object], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(recorder, x)


def test_a_mixture_lists_its_weights_in_order(recorder: Recorder, x: Value) -> None:
    shared, router = experts(1, 32, 64), weight("shared router", 1, 64)
    weights = MixtureWeights(weight("router", 4, 64), experts(4, 96, 64), shared, router)
    y = recorder.moe(x, weights, num_used=3, normalize=False, scale=2.5, residual=x)
    op = recorder.finish(recorder.select_outputs(y)).ops[1]
    assert (op.name, op.inputs, y.width) == ("moe", (x, x), 64)
    assert op.attributes == {"num_used": 3, "normalize": False, "scale": 2.5}
    assert op.weights == weights.all
    assert [w.name for w in op.weights if w is not None] == [
        "router", "gate", "up", "down", "gate", "up", "down", "shared router",
    ]  # fmt: skip


def test_rows_of_different_kinds_do_not_mix(recorder: Recorder, x: Value) -> None:
    with pytest.raises(ValueError, match="residual"):
        recorder.linear(recorder.select_outputs(x), [weight("w", 64, 64)], residual=x)


def test_size_of_a_page() -> None:
    spec = KVSpec(3, 2, 64, 32, GGMLType.F16, GGMLType.F32, 16)
    assert spec.bytes_per_token == 3 * 2 * (64 * 2 + 32 * 4)
    assert spec.bytes_per_page == 16 * spec.bytes_per_token
