"""Speed of prompt processing and of generation, through the same `LLM` that everybody uses."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quipu.api import LLM, Completion
from quipu.errors import EngineError
from quipu.types import SamplingParams, Timings


@dataclass(frozen=True, slots=True)
class Measurement:
    """One test, repeated.

    Attributes:
        test: "pp512" processes 512 prompt tokens, "tg128" generates 128 tokens.
        num_tokens: tokens per repetition.
        tokens_per_second: the median over the repetitions.
        samples: tokens per second of each repetition.
        read_bytes_per_second: for generation, bytes of weights and KV cache read per second; None for prompts, which
            use every byte for many tokens.
        bandwidth_fraction: that, as a share of the measured read bandwidth; None where either is not known.
    """

    test: str
    num_tokens: int
    tokens_per_second: float
    samples: tuple[float, ...]
    read_bytes_per_second: float | None = None
    bandwidth_fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Reads:
    """What generation reads, and how fast it could.

    Attributes:
        weight_bytes: bytes of weights per token.
        cache_bytes_per_position: bytes of KV cache per token and position of the context.
        bandwidth_bytes_per_second: the measured limit; None where it was not measured.
    """

    weight_bytes: int
    cache_bytes_per_position: int
    bandwidth_bytes_per_second: float | None


def measure_prompt(llm: LLM, num_tokens: int, repeats: int, advance: Callable[[], None]) -> Measurement:
    """Time the processing of `num_tokens` random tokens.

    Args:
        repeats: timed repetitions; one more goes before them to warm up.
        advance: called after every repetition.
    """
    samples = []
    for repetition in range(repeats + 1):
        # New tokens each time, so that no cache of earlier prompts can answer.
        completion = _complete(llm, _random_tokens(llm, num_tokens, seed=repetition), max_tokens=1)
        samples.append(num_tokens / _timings(completion).prompt_s)
        advance()
    return _summary(f"pp{num_tokens}", num_tokens, samples[1:])


def measure_generation(
    llm: LLM, num_tokens: int, repeats: int, reads: Reads, advance: Callable[[], None]
) -> Measurement:
    """Time the generation of `num_tokens` tokens after an all but empty context.

    Args:
        repeats: timed repetitions; one more goes before them to warm up.
        reads: what a token reads.
        advance: called after every repetition.
    """
    samples = []
    for repetition in range(repeats + 1):
        # The first token comes from the prompt's step; `generation_s` is the time of those that follow it.
        completion = _complete(llm, _random_tokens(llm, 1, seed=repetition), max_tokens=num_tokens + 1)
        samples.append((len(completion.token_ids) - 1) / _timings(completion).generation_s)
        advance()
    result = _summary(f"tg{num_tokens}", num_tokens, samples[1:])
    bytes_per_token = reads.weight_bytes + reads.cache_bytes_per_position * (1 + num_tokens / 2)
    read = bytes_per_token * result.tokens_per_second
    limit = reads.bandwidth_bytes_per_second
    return Measurement(
        result.test, num_tokens, result.tokens_per_second, result.samples, read, read / limit if limit else None
    )


def _complete(llm: LLM, token_ids: Sequence[int], max_tokens: int) -> Completion:
    return llm.generate(token_ids, SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True))


def _timings(completion: Completion) -> Timings:
    if completion.timings is None:
        raise EngineError("the engine reported no timings; this is a bug in quipu")
    return completion.timings


def _random_tokens(llm: LLM, num_tokens: int, seed: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(llm.vocab_size) for _ in range(num_tokens)]


def _summary(test: str, num_tokens: int, samples: list[float]) -> Measurement:
    return Measurement(test, num_tokens, statistics.median(samples), tuple(samples))
