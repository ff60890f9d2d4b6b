"""The thread team: the same bits and steady progress whatever else runs, on fewer cores than threads, under a quota."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import float_weight, random_weight
from numpy.typing import NDArray

from quipu import _native
from quipu.backends.cpu import CPUBackend, measure_threads
from quipu.backends.program import Batch, KVSpec, Program, Recorder
from quipu.gguf.types import GGMLType

VOCAB, WIDTH, INNER, HEADS, LENGTH, LAYERS = 96, 128, 256, 2, 64, 3
SPEC = KVSpec(LAYERS, HEADS, LENGTH, LENGTH, GGMLType.F16, GGMLType.F16, 16)
PROMPT, STEPS = 50, 40
# Enough for a machine that is a hundred times slower, and far from "for ever".
PATIENCE_S = 120

Array = NDArray[np.float32]


def small_model(seed: int = 0) -> Program:
    """A transformer of three layers with random weights."""
    rng = np.random.default_rng(seed)

    def weight(name: str, rows: int, cols: int) -> object:
        return random_weight(rng, name, GGMLType.Q8_0, rows, cols)[0]

    recorder = Recorder()
    x = recorder.embed(float_weight("embedding", rng.standard_normal((VOCAB, WIDTH)).astype(np.float32)))
    ones = float_weight("norm", np.ones((1, WIDTH), np.float32))
    for layer in range(LAYERS):
        y = recorder.rms_norm(x, ones, 1e-5)
        q, k, v = recorder.linear(y, [weight(f"{layer}.{name}", HEADS * LENGTH, WIDTH) for name in "qkv"])
        y = recorder.attention(q, k, v, layer=layer, num_heads=HEADS, num_kv_heads=HEADS, scale=0.125)
        x = recorder.add(x, recorder.linear(y, [weight(f"{layer}.o", WIDTH, HEADS * LENGTH)])[0])
        y = recorder.rms_norm(x, ones, 1e-5)
        y = recorder.swiglu_linear(y, weight(f"{layer}.gate", INNER, WIDTH), weight(f"{layer}.up", INNER, WIDTH))
        x = recorder.add(x, recorder.linear(y, [weight(f"{layer}.down", WIDTH, INNER)])[0])
    x = recorder.rms_norm(recorder.select_outputs(x), ones, 1e-5)
    return recorder.finish(recorder.linear(x, [weight("head", VOCAB, WIDTH)])[0])


def batch(begin: int, end: int) -> Batch:
    """Tokens [begin, end) of one sequence; the logits of the last one are wanted."""
    positions = np.arange(begin, end, dtype=np.int32)
    return Batch(
        token_ids=positions * 7 % VOCAB,
        positions=positions,
        query_starts=np.array([0, end - begin], np.int32),
        kv_lengths=np.array([end], np.int32),
        page_tables=np.arange(8, dtype=np.int32).reshape(1, -1),
        output_rows=np.array([end - begin - 1], np.int32),
    )


def generate(backend: CPUBackend, program: Program) -> Array:
    """A prompt and forty tokens; all their logits."""
    executable, kv = backend.compile(program, max_tokens=64), backend.create_kv_storage(SPEC, 8)
    rows = [executable.run(batch(0, PROMPT), kv).copy()]
    rows += [executable.run(batch(position, position + 1), kv).copy() for position in range(PROMPT, PROMPT + STEPS)]
    return np.concatenate(rows)


def within_patience(job: Callable[[], None]) -> None:
    """Run a job that must come to a good end, in a thread that can be left behind if it does not."""
    succeeded = threading.Event()

    def watched() -> None:
        job()
        succeeded.set()

    thread = threading.Thread(target=watched, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "no progress"
    assert succeeded.is_set(), "the thread failed; its traceback is among the warnings"


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Loops that end with this process, each bound to one of the last processors that it may use."""
    loop = "import os, sys\nif hasattr(os, 'sched_setaffinity'):\n    os.sched_setaffinity(0, {int(sys.argv[1])})\n"
    loop += f"print(flush=True)\nwhile os.getppid() == {os.getpid()}:\n    pass"
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    processes = [
        subprocess.Popen([sys.executable, "-c", loop, str(usable[-1 - index % len(usable)])], stdout=subprocess.PIPE)
        for index in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def program() -> Program:
    return small_model()


@pytest.fixture(scope="module")
def expected(program: Program) -> Array:
    return generate(CPUBackend(1), program)


@pytest.mark.parametrize("num_neighbours", [0, 1, 3])
@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_busy_neighbours_change_no_bit(
    program: Program, expected: Array, num_threads: int, num_neighbours: int
) -> None:
    def job() -> None:
        backend = CPUBackend(num_threads)
        for _ in range(3):
            np.testing.assert_array_equal(generate(backend, program), expected)

    with busy_processes(num_neighbours):
        within_patience(job)


@pytest.mark.parametrize("owns_cores", [False, True])
@pytest.mark.parametrize(("num_threads", "few"), [(8, 1), (8, 2), (8, 5), (33, 3), (2, 100)])
def test_few_tokens_may_use_fewer_threads(
    program: Program, expected: Array, num_threads: int, few: int, owns_cores: bool
) -> None:
    """Threads that sit out a run, or come late to the next one, and more of them than there are units."""

    def job() -> None:
        backend = CPUBackend(num_threads, few_token_threads=few, owns_cores=owns_cores)
        np.testing.assert_array_equal(generate(backend, program), expected)

    within_patience(job)


def test_programs_of_one_team_come_and_go() -> None:
    """A worker may still look at a program that is done while the next one is running, or being freed."""

    def job() -> None:
        backend = CPUBackend(4)
        programs = [small_model(seed) for seed in range(3)]
        expected = [generate(CPUBackend(1), program) for program in programs]
        kv = backend.create_kv_storage(SPEC, 8)
        for round_ in range(20):
            executables = [backend.compile(program, max_tokens=64) for program in programs]
            for executable in executables:
                executable.run(batch(0, PROMPT), kv)
            del executable, executables
            gc.collect()
            chosen = round_ % 3
            np.testing.assert_array_equal(
                backend.compile(programs[chosen], max_tokens=64).run(batch(0, PROMPT), kv)[0], expected[chosen][0]
            )

    within_patience(job)


def test_teams_come_and_go() -> None:
    def job() -> None:
        for number in range(100):
            assert _native.Team(1 + number % 9).num_threads == 1 + number % 9

    within_patience(job)


def test_several_teams_at_once(program: Program, expected: Array) -> None:
    """Two models in one process: together more threads than cores, all of which believe that they own theirs."""
    results: list[Array] = []

    def job() -> None:
        def work() -> None:
            results.append(generate(CPUBackend(2, owns_cores=True), program))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    within_patience(job)
    assert len(results) == 3
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_a_team_knows_whether_cores_are_its_own() -> None:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert _native.Team(usable).owns_cores
    assert not _native.Team(usable + 1).owns_cores
    assert not _native.Team(1, False).owns_cores


def test_measuring_threads() -> None:
    rates = measure_threads([1, 2, 5], 8 << 20, 0.01)
    assert [rate[0] for rate in rates] == [1, 2, 5]
    for _, read_bytes_per_s, meeting_s in rates:
        assert 1e6 < read_bytes_per_s < 1e14
        assert 0 < meeting_s < 10
    for counts in ([], [0], [2, -1]):
        with pytest.raises(ValueError, match="must be positive"):
            measure_threads(counts, 1 << 20, 0.001)


def control_group(quota_us: int) -> Path | None:
    """A new control group with so much time in 100 ms, or None where this process may not make one."""
    base = Path("/sys/fs/cgroup")
    for folder, name in ((base, "cpu.max"), (base / "cpu", "cpu.cfs_quota_us")):
        group = folder / f"quipu-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / name).exists():  # else it is a plain folder, or the controller is elsewhere
            try:
                (group / name).write_text(f"{quota_us} 100000" if name == "cpu.max" else str(quota_us), "ascii")
            except OSError:
                pass
            else:
                return group
        group.rmdir()
    return None


UNDER_QUOTA = """
import sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text("0", encoding="ascii")
sys.path.insert(0, sys.argv[2])
import numpy as np
from quipu.backends.cpu import CPUBackend
from quipu.engine import choose_threads, read_topology
from test_team import generate, small_model
topology = read_topology()
choice = choose_threads(topology, None, environment={})
print(topology.quota, choice.prompt, choice.generation, choice.owns_cores)
program = small_model()
expected = generate(CPUBackend(1), program)
for num_threads in (2, 8):
    for owns_cores in (False, True):
        backend = CPUBackend(num_threads, owns_cores=owns_cores)
        np.testing.assert_array_equal(generate(backend, program), expected)
print("done")
"""


def test_real_quota() -> None:
    """Half of a core's time: one thread is the default, and more of them still come to an end."""
    group = control_group(50_000)
    if group is None:
        pytest.skip("this process may not make control groups")
    try:
        command = [sys.executable, "-c", UNDER_QUOTA, str(group), str(Path(__file__).parent)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["0.5 1 1 False", "done"]
    finally:
        group.rmdir()
