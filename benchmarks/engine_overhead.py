"""What a step costs beside the model: microseconds of the engine's Python and of the sampler, on a scripted executor.

    python benchmarks/engine_overhead.py [--sequences 1,16,64] [-n 100] [-r 5] [--vocab-size 151936] [--json FILE]

The executor returns prepared logits at once, so a step is nothing but overhead: once with a sampler that always gives
the same token, which leaves the engine, and once with the native one and its default steps. All sequences decode, with
texts from the embedded model's tokenizer. A step of the 0.5B shape takes about 15 ms with one sequence and 100 ms with
sixteen on two cores; the target is 3 % of that.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import write_json
from measured import table
from quipu.backends.program import Batch, KVSpec, KVStorage, Program, Recorder, Value
from quipu.backends.reference import ReferenceKVStorage
from quipu.cli.builtin import resolve_model
from quipu.engine import Engine, Sampler
from quipu.engine.native_sampler import NativeSampler
from quipu.engine.sampler import Draw, Drawn
from quipu.gguf import GGMLType, GGUFReader
from quipu.models import EmbeddingSpec
from quipu.tokenizer import Tokenizer
from quipu.types import Pooling, Request, SamplingParams

ENGINE, WITH_SAMPLER = "engine", "engine and sampler"
CTX_SIZE, PROMPT_TOKENS = 2048, 300


@dataclass(frozen=True)
class Spec:
    vocab_size: int
    context_length: int = CTX_SIZE


@dataclass
class ScriptedModel:
    """A model that is nothing but sizes."""

    spec: Spec

    @property
    def embedding(self) -> EmbeddingSpec:
        return EmbeddingSpec(Pooling.LAST, self.spec.vocab_size)

    def record(self, recorder: Recorder) -> Program:
        return Program((), 1, Value(0, "outputs", self.spec.vocab_size))

    def record_embedding(self, recorder: Recorder, *, scores: bool) -> Program:
        return self.record(recorder)

    def kv_spec(self, k_type: GGMLType, v_type: GGMLType, page_size: int) -> KVSpec:
        return KVSpec(1, 1, 2, 2, k_type, v_type, page_size)


class ScriptedBackend:
    """Its runs take no time: the first rows of the same random logits."""

    name = "scripted"
    max_uniform_tokens = 1 << 30

    def __init__(self, max_outputs: int, vocab_size: int) -> None:
        self._logits = np.random.default_rng(0).standard_normal((max_outputs, vocab_size)).astype(np.float32) * 3

    def create_kv_storage(self, spec: KVSpec, num_pages: int) -> ReferenceKVStorage:
        return ReferenceKVStorage(spec, num_pages)

    def compile(self, program: Program, *, max_tokens: int) -> ScriptedBackend:
        return self

    def run(self, batch: Batch, kv: KVStorage) -> NDArray[np.float32]:
        return self._logits[: len(batch.output_rows)]


class SameToken(NativeSampler):
    """Takes no time either."""

    def sample_batch(self, logits: NDArray[np.float32], draws: Sequence[Draw]) -> list[Drawn]:
        return [Drawn([300], None)] * len(draws)


class NoChain(SameToken):
    def chain(self, *arguments: Any, **options: Any) -> Any:
        return None

    def state(self, chain: Any) -> Any:
        return None


def started_engine(num_sequences: int, vocab_size: int, sampler: Sampler, tokenizer: Tokenizer) -> Engine:
    """An engine in which so many sequences decode."""
    engine = Engine(
        ScriptedModel(Spec(vocab_size)),
        ScriptedBackend(num_sequences, vocab_size),
        tokenizer,
        sampler,
        ctx_size=CTX_SIZE,
        kv_tokens=num_sequences * CTX_SIZE,
    )
    sampling = SamplingParams(ignore_eos=True, seed=1)
    for number in range(num_sequences):
        prompt = tuple(range(100, 100 + PROMPT_TOKENS + number))
        engine.submit(Request(str(number), prompt, sampling, streamed=False))
    while engine.num_waiting or len(engine.step()) < num_sequences:
        engine.step()
    return engine


def step_microseconds(engine: Engine, num_steps: int) -> float:
    """The median over some steps."""
    times_ns = []
    for _ in range(num_steps):
        begin = time.perf_counter_ns()
        engine.step()
        times_ns.append(time.perf_counter_ns() - begin)
    return statistics.median(times_ns) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(
        description="microseconds of a step beside the model", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sequences", default="1,16,64", help="numbers of sequences")
    parser.add_argument("-n", "--steps", type=int, default=100, help="steps of a round")
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--vocab-size", type=int, default=151936, help="logits of a row; the 0.5B shape's by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    arguments = parser.parse_args()
    if arguments.steps * arguments.rounds > CTX_SIZE // 2:
        parser.error(f"--steps times --rounds must be at most {CTX_SIZE // 2}, or the contexts are full")
    with GGUFReader(resolve_model("tiny")) as reader:
        tokenizer = Tokenizer.from_gguf(reader)
    samplers: Mapping[str, Sampler] = {ENGINE: NoChain(), WITH_SAMPLER: NativeSampler()}
    cases: list[tuple[int, dict[str, list[float]]]] = []
    for num_sequences in map(int, arguments.sequences.split(",")):
        engines = {
            name: started_engine(num_sequences, arguments.vocab_size, sampler, tokenizer)
            for name, sampler in samplers.items()
        }
        rounds: dict[str, list[float]] = {name: [] for name in engines}
        for _, name in itertools.product(range(arguments.rounds), engines):
            rounds[name].append(step_microseconds(engines[name], arguments.steps))
        cases.append((num_sequences, rounds))
    rows = []
    for num_sequences, rounds in cases:
        medians = {name: statistics.median(values) for name, values in rounds.items()}
        rows.append(
            [
                str(num_sequences),
                f"{medians[ENGINE]:.0f}",
                f"{medians[WITH_SAMPLER] - medians[ENGINE]:.0f}",
                f"{medians[WITH_SAMPLER]:.0f}",
            ]
        )
    print(table(["sequences", "engine, us", "sampler, us", "together, us"], rows))
    if arguments.json:
        measured = [{"num_sequences": count, "microseconds": rounds} for count, rounds in cases]
        content = {"title": "Engine overhead", "vocab_size": arguments.vocab_size, "cases": measured}
        write_json(arguments.json, {}, content)


if __name__ == "__main__":
    main()
