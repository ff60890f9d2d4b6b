"""Many requests at a time: what the engine adds to a step, what it yields, and what requests do to each other.

    python benchmarks/serving.py [--sections overhead,throughput,prefix_reuse,stream,constrained] [-m model.gguf] [-t 2]
        [-r 3] [--json FILE]

- overhead: the share of `Engine.step` that is not the model's run, with so many sequences that decode, in
  microseconds of the sampler and of the rest
- throughput: tokens per second of 16 prompts of 64 tokens and 64-token answers, prompts included, beside llama.cpp,
  whose times are those of `llama_decode` alone
- prefix_reuse: seconds to the first token after a prefix that was computed before; see prefix_reuse.py
- stream: milliseconds between the tokens of a stream, alone and while another request's long prompt is computed, in an
  engine that has seen no such prompt before
- constrained: answers of the embedded model that are valid under a JSON schema

Throughput is measured on the 1B shape, the embedded model is its own, all else on the 0.5B shape; `-m` takes the place
of both shapes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from numpy.typing import NDArray

import common
import prefix_reuse
from charts import Case
from machine import measure_limits
from measured import OURS, ratio, spread
from quipu import LLM, ConstraintSpec, SamplingParams
from quipu.backends.choice import choose_backend
from quipu.backends.program import Backend, Batch, Executable, KVSpec, KVStorage, Program
from quipu.cli.builtin import resolve_model
from quipu.cli.synthetic import synthetic_model
from quipu.engine import Engine
from quipu.engine.native_sampler import NativeSampler
from quipu.engine.sampler import Draw, Drawn
from quipu.gguf import GGUFReader
from quipu.models import load_model
from quipu.tokenizer import Tokenizer
from quipu.types import FinishReason, Request
from results import overhead_share, stream_slowdowns, valid_share

HEADER = ("what", "measured", "target")
STREAM_TOKENS = 64  # of a stream's prompt, and between the tokens of which times are taken
OVERHEAD_STEPS = 48  # of a round
WARM_STEPS = 8
SCHEMAS: tuple[Mapping[str, Any], ...] = (
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "colours": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
        },
        "required": ["name", "age", "colours"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "born": {"type": "string", "format": "date"},
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/link"}]},
        },
        "required": ["born", "next"],
        "additionalProperties": False,
        "$defs": {
            "link": {
                "type": "object",
                "properties": {"to": {"type": "string", "pattern": "^[a-z]{1,8}$"}},
                "required": ["to"],
                "additionalProperties": False,
            }
        },
    },
    {"type": "array", "items": {"type": "integer", "minimum": -9, "maximum": 9}, "minItems": 2, "maxItems": 6},
)
QUESTIONS = ("Who are you?", "Tell me about Ann, who is seven.", "你好", 'Say {"name": 3}', "What is 2 + 2?", "🙂")
_ANSWER_TOKENS = 400  # more than the longest value of a schema takes


# --- overhead --------------------------------------------------------------------------------------------------------


class Stopwatch:
    """Adds up the time in what it runs."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        begin_s = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - begin_s


class TimedExecutable:
    def __init__(self, executable: Executable, watch: Stopwatch) -> None:
        self._executable, self._watch = executable, watch

    def run(self, batch: Batch, kv: KVStorage) -> NDArray[np.float32]:
        with self._watch.running():
            return self._executable.run(batch, kv)


class TimedBackend:
    """A backend whose runs are timed."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.max_uniform_tokens = backend.name, backend.max_uniform_tokens
        self.watch = Stopwatch()
        self._backend = backend

    def create_kv_storage(self, spec: KVSpec, num_pages: int) -> KVStorage:
        return self._backend.create_kv_storage(spec, num_pages)

    def compile(self, program: Program, *, max_tokens: int) -> Executable:
        return TimedExecutable(self._backend.compile(program, max_tokens=max_tokens), self.watch)


class TimedSampler(NativeSampler):
    """The native sampler, timed."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = Stopwatch()

    def sample_batch(self, logits: NDArray[np.float32], draws: Sequence[Draw]) -> list[Drawn]:
        with self.watch.running():
            return super().sample_batch(logits, draws)


def start_streams(engine: Engine, prompts: Sequence[Sequence[int]]) -> None:
    """Submit streams that do not end, and step until all of them decode."""
    sampling = SamplingParams(ignore_eos=True, seed=1)
    for number, prompt in enumerate(prompts):
        engine.submit(Request(str(number), tuple(prompt), sampling))
    while len(engine.step()) < len(prompts):
        pass


