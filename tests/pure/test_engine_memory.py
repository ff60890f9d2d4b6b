"""The memory plan, and what the machine is said to offer."""

from __future__ import annotations

from pathlib import Path

import pytest

from quipu.backends.program import ExpertWeights, KVSpec, MixtureWeights, Recorder, Weight
from quipu.engine.machine import available_memory_bytes
from quipu.engine.memory import MemoryPlan, parse_kv_size, plan_memory
from quipu.engine.runner import weight_bytes, workspace_bytes
from quipu.errors import InsufficientMemoryError, UsageError
from quipu.gguf import GGMLType

SPEC = KVSpec(2, 4, 64, 64, GGMLType.F16, GGMLType.F16, 64)
PER_TOKEN = 2 * 4 * 128 * 2
MIB = 1 << 20


def plan(
    ctx_size: int | None = None,
    kv_tokens: int | None = None,
    available_bytes: int | None = 1000 * MIB,
    kv_bytes: int | None = None,
    cache_bytes: int | None = None,
) -> MemoryPlan:
    return plan_memory(
        SPEC,
        weight_bytes=500 * MIB,
        workspace_bytes=10 * MIB,
        trained_ctx=4096,
        ctx_size=ctx_size,
        kv_tokens=kv_tokens,
        available_bytes=available_bytes,
        kv_bytes=kv_bytes,
        cache_bytes=cache_bytes,
    )


def test_trained_length_where_it_fits() -> None:
    result = plan()
    assert (result.ctx_size, result.warnings) == (4096, ())
    assert result.num_pages * 64 == 16384  # room for several requests
    assert result.kv_bytes == 16384 * PER_TOKEN
    assert plan(available_bytes=None).ctx_size == 4096


def test_cut_down_with_a_warning() -> None:
    result = plan(available_bytes=514 * MIB)
    assert 512 <= result.ctx_size < 4096
    assert result.ctx_size % 64 == 0
    assert result.needed_bytes <= 514 * MIB
    assert f"{result.ctx_size} of the trained 4096" in result.warnings[0]


def test_longer_than_trained_is_allowed_with_a_warning() -> None:
    result = plan(ctx_size=8192)
    assert result.ctx_size == 8192
    assert "4096" in result.warnings[0]


def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    for arguments in ({"available_bytes": 400 * MIB}, {"ctx_size": 1 << 20}, {"kv_tokens": 1 << 20}):
        with pytest.raises(InsufficientMemoryError) as caught:
            plan(**arguments)
        error = caught.value
        assert error.needed_bytes > error.available_bytes
        assert f"{error.needed_bytes / (1 << 30):.2f} GiB" in str(error)
        assert f"{error.available_bytes / (1 << 30):.2f} GiB are free" in str(error)


def test_size_of_the_cache() -> None:
    assert plan(ctx_size=100, kv_tokens=1000).num_pages == 16
    assert plan(kv_tokens=1000).ctx_size == 1000
    with pytest.raises(UsageError, match="cannot hold"):
        plan(ctx_size=1000, kv_tokens=999)


def test_size_of_the_cache_in_bytes() -> None:
    assert plan(kv_bytes=100 * MIB).kv_bytes == 100 * MIB
    assert plan(kv_bytes=100 * MIB - 1).kv_bytes == 100 * MIB - 64 * PER_TOKEN
    assert plan(kv_bytes=MIB).ctx_size == MIB // PER_TOKEN
    with pytest.raises(UsageError, match="not both"):
        plan(kv_bytes=MIB, kv_tokens=100)
    with pytest.raises(UsageError, match="smaller than one page"):
        plan(kv_bytes=64 * PER_TOKEN - 1)
    with pytest.raises(UsageError, match="cannot hold"):
        plan(kv_bytes=MIB, ctx_size=4096)
    with pytest.raises(InsufficientMemoryError):
        plan(kv_bytes=600 * MIB)


