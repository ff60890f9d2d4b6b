"""quipu behind a pipe: the same requests and replies as llama_cpp_worker.py, through the public API.

    python quipu_worker.py

Unlike its neighbour's, these times include everything around the arithmetic: scheduling, greedy sampling, events. Only
`decode_at`, whose context is filled and not computed, runs the model's program by itself.
"""

from __future__ import annotations

import functools
import itertools
import time

import quipu
from answering import serve
from filled_cache import FilledCache
from quipu import LLM, SamplingParams
from quipu.bench.kernels import describe_kernels

_PAGE_TOKENS = 64  # the cache keeps a page free for each sequence to grow into


class Quipu:
    """One loaded model."""

    def __init__(
        self,
        *,
        model: str,
        threads: int,
        ctx_size: int,
        batch_size: int,
        kv_type: str = "f16",
        num_sequences: int = 1,
        prefix_cache: bool = False,
    ) -> None:
        kv_size = None if num_sequences == 1 else num_sequences * (ctx_size + _PAGE_TOKENS)
        self.llm = LLM(
            model,
            ctx_size=ctx_size,
            threads=threads,
            kv_type=kv_type,
            kv_size=kv_size,
            ubatch_size=batch_size,
            prefix_cache=prefix_cache,
        )
        self.open_filled_cache = functools.partial(
            FilledCache, model=model, threads=threads, ctx_size=ctx_size, kv_type=kv_type
        )
        self.filled_cache: FilledCache | None = None

    def prefill(self, token_ids: list[int]) -> float:
        """Seconds until the first token after a prompt."""
        begin = time.perf_counter()
        seconds = self.token_times(token_ids, 1)
        return seconds[0] - begin

    def decode(self, token_ids: list[int], num_tokens: int) -> list[float]:
        """Seconds of each of `num_tokens` tokens after the first."""
        times = self.token_times(token_ids, num_tokens + 1)
        return [after - before for before, after in itertools.pairwise(times)]

    def token_times(self, token_ids: list[int], num_tokens: int) -> list[float]:
        """When each token arrived."""
        times = []
        for event in self.llm.generate(token_ids, _greedy(num_tokens), stream=True):
            times += [time.perf_counter()] * len(event.token_ids)
        if len(times) != num_tokens:
            raise SystemExit(f"asked for {num_tokens} tokens, got {len(times)}")
        return times

    def batch_decode(self, prompts: list[list[int]], num_tokens: int) -> list[float]:
        """Seconds of each of `num_tokens` steps of one token per sequence, after the first of each."""
        arrivals = []
        for event in self.llm.generate(prompts, _greedy(num_tokens + 1), stream=True):
            arrivals += [(event.request_id, time.perf_counter())] * len(event.token_ids)
        steps = [arrivals[begin : begin + len(prompts)] for begin in range(0, len(arrivals), len(prompts))]
        if len(steps) != num_tokens + 1 or any(len({name for name, _ in step}) != len(prompts) for step in steps):
            raise SystemExit(f"{len(prompts)} prompts were not computed in common steps; take shorter ones")
        ends = [step[-1][1] for step in steps]
        return [after - before for before, after in itertools.pairwise(ends)]

    def answer(self, prompts: list[list[int]], num_tokens: int) -> float:
        """Seconds in which so many tokens are generated after each prompt, the prompts included."""
        begin = time.perf_counter()
        done = self.llm.generate(prompts, _greedy(num_tokens))
        seconds = time.perf_counter() - begin
        if any(len(completion.token_ids) != num_tokens for completion in done):
            raise SystemExit(f"not every prompt was answered with {num_tokens} tokens")
        return seconds

    def decode_at(self, context: int, num_tokens: int) -> list[float]:
        """Seconds of each of `num_tokens` steps of one token, after a context that is filled once and then kept."""
        if self.filled_cache is None:
            self.filled_cache = self.open_filled_cache()
        return self.filled_cache.decode(context, num_tokens)

    def logits(self, token_ids: list[int]) -> list[list[float]]:
        """Those of every token, from one pass over an empty cache."""
        rows: list[list[float]] = self.llm.logits(token_ids).tolist()
        return rows

    def describe(self) -> str:
        return f"quipu {quipu.__version__} ({describe_kernels().instruction_set})"


def _greedy(num_tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True)


if __name__ == "__main__":
    serve(Quipu)
