"""`quipu bench`: tokens per second, and the share of this machine's memory bandwidth that they take."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from quipu.api import LLM
from quipu.bench.bandwidth import Bandwidth, measure_bandwidth
from quipu.bench.machine import describe_machine
from quipu.bench.measure import Measurement, Reads, measure_generation, measure_prompt
from quipu.bench.reads import cache_bytes_per_position, weight_bytes_per_token
from quipu.cli.builtin import resolve_model
from quipu.cli.command import takes
from quipu.cli.describe import ModelFacts, describe_model
from quipu.cli.load_options import LoadOptions
from quipu.cli.loading import set_priority
from quipu.cli.paging import page_in
from quipu.cli.screen import stderr_screen
from quipu.cli.synthetic import synthetic_model
from quipu.errors import UsageError
from quipu.gguf import GGUFReader

_bench = partial(typer.Option, rich_help_panel="Benchmark")
_FORMATS = ("table", "md", "json")


@dataclass(frozen=True, kw_only=True)
class BenchOptions(LoadOptions):
    """Everything that can follow `quipu bench`."""

    file: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="GGUF file, unless -m names it")] = None
    n_prompt: Annotated[
        str,
        _bench("-p", "--n-prompt", metavar="N[,N]", help="tokens of the prompt; 0 leaves this test out"),
    ] = "512"
    n_gen: Annotated[
        str,
        _bench("-n", "--n-gen", metavar="N[,N]", help="tokens to generate; 0 leaves this test out"),
    ] = "128"
    repetitions: Annotated[
        int,
        _bench("-r", "--repetitions", metavar="N", help="repetitions, of which the median is shown"),
    ] = 5
    output: Annotated[str, _bench("-o", "--output", metavar="FORMAT", help="table, md or json")] = "table"
    json: Annotated[bool, _bench("--json", help="the same as -o json")] = False
    synthetic: Annotated[
        str | None,
        _bench("--synthetic", metavar="SHAPE", help="make a model of this shape with random weights, such as llama-1b"),
    ] = None
    type: Annotated[
        str,
        _bench("--type", metavar="TYPE", help="quantization of the synthetic model"),
    ] = "Q4_K_M"

    def tests(self) -> tuple[list[int], list[int]]:
        """Token counts of the prompt tests and of the generation tests.

        Raises:
            UsageError: not whole numbers, or nothing to do.
        """
        prompts, generations = _counts("-p", self.n_prompt), _counts("-n", self.n_gen)
        if not prompts and not generations:
            raise UsageError("-p 0 with -n 0 leaves nothing to measure; raise one of them")
        if self.repetitions < 1:
            raise UsageError(f"-r must be 1 or more, not {self.repetitions}")
        return prompts, generations

    def format(self) -> str:
        """One of "table", "md", "json".

        Raises:
            UsageError: another format.
        """
        if self.output not in _FORMATS:
            raise UsageError(f"-o takes {', '.join(_FORMATS)}, not {self.output!r}")
        return "json" if self.json else self.output


def _counts(flag: str, text: str) -> list[int]:
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise UsageError(f"{flag} takes whole numbers with commas between them, not {text!r}")
    return [int(part) for part in text.split(",") if int(part)]


@takes(BenchOptions)
def bench(options: BenchOptions) -> int:
    """Measure prompt processing (pp) and generation (tg) with random tokens. Generation reads all weights for every
    token, so the share of the measured read bandwidth says how much faster it could be."""
    prompts, generations = options.tests()
    output = options.format()
    screen = stderr_screen()
    for line in options.warnings():
        screen.warn(line)
    set_priority(options.priority, screen)
    path = _model_path(options)
    with GGUFReader(path) as reader:
        page_in(reader.shards)
    arguments = {"ctx_size": max([*prompts, *generations]) + 8, **options.llm_arguments()}
    started = time.perf_counter()
    llm = LLM(path, **{**arguments, "prefix_cache": False})  # every repetition computes its prompt
    load_s = time.perf_counter() - started
    with llm, GGUFReader(path) as reader:
        bandwidth = measure_bandwidth(llm.threads, available_bytes=describe_machine().memory_available_bytes)
        reads = Reads(weight_bytes_per_token(reader), _cache_bytes(reader, options), bandwidth.bytes_per_second)
        results = _measure(llm, prompts, generations, options.repetitions, reads)
        facts = describe_model(reader)
        settings = {
            "threads": llm.threads,
            "threads_batch": llm.threads_batch,
            "ctx_size": llm.ctx_size,
            "kv_type": options.kv_type() or "f16",
            "repetitions": options.repetitions,
        }
    if output == "json":
        print(json.dumps(_report(results, facts, bandwidth, load_s, settings), indent=2, ensure_ascii=False))
    elif output == "md":
        print(_markdown(results, facts, bandwidth, load_s, llm.threads))
    else:
        _show(results, facts, bandwidth, load_s, llm.threads)
    return 0


def _model_path(options: BenchOptions) -> Path:
    name = options.model or options.file
    if options.synthetic is not None:
        if name is not None:
            raise UsageError("give a model or --synthetic, not both")
        return synthetic_model(options.synthetic, options.type)
    if name is None:
        raise UsageError("name a model, as in `quipu bench -m model.gguf`, or make one with --synthetic llama-1b")
    return resolve_model(name)


def _cache_bytes(reader: GGUFReader, options: BenchOptions) -> int:
    kinds = options.kv_type() or "f16"
    keys, values = (kinds, kinds) if isinstance(kinds, str) else kinds
    sizes = {"f16": 2, "f32": 4}
    return cache_bytes_per_position(reader, sizes[keys], sizes[values])


def _measure(llm: LLM, prompts: list[int], generations: list[int], repetitions: int, reads: Reads) -> list[Measurement]:
    """All tests in turn, with a progress bar on standard error where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    results = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for count in prompts:
            task = progress.add_task(f"pp{count}", total=repetitions + 1)
            results.append(measure_prompt(llm, count, repetitions, partial(progress.advance, task)))
        for count in generations:
            task = progress.add_task(f"tg{count}", total=repetitions + 1)
            results.append(measure_generation(llm, count, repetitions, reads, partial(progress.advance, task)))
    return results


