"""Attention alone: decode by length of the context and prefill, for each type of the KV cache.

    python benchmarks/attention.py [--types f16,q8_0,q4_0] [--contexts 512,4096,32768] [-t 2] [-r 7] [--json FILE]

The attention ops of a whole model, without its matrices, on scattered pages. Decode is one new token after the context.
Its limit is the measured read bandwidth, or the multiply-adds that the cores do on floats, whichever is reached first.
The time of the same program without attention, measured alike, is subtracted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

import quipu
from common import write_json
from machine import describe
from measured import spread, table
from quipu.api import KV_TYPES
from quipu.backends.cpu import CPUBackend, CPUExecutable
from quipu.backends.program import Batch, KVSpec, KVStorage, Recorder, Weight
from quipu.bench.bandwidth import measure_bandwidth
from quipu.bench.kernels import describe_kernels
from quipu.engine import read_topology
from quipu.gguf import GGMLType

PAGE_SIZE = 64
STEP_TOKENS = 512


def make_program(
    backend: CPUBackend, arguments: argparse.Namespace, *, window: int | None = None, num_layers: int | None = None
) -> CPUExecutable:
    """The attention of every layer on the same random queries, keys and values."""
    rng = np.random.default_rng(1)
    recorder = Recorder()
    heads = (arguments.heads, arguments.kv_heads, arguments.kv_heads)
    values = []
    for name, count in zip("qkv", heads, strict=True):
        rows = rng.standard_normal((16, count * arguments.head_size)).astype(np.float32)
        values.append(recorder.embed(Weight(name, GGMLType.F32, rows.shape, rows.view(np.uint8))))
    result = values[0]
    for layer in range(arguments.layers if num_layers is None else num_layers):
        result = recorder.attention(
            *values,
            layer=layer,
            num_heads=arguments.heads,
            num_kv_heads=arguments.kv_heads,
            scale=arguments.head_size**-0.5,
            window=window,
        )
    return backend.compile(recorder.finish(recorder.select_outputs(result)), max_tokens=STEP_TOKENS)


def make_batch(begin: int, end: int, pages: np.ndarray) -> Batch:
    """Tokens `begin` to `end` of one sequence."""
    positions = np.arange(begin, end, dtype=np.int32)
    return Batch(
        token_ids=positions % 16,
        positions=positions,
        query_starts=np.array([0, end - begin], np.int32),
        kv_lengths=np.array([end], np.int32),
        page_tables=pages[None, : -(-end // PAGE_SIZE)],
        output_rows=np.array([end - begin - 1], np.int32),
    )


def seconds(executable: CPUExecutable, batch: Batch, kv: KVStorage, rounds: int) -> list[float]:
    """Seconds of each run, after one of warming up; a round repeats short runs for ten milliseconds."""
    begin = time.perf_counter()
    executable.run(batch, kv)
    repeats = max(1, int(0.01 / max(time.perf_counter() - begin, 1e-6)))
    results = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(repeats):
            executable.run(batch, kv)
        results.append((time.perf_counter() - begin) / repeats)
    return results


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="attention alone", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--heads", type=int, default=14, help="query heads (the default shape is that of Qwen2.5-0.5B)")
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--types", default=",".join(KV_TYPES), help="types of the KV cache, for keys and values alike")
    parser.add_argument("--contexts", default="128,1024,4096,16384,32768", help="tokens in the cache")
    parser.add_argument("-t", "--threads", type=int, default=read_topology().most_threads)
    parser.add_argument("-r", "--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    backend = CPUBackend(arguments.threads)
    bandwidth = measure_bandwidth(arguments.threads).bytes_per_second
    contexts = [int(context) for context in arguments.contexts.split(",")]
    num_pages = -(-(max(contexts) + STEP_TOKENS) // PAGE_SIZE)
    pages = np.random.default_rng(2).permutation(num_pages).astype(np.int32)
    # A window of one token writes the cache at hardly any cost.
    write, attend = make_program(backend, arguments, window=1), make_program(backend, arguments)
    empty = make_program(backend, arguments, num_layers=0)
    rows, measured = [], []
    for name in arguments.types.split(","):
        size = arguments.head_size
        spec = KVSpec(arguments.layers, arguments.kv_heads, size, size, KV_TYPES[name], KV_TYPES[name], PAGE_SIZE)
        kv = backend.create_kv_storage(spec, num_pages)
        for begin in range(0, num_pages * PAGE_SIZE - STEP_TOKENS + 1, STEP_TOKENS):
            write.run(make_batch(begin, begin + STEP_TOKENS, pages), kv)
        for context in contexts:
            for kind, num_new in (("decode", 1), ("prefill", min(STEP_TOKENS, context))):
                first = context if kind == "decode" else context - num_new
                batch = make_batch(first, first + num_new, pages)
                idle = statistics.median(seconds(empty, batch, kv, 3))
                times = [max(t - idle, 1e-9) for t in seconds(attend, batch, kv, arguments.rounds)]
                keys_seen = num_new * first + num_new * (num_new + 1) // 2
                multiply_adds = 2 * keys_seen * arguments.layers * arguments.heads * size
                median = statistics.median(times)
                read = spec.bytes_per_token * (first + num_new) / median
                rows.append(
                    [
                        name,
                        str(context),
                        kind,
                        spread([t * 1e3 for t in times], 2),
                        f"{read / 1e9:.1f}" if kind == "decode" else "",
                        f"{100 * read / bandwidth:.0f} %" if kind == "decode" else "",
                        f"{multiply_adds / median / 1e9:.0f}",
                    ]
                )
                measured.append({"type": name, "context": context, "kind": kind, "seconds": times})
    shape = (
        f"{arguments.layers} layers, {arguments.heads} heads, {arguments.kv_heads} KV heads of {arguments.head_size}"
    )
    header = ["KV type", "context", "work", "ms per step", "GB/s read", "of bandwidth", "GMAC/s"]
    print(f"\nAttention of {shape}, {arguments.threads} threads\n\n{table(header, rows)}\n")
    print(f"Prefill: {STEP_TOKENS} tokens that end the context. Read bandwidth: {bandwidth / 1e9:.1f} GB/s.")
    print(f"machine: {', '.join(f'{key} {value}' for key, value in describe().items())}")
    if arguments.json:
        engine = f"quipu {quipu.__version__} ({describe_kernels().instruction_set})"
        content = {"title": "Attention", "bandwidth": bandwidth, "shape": shape, "results": measured}
        write_json(arguments.json, {"quipu": engine}, content)


if __name__ == "__main__":
    main()