def measure_overhead(arguments: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Seconds of steps, of the model's runs in them and of the sampler, by the number of sequences."""
    cases = []
    sizes = [int(size) for size in arguments.sequences.split(",")]
    ctx_size = common.round_up(STREAM_TOKENS + (arguments.rounds + 1) * (OVERHEAD_STEPS + WARM_STEPS))
    for num_sequences in sizes:
        with GGUFReader(model) as reader:
            backend, sampler = TimedBackend(choose_backend(arguments.threads)), TimedSampler()
            kv_tokens = num_sequences * (ctx_size + 64)
            tokenizer = Tokenizer.from_gguf(reader)
            engine = Engine(load_model(reader), backend, tokenizer, sampler, ctx_size=ctx_size, kv_tokens=kv_tokens)
            start_streams(engine, common.random_prompts(num_sequences, STREAM_TOKENS, engine.vocab_size, 0))
            parts: dict[str, list[float]] = {"step": [], "run": [], "sampler": []}
            for _ in range(arguments.rounds):
                for _ in range(WARM_STEPS):
                    engine.step()
                before = backend.watch.seconds, sampler.watch.seconds
                begin_s = time.perf_counter()
                for _ in range(OVERHEAD_STEPS):
                    engine.step()
                parts["step"].append((time.perf_counter() - begin_s) / OVERHEAD_STEPS)
                parts["run"].append((backend.watch.seconds - before[0]) / OVERHEAD_STEPS)
                parts["sampler"].append((sampler.watch.seconds - before[1]) / OVERHEAD_STEPS)
            engine.close()
        cases.append({"num_sequences": num_sequences, "seconds_per_step": parts})
    return {"overheads": cases}


def overhead_rows(content: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for case in content["overheads"]:
        seconds = case["seconds_per_step"]
        step_us, run_us, sampler_us = (1e6 * statistics.median(seconds[part]) for part in ("step", "run", "sampler"))
        parts = f"{sampler_us:.0f} us in the sampler, {step_us - run_us - sampler_us:.0f} us else, of {step_us:.0f} us"
        name = f"engine and sampler in a step of {case['num_sequences']} sequences"
        yield name, f"{overhead_share(seconds):.1%} ({parts})", "3 %"


# --- throughput ------------------------------------------------------------------------------------------------------


def measure_throughput(arguments: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Tokens per second of requests that come together, from the first prompt to the last answer."""
    count, num_prompt, num_answer = arguments.requests, arguments.prompt_tokens, arguments.answer_tokens
    size = common.measure_model(model)
    limits = measure_limits(arguments.threads)
    ctx_size = common.round_up(num_prompt + num_answer + 1)
    workers = common.start_workers(arguments, model, ctx_size=ctx_size, num_sequences=count)

    def measure(worker: common.Worker, index: int, *, size: int) -> float:
        prompts = common.random_prompts(size, num_prompt, vocab_size, index)
        return float(size * num_answer / worker.ask("answer", prompts=prompts, num_tokens=num_answer)["seconds"])

    vocab_size = size.vocab_size
    decode = common.decode_limit(size, limits, count, num_prompt + num_answer / 2)
    prefill = common.prefill_limit(size, limits, num_prompt)
    limit = None if prefill is None else num_answer / (num_answer / decode + num_prompt / prefill)
    cases = common.measure_cases(workers, arguments.rounds, [count], measure, lambda _: limit)
    return {
        "cases": [case.to_json() for case in cases],
        "num_prompt": num_prompt,
        "num_answer": num_answer,
        "engines": {name: worker.engine for name, worker in workers.items()},
    }


def throughput_rows(content: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for case in map(Case.from_json, content["cases"]):
        lengths = f"prompts of {content['num_prompt']} tokens, answers of {content['num_answer']}"
        yield f"{case.label} requests, {lengths}", f"{spread(case.results[OURS])} tokens/s", ""
        if case.theirs is not None:
            yield f"the same, {case.theirs}", f"{spread(case.results[case.theirs])} tokens/s", ""
            yield "times as fast", f"{case.ratio:.2f}", "3"


# --- prefix_reuse ----------------------------------------------------------------------------------------------------


def measure_prefix_reuse(arguments: argparse.Namespace, model: Path) -> dict[str, Any]:
    ctx_size = common.round_up(arguments.prefix + prefix_reuse.QUESTION_TOKENS + 1)
    options = {"ctx_size": ctx_size, "threads": arguments.threads}
    return prefix_reuse.measure(model, arguments.prefix, prefix_reuse.QUESTION_TOKENS, arguments.rounds, options)


def prefix_reuse_rows(content: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    seconds = content["seconds"]
    share = ratio(seconds[prefix_reuse.OTHER], seconds[prefix_reuse.FRESH])
    yield f"first token after {content['prefix']} cached tokens, of a fresh prompt's", f"{share:.1%}", "5 %"


# --- stream ----------------------------------------------------------------------------------------------------------


def token_gaps(engine: Engine, request_id: str, is_over: Callable[[set[str], int], bool]) -> list[float]:
    """Seconds between the tokens of a stream, until `is_over` of the requests that have sent one and the number of
    tokens."""
    gaps: list[float] = []
    begin_s, seen = time.perf_counter(), set[str]()
    while not is_over(seen, len(gaps)):
        names = {event.request_id for event in engine.step() if event.token_ids}
        seen |= names
        if request_id in names:
            now_s = time.perf_counter()
            gaps.append(now_s - begin_s)
            begin_s = now_s
    return gaps


def measure_stream(arguments: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Gaps of each round, alone and beside a long prompt, and the seconds of that prompt beside it and alone."""
    measured: dict[str, Any] = {"num_prompt": arguments.long_prompt, "alone": [], "beside": []}
    prompt_seconds: dict[str, list[float]] = {"beside": [], "alone": []}
    sampling = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
    for index in range(arguments.stream_rounds):
        ctx_size = common.round_up(arguments.long_prompt + 2 * STREAM_TOKENS)
        with LLM(model, ctx_size=ctx_size, kv_size=2 * ctx_size, threads=arguments.threads) as llm:
            engine = llm._open_engine().engine
            prompts = common.random_prompts(3, arguments.long_prompt, llm.vocab_size, index)
            start_streams(engine, [prompts[0][:STREAM_TOKENS]])
            token_gaps(engine, "0", lambda _, count: count >= WARM_STEPS)
            measured["alone"].append(token_gaps(engine, "0", lambda _, count: count >= STREAM_TOKENS))
            engine.submit(Request("long", tuple(prompts[1]), sampling))
            begin_s = time.perf_counter()
            measured["beside"].append(token_gaps(engine, "0", lambda seen, _: "long" in seen))
            prompt_seconds["beside"].append(time.perf_counter() - begin_s)
            engine.abort("0")
            engine.settle()
            engine.submit(Request("alone", tuple(prompts[2]), sampling))
            begin_s = time.perf_counter()
            while engine.has_work:
                engine.step()
            prompt_seconds["alone"].append(time.perf_counter() - begin_s)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {**measured, "prompt_seconds": prompt_seconds}


def stream_rows(content: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    alone = [1e3 * statistics.median(gaps) for gaps in content["alone"]]
    yield "between tokens of a stream, alone", f"{spread(alone)} ms", ""
    beside = f"the same while a prompt of {content['num_prompt']} tokens is computed"
    yield f"{beside}, median", f"{spread(stream_slowdowns(content, statistics.median), 2)} x", "2.5 x"
    yield f"{beside}, worst of 100", f"{spread(stream_slowdowns(content, hundredth), 2)} x", ""
    yield f"{beside}, worst", f"{spread(stream_slowdowns(content, max), 2)} x", ""
    seconds = content["prompt_seconds"]
    yield "that prompt", f"{spread(seconds['beside'])} s, alone {spread(seconds['alone'])} s", ""


def hundredth(values: Sequence[float]) -> float:
    """What one value of a hundred exceeds."""
    return sorted(values)[max(0, len(values) - 1 - len(values) // 100)]


# --- constrained -----------------------------------------------------------------------------------------------------


def measure_constrained(arguments: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Answers of every question under every schema, some greedy and most drawn; how many came whole and valid."""
    invalid: list[str] = []
    each = list(itertools.product(range(arguments.seeds), QUESTIONS, SCHEMAS))
    conversations = [[{"role": "user", "content": question}] for _, question, _ in each]
    temperatures = (0.0, 1.0, 3.0)
    samplings = [
        SamplingParams(max_tokens=_ANSWER_TOKENS, temperature=temperatures[seed % len(temperatures)], seed=seed)
        for seed, _, _ in each
    ]
    constraints = [ConstraintSpec.json_schema(schema) for _, _, schema in each]
    begin_s = time.perf_counter()
    with LLM(model, ctx_size=1024, threads=arguments.threads) as llm:
        answers = llm.chat(conversations, samplings, constraint=constraints)
    for (_, _, schema), answer in zip(each, answers, strict=True):
        if answer.finish_reason is not FinishReason.STOP or not is_valid(answer.text, schema):
            invalid.append(answer.text)
    num_tokens = sum(len(answer.token_ids) for answer in answers)
    seconds = time.perf_counter() - begin_s
    return {"num_answers": len(answers), "invalid": invalid, "num_tokens": num_tokens, "answer_seconds": seconds}


def is_valid(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether a text is JSON as the schema says, by a library that shares nothing with the engine."""
    try:
        validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
        validator.validate(json.loads(text))
    except (json.JSONDecodeError, jsonschema.ValidationError):
        return False
    return True


def constrained_rows(content: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    yield f"valid JSON, of {content['num_answers']} answers under a schema", f"{valid_share(content):.1%}", "100 %"


# --- all -------------------------------------------------------------------------------------------------------------

MEASURES: Mapping[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "overhead": measure_overhead,
    "throughput": measure_throughput,
    "prefix_reuse": measure_prefix_reuse,
    "stream": measure_stream,
    "constrained": measure_constrained,
}
ROWS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Sequence[str]]]] = {
    "overhead": overhead_rows,
    "throughput": throughput_rows,
    "prefix_reuse": prefix_reuse_rows,
    "stream": stream_rows,
    "constrained": constrained_rows,
}


def serving_rows(sections: Mapping[str, Mapping[str, Any]]) -> list[Sequence[str]]:
    """Of the table, from what the sections measured."""
    return [row for name, content in sections.items() for row in ROWS[name](content)]


def parse() -> argparse.Namespace:
    parser = common.options("what many requests at a time cost and yield")
    parser.add_argument("--sections", default=",".join(MEASURES), help="which to measure, separated by commas")
    parser.add_argument("--large-shape", default="llama-1b", help="shape of the synthetic model of throughput")
    parser.add_argument("--sequences", default="1,16", help="overhead: numbers of sequences")
    parser.add_argument("--requests", type=int, default=16, help="throughput: requests")
    parser.add_argument("-p", "--prompt-tokens", type=int, default=64, help="throughput: tokens of each prompt")
    parser.add_argument("-n", "--answer-tokens", type=int, default=64, help="throughput: tokens of each answer")
    parser.add_argument("--prefix", type=int, default=2000, help="prefix_reuse: tokens of the shared prefix")
    parser.add_argument("--long-prompt", type=int, default=8000, help="stream: tokens of the prompt beside it")
    parser.add_argument("--stream-rounds", type=int, default=1, help="stream: rounds, some minutes each")
    parser.add_argument("--seeds", type=int, default=9, help="constrained: answers to each question and schema")
    parser.set_defaults(shape="qwen2-0.5b", rounds=3)
    arguments = parser.parse_args()
    arguments.sections = arguments.sections.split(",")
    unknown = set(arguments.sections) - set(MEASURES)
    if unknown:
        parser.error(f"there is no section {', '.join(sorted(unknown))}; choose from {', '.join(MEASURES)}")
    return arguments


def find_model(arguments: argparse.Namespace, section: str) -> Path:
    if section == "constrained":
        return resolve_model("tiny")
    if section == "throughput" and arguments.model is None:
        return synthetic_model(arguments.large_shape, arguments.type)
    return common.find_model(arguments)


def main() -> None:
    arguments = parse()
    sections: dict[str, dict[str, Any]] = {}
    engines: dict[str, str] = {}
    for name in arguments.sections:
        model = find_model(arguments, name)
        print(f"{name}: {model.name} ", end="", file=sys.stderr, flush=True)
        content = MEASURES[name](arguments, model)
        print(file=sys.stderr)
        engines |= content.pop("engines", {})
        sections[name] = {**content, "model": {"name": model.name, "bytes": model.stat().st_size}}
    common.report(
        arguments,
        f"Serving, {arguments.threads} threads",
        HEADER,
        serving_rows(sections),
        model=common.find_model(arguments),
        engines=engines,
        notes=[f"{arguments.rounds} rounds. {name}: {content['model']['name']}" for name, content in sections.items()],
        measured={"sections": sections},
    )


if __name__ == "__main__":
    main()
