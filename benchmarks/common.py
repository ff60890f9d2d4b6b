"""What the benchmarks share: options, the model, the two engines behind pipes, interleaved rounds, and the report.

Each engine lives in a process of its own that stays loaded and idle while another computes, so that rounds alternate
between engines and slow drifts of the machine hit all of them alike. Figures are medians over rounds; a ratio is the
median of the ratios within each round.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from charts import Case
from machine import HERE, Limits, describe
from measured import OURS, THEIRS, table
from quipu.bench.reads import cache_bytes_per_position, weight_bytes_per_token
from quipu.cli.synthetic import synthetic_model
from quipu.engine import read_topology
from quipu.gguf import GGUFReader, ModelKeys

WORKERS = HERE / "workers"
# An engine's threads spin for some milliseconds after their work; the next engine starts when they sleep.
SETTLE_S = 0.1


def options(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, help="a GGUF file; without it a synthetic one is made")
    parser.add_argument("--shape", default="llama-1b", help="shape of the synthetic model")
    parser.add_argument("--type", default="Q4_K_M", help="quantization of the synthetic model")
    parser.add_argument("-t", "--threads", type=int, default=read_topology().most_threads)
    parser.add_argument("-r", "--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument(
        "--llama-python",
        default=os.environ.get("QUIPU_LLAMA_PYTHON") or str(HERE.parent / ".venv-llama" / "bin" / "python"),
        help="an interpreter that has llama-cpp-python (also: QUIPU_LLAMA_PYTHON)",
    )
    parser.add_argument("--no-llama", action="store_true", help="measure quipu alone")
    return parser


def find_model(arguments: argparse.Namespace) -> Path:
    """The model file of the options; a synthetic one is written once and kept where `quipu bench` keeps its own."""
    return synthetic_model(arguments.shape, arguments.type) if arguments.model is None else Path(arguments.model)


@dataclass(frozen=True)
class ModelSize:
    """What one token costs, from the tensors of the file.

    Attributes:
        file_bytes: the whole file, all shards.
        decode_bytes: weights read for one generated token: all but the rows of the embedding table not looked up and
            the experts not used.
        prompt_multiply_adds: per prompt token, without attention and the output matrix (wanted once per prompt).
        output_multiply_adds: of the output matrix, per token whose logits are wanted.
        attention_multiply_adds: per pair of query and earlier key, over all layers.
        kv_bytes_per_token: keys and values of one token.
        vocab_size: rows of the embedding table.
    """

    file_bytes: int
    decode_bytes: int
    prompt_multiply_adds: int
    output_multiply_adds: int
    attention_multiply_adds: int
    kv_bytes_per_token: float
    vocab_size: int


def measure_model(path: Path, kv_value_bytes: float = 2) -> ModelSize:
    """Read a model's sizes from its header.

    Args:
        kv_value_bytes: mean size of one cached value, 2 for f16.
    """
    with GGUFReader(path) as reader:
        tensors = reader.tensors
        ends = ("token_embd.weight", "output.weight")
        matrices = [info for name, info in tensors.items() if len(info.shape) >= 2 and name not in ends]
        keys = ModelKeys(reader.metadata)
        num_layers, num_used = keys.integer("block_count"), keys.integer("expert_used_count", 1)
        queries = tensors["blk.0.attn_q.weight"].shape[1]  # heads x key length; values are as wide
        return ModelSize(
            file_bytes=reader.file_bytes,
            decode_bytes=weight_bytes_per_token(reader),
            prompt_multiply_adds=sum(
                info.shape[0] * info.shape[1] * (num_used if len(info.shape) == 3 else 1) for info in matrices
            ),
            output_multiply_adds=math.prod(tensors["token_embd.weight"].shape),
            attention_multiply_adds=2 * num_layers * queries,
            kv_bytes_per_token=cache_bytes_per_position(reader) / 2 * kv_value_bytes,
            vocab_size=tensors["token_embd.weight"].shape[1],
        )


def decode_limit(size: ModelSize, limits: Limits, num_sequences: int, cached_tokens: float) -> float:
    """Tokens per second of all sequences together, each with so many tokens in its cache.

    A step reads the weights once (of experts only what one token uses: more sequences use more of them) and the cache
    of every sequence, and multiplies for every token. Whichever of the two takes longer bounds it.
    """
    step_bytes = size.decode_bytes + num_sequences * cached_tokens * size.kv_bytes_per_token
    seconds = step_bytes / limits.read_bytes_per_s
    if limits.multiply_adds_per_s:
        attention = size.attention_multiply_adds * cached_tokens
        multiply_adds = num_sequences * (size.prompt_multiply_adds + size.output_multiply_adds + attention)
        seconds = max(seconds, multiply_adds / limits.multiply_adds_per_s)
    return num_sequences / seconds


def prefill_limit(size: ModelSize, limits: Limits, num_tokens: int) -> float | None:
    """Tokens per second of a prompt: by the multiply-adds, where their rate is known."""
    if not limits.multiply_adds_per_s:
        return None
    return limits.multiply_adds_per_s / prompt_multiply_adds(size, num_tokens)


def prompt_multiply_adds(size: ModelSize, num_tokens: int) -> float:
    """Multiply-adds per token of a prompt. Attention is causal: token i looks at i + 1 keys."""
    return size.prompt_multiply_adds + size.attention_multiply_adds * (num_tokens + 1) / 2


def random_ids(count: int, vocab_size: int, seed: int) -> list[int]:
    """Token ids that any vocabulary of this size has; the same for every engine."""
    generator = random.Random(seed)
    return [generator.randrange(min(1000, vocab_size // 2), vocab_size) for _ in range(count)]


def random_prompts(count: int, num_tokens: int, vocab_size: int, index: int) -> list[list[int]]:
    """So many prompts of a round, each of its own."""
    return [random_ids(num_tokens, vocab_size, seed=1000 * (index + 1) + number) for number in range(count)]


class Measure(Protocol):
    """Measures one round of one size."""

    def __call__(self, worker: Worker, index: int, *, size: int) -> float: ...


class Worker:
    """An engine in its own process, asked by one JSON line at a time."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.command = list(command)
        self.engine = name
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, op: str, **values: Any) -> dict[str, Any]:
        """Send one request and wait for its reply."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"op": op, **values}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()}: {shlex.join(self.command)}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=60)


def start_workers(
    arguments: argparse.Namespace,
    model: Path,
    *,
    ctx_size: int,
    both_layouts: bool = True,
    kv_type: str = "f16",
    num_sequences: int = 1,
) -> dict[str, Worker]:
    """Start and load every engine: ours, and llama.cpp with and without its load-time repacking of weights.

    Args:
        ctx_size: tokens of context for each sequence.
        both_layouts: whether llama.cpp also runs without repacking.
        kv_type: how keys and values are stored.
        num_sequences: most that are computed at a time.
    """
    settings = {
        "model": str(model),
        "threads": arguments.threads,
        "ctx_size": ctx_size,
        "batch_size": 512,
        "kv_type": kv_type,
        "num_sequences": num_sequences,
    }
    workers = {OURS: Worker(OURS, [sys.executable, str(WORKERS / "quipu_worker.py")])}
    if not arguments.no_llama:
        if not Path(arguments.llama_python).exists():
            raise SystemExit(
                f"{arguments.llama_python} does not exist: `make bench` builds llama.cpp, QUIPU_LLAMA_PYTHON names an "
                "interpreter that has it, --no-llama measures quipu alone"
            )
        for name in THEIRS if both_layouts else THEIRS[:1]:
            workers[name] = Worker(name, [arguments.llama_python, str(WORKERS / "llama_cpp_worker.py")])
    for name, worker in workers.items():
        extra = {} if name == OURS else {"repack": name == THEIRS[0]}
        worker.engine = worker.ask("load", **settings, **extra)["engine"]
    return workers


def interleave(
    workers: Mapping[str, Worker], rounds: int, measure: Callable[[Worker, int], float]
) -> dict[str, list[float]]:
    """Run `measure(worker, round)` for each engine in turn, `rounds` times after one round of warming up.

    Every other round goes through the engines backwards, so that no engine always follows the same one.
    """
    results: dict[str, list[float]] = {name: [] for name in workers}
    for index in range(-1, rounds):
        order = list(workers.items())
        for name, worker in order if index % 2 == 0 else reversed(order):
            time.sleep(SETTLE_S)
            value = measure(worker, index)
            if index >= 0:
                results[name].append(value)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return results


def measure_cases(
    workers: Mapping[str, Worker],
    rounds: int,
    sizes: Sequence[int],
    measure: Measure,
    limit: Callable[[int], float | None],
) -> list[Case]:
    """A case for each size: rounds of `measure`, interleaved, beside `limit(size)`. Closes the workers."""
    cases = []
    for size in sizes:
        results = interleave(workers, rounds, functools.partial(measure, size=size))
        cases.append(Case(str(size), results, limit(size)))
    for worker in workers.values():
        worker.close()
    return cases


def report(
    arguments: argparse.Namespace,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    model: Path,
    engines: Mapping[str, str],
    notes: Sequence[str],
    measured: Mapping[str, Any],
) -> None:
    """Print the table with everything needed to repeat it, and write it as JSON where asked."""
    command = shlex.join(["python", str(Path(sys.argv[0])), *sys.argv[1:]])
    machine = describe()
    print(f"\n{title}\n\n{table(header, rows)}\n")
    for note in notes:
        print(note)
    print(f"model: {model.name}, {model.stat().st_size / 1e6:.0f} MB")
    print(f"machine: {', '.join(f'{name} {value}' for name, value in machine.items())}")
    for name, description in engines.items():
        print(f"{name}: {description}")
    print(f"command: {command}")
    if arguments.json:
        content = {"title": title, "model": {"name": model.name, "bytes": model.stat().st_size}, **measured}
        write_json(arguments.json, engines, content)


def write_json(path: Path, engines: Mapping[str, str], content: Mapping[str, Any]) -> None:
    """Write what was measured, with machine, versions, command and date, for `report.py`."""
    about = {
        "machine": describe(),
        "engines": dict(engines),
        "command": shlex.join(["python", str(Path(sys.argv[0])), *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, **about}, indent=2) + "\n", encoding="utf-8")


def round_up(num_tokens: int) -> int:
    """A context size that holds them: the next multiple of 256, as llama.cpp rounds it."""
    return (num_tokens + 255) // 256 * 256