def test_memory_for_later_requests() -> None:
    assert plan().max_kept_pages == plan().num_pages
    assert plan(cache_bytes=0).max_kept_pages == 0
    assert plan(cache_bytes=MIB).max_kept_pages == MIB // (64 * PER_TOKEN)
    assert plan(cache_bytes=MIB).num_pages == plan().num_pages
    # Asked for, it is added to one context, as far as memory allows.
    assert plan(cache_bytes=100 * MIB).kv_bytes == 4096 * PER_TOKEN + 100 * MIB
    most = plan(cache_bytes=1 << 60)
    assert 0.79 * 490 * MIB < most.kv_bytes <= 0.8 * 490 * MIB
    assert most.max_kept_pages == most.num_pages
    assert plan(cache_bytes=1 << 60, available_bytes=None).num_pages == plan().num_pages
    assert plan(cache_bytes=100 * MIB, kv_tokens=4096).kv_bytes == 4096 * PER_TOKEN


@pytest.mark.parametrize(
    ("text", "tokens", "num_bytes"),
    [
        (8192, 8192, None),
        ("8192", 8192, None),
        ("2GiB", None, 2 << 30),
        (" 1.5 mib ", None, 3 << 19),
        ("100kB", None, 100_000),
        ("5b", None, 5),
    ],
)
def test_ways_to_write_a_size(text: int | str, tokens: int | None, num_bytes: int | None) -> None:
    assert parse_kv_size(text) == (tokens, num_bytes)


@pytest.mark.parametrize("text", ["", "many", "1.5", "-3", "2XiB", "1e9", "GiB", None, 1.5, True])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(UsageError, match="kv_size must be"):
        parse_kv_size(text)  # type: ignore[arg-type]


def test_program_sizes() -> None:
    import numpy as np

    recorder = Recorder()
    table = Weight("token_embd.weight", GGMLType.F32, (10, 8), np.zeros((10, 32), dtype=np.uint8))
    up = Weight("up", GGMLType.F32, (16, 8), np.zeros((16, 32), dtype=np.uint8))
    x = recorder.embed(table)
    (_,) = recorder.linear(x, [up])
    (logits,) = recorder.linear(recorder.select_outputs(x), [table])
    program = recorder.finish(logits)
    assert weight_bytes(program) == 10 * 32 + 16 * 32
    assert workspace_bytes(program, 100, 1) == 4 * 100 * (8 + 16)
    assert workspace_bytes(program, 100, 1000) == 4 * (1000 * 8 + 1000 * 10)


def test_workspace_of_experts() -> None:
    """Each token is copied for every expert that it uses, and each copy has inner values."""
    import numpy as np

    def weight(name: str, rows: int, cols: int) -> Weight:
        return Weight(name, GGMLType.F32, (rows, cols), np.zeros((rows, 4 * cols), dtype=np.uint8))

    def stacked(count: int, inner: int) -> ExpertWeights:
        gate, up, down = weight("g", count * inner, 8), weight("u", count * inner, 8), weight("d", count * 8, inner)
        return ExpertWeights(gate, up, down)

    for shared, more in ((None, 0), (stacked(1, 12), 8 + 12)):
        recorder = Recorder()
        x = recorder.embed(weight("token_embd.weight", 10, 8))
        y = recorder.moe(x, MixtureWeights(weight("r", 4, 8), stacked(4, 6), shared), num_used=3, normalize=True)
        program = recorder.finish(recorder.select_outputs(y))
        assert workspace_bytes(program, 100, 1) == 4 * 100 * (8 + 8 + 3 * (8 + 6) + more)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 2000 kB\nMemAvailable:    1000 kB\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (MEMINFO, 1000 * 1024),
        ({"sys/fs/cgroup/memory.max": "max", **MEMINFO}, 1000 * 1024),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "max",
                "sys/fs/cgroup/a/b/memory.current": "90",
                "sys/fs/cgroup/a/memory.max": "100000",
                "sys/fs/cgroup/a/memory.current": "90000",
                "sys/fs/cgroup/a/memory.stat": "anon 5\nfile 30000\nslab 1\n",
                **MEMINFO,
            },
            40_000,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n1:cpu:/\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "50000",
                "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "20000",
                **MEMINFO,
            },
            30_000,
        ),
    ],
    ids=["nothing", "meminfo", "no limit", "version 2", "version 1"],
)
def test_available_memory(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    assert available_memory_bytes(write(tmp_path, files)) == expected


def test_available_memory_here() -> None:
    available = available_memory_bytes()
    assert available is not None
    assert available > 1 << 20
