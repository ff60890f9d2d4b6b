"""Decode and prefill by number of threads, alone and while another process keeps one core busy.

    python benchmarks/threads.py [-m model.gguf] [--counts 1,2] [-p 256] [-n 32] [-r 3] [--json FILE]

The neighbour is one endless loop, bound to the last core that this process may use, in a session of its own, so that
the system gives it half of that core. Threads that meet after every matrix wait for the one that shares its core: an
engine that divides the work evenly falls to half of its speed at best, one that also spins while it waits falls
further. What counts is whether N threads beside a neighbour do better than N - 1 threads alone, which leave it the
core. llama.cpp runs as it does by default, with repacking.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import common
from charts import Case, case_table, text_bars
from machine import Limits, measure_limits
from quipu.engine import read_topology

# It ends with the process that started it, however that ends.
_LOOP = """
import os, sys
core, parent = map(int, sys.argv[1:])
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {core})
while os.getppid() == parent:
    pass
"""


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep one core busy with a process that only counts."""
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    process = subprocess.Popen([sys.executable, "-c", _LOOP, str(core), str(os.getpid())], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def default_counts() -> list[int]:
    """1, 2, 4 ... and the number of cores."""
    most = read_topology().most_threads
    return sorted({*(2**power for power in range(most.bit_length())), most})


def measure_count(
    arguments: argparse.Namespace, model: Path, size: common.ModelSize, limits: Limits
) -> tuple[dict[str, list[Case]], dict[str, str]]:
    """Cases of decode and of prefill with one number of threads, and what the engines call themselves."""

    def decode(worker: common.Worker, index: int) -> float:
        token_ids = common.random_ids(16, size.vocab_size, seed=index)
        seconds = worker.ask("decode", token_ids=token_ids, num_tokens=arguments.tokens)["seconds"]
        return float(arguments.tokens / sum(seconds))

    def prefill(worker: common.Worker, index: int) -> float:
        token_ids = common.random_ids(arguments.prompt_tokens, size.vocab_size, seed=index)
        return float(len(token_ids) / worker.ask("prefill", token_ids=token_ids)["seconds"])

    threads = f"{arguments.threads} thread{'s' if arguments.threads > 1 else ''}"
    ctx_size = common.round_up(max(16 + arguments.tokens, arguments.prompt_tokens) + 1)
    workers = common.start_workers(arguments, model, ctx_size=ctx_size, both_layouts=False)
    caps = {
        "decode": common.decode_limit(size, limits, 1, 16 + arguments.tokens / 2),
        "prefill": common.prefill_limit(size, limits, arguments.prompt_tokens),
    }
    cases: dict[str, list[Case]] = {}
    for work in (decode, prefill):
        alone = common.interleave(workers, arguments.rounds, work)
        with busy_core():
            beside = common.interleave(workers, arguments.rounds, work)
        # What the neighbour leaves of the machine depends on the scheduler, so there is no limit beside it.
        cases[work.__name__] = [Case(threads, alone, caps[work.__name__]), Case(f"{threads}, busy neighbour", beside)]
    for worker in workers.values():
        worker.close()
    return cases, {name: worker.engine for name, worker in workers.items()}


def compare_with_fewer(cases: Sequence[Case], counts: Sequence[int]) -> list[str]:
    """How each engine with N threads and a neighbour compares with N - 1 threads and none, where both were measured.

    Args:
        cases: per number of threads in `counts`, alone and beside the neighbour.
    """
    alone, beside = dict(zip(counts, cases[::2], strict=True)), dict(zip(counts, cases[1::2], strict=True))
    return [
        f"{name}, {count} threads beside the neighbour: "
        f"{statistics.median(beside[count].results[name]) / statistics.median(alone[count - 1].results[name]):.2f} "
        f"of {count - 1} alone"
        for count in counts
        if count - 1 in alone
        for name in beside[count].results
    ]


def main() -> None:
    parser = common.options("speed by number of threads, alone and beside a busy process")
    parser.add_argument("--counts", help="numbers of threads, separated by commas; default: 1, 2, 4 ... all cores")
    parser.add_argument("-p", "--prompt-tokens", type=int, default=256)
    parser.add_argument("-n", "--tokens", type=int, default=32, help="tokens generated per round")
    parser.set_defaults(shape="qwen2-0.5b", rounds=3)
    arguments = parser.parse_args()
    model = common.find_model(arguments)
    size = common.measure_model(model)
    counts = [int(count) for count in arguments.counts.split(",")] if arguments.counts else default_counts()
    cases: dict[str, list[Case]] = {"decode": [], "prefill": []}
    engines: dict[str, str] = {}
    for count in counts:
        arguments.threads = count
        of_count, engines = measure_count(arguments, model, size, measure_limits(count))
        for work, of_work in of_count.items():
            cases[work] += of_work
    for work, of_work in cases.items():
        print(f"\n{work}\n{text_bars(of_work)}")
    header, _ = case_table("work", [])
    common.report(
        arguments,
        f"Threads: decode of {arguments.tokens} tokens and prefill of {arguments.prompt_tokens}, f16 KV cache",
        header,
        [[f"{work}, {row[0]}", *row[1:]] for work in cases for row in case_table("", cases[work])[1]],
        model=model,
        engines=engines,
        notes=[
            f"{arguments.rounds} rounds, engines interleaved; llama.cpp with repacking.",
            *(f"{work}: {line}" for work, of_work in cases.items() for line in compare_with_fewer(of_work, counts)),
        ],
        measured={work: [case.to_json() for case in of_work] for work, of_work in cases.items()},
    )


if __name__ == "__main__":
    main()