def _report(
    results: list[Measurement], facts: ModelFacts, bandwidth: Bandwidth, load_s: float, settings: dict[str, Any]
) -> dict[str, Any]:
    return {
        "results": [
            {**dataclasses.asdict(result), "spread": [min(result.samples), max(result.samples)]} for result in results
        ],
        "model": facts.summary(),
        "machine": dataclasses.asdict(describe_machine()),
        "bandwidth": dataclasses.asdict(bandwidth),
        "load_s": load_s,
        "settings": settings,
    }


_HEADINGS = ("test", "tokens/s", "spread", "GB/s read", "of bandwidth")


def _rows(results: list[Measurement]) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for result in results:
        deviation = statistics.median(abs(sample - result.tokens_per_second) for sample in result.samples)
        spread = f"{min(result.samples):.2f} to {max(result.samples):.2f}, ±{deviation:.2f}"
        read = "" if result.read_bytes_per_second is None else f"{result.read_bytes_per_second / 1e9:.1f}"
        share = "" if result.bandwidth_fraction is None else f"{result.bandwidth_fraction:.0%}"
        rows.append((result.test, f"{result.tokens_per_second:.2f}", spread, read, share))
    return rows


def _caption(facts: ModelFacts, bandwidth: Bandwidth, load_s: float, threads: int) -> str:
    return (
        f"{facts.label}, {threads} threads, loaded in {load_s:.2f} s; this machine reads "
        f"{bandwidth.bytes_per_second / 1e9:.1f} GB/s ({bandwidth.method})"
    )


def _markdown(results: list[Measurement], facts: ModelFacts, bandwidth: Bandwidth, load_s: float, threads: int) -> str:
    lines = [f"| {' | '.join(_HEADINGS)} |", "|---|---:|---|---:|---:|"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(results)]
    return "\n".join([*lines, "", _caption(facts, bandwidth, load_s, threads)])


def _show(results: list[Measurement], facts: ModelFacts, bandwidth: Bandwidth, load_s: float, threads: int) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in ("test", "spread") else "right")
    for row in _rows(results):
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    console.print()
    console.print(_caption(facts, bandwidth, load_s, threads), soft_wrap=True)
