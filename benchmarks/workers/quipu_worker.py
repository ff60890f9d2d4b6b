"""quipu behind a pipe: the same requests and replies as llama_cpp_worker.py, through the public API.

    python quipu_worker.py

Unlike its neighbour's, these times include everything around the arithmetic: scheduling, greedy sampling, events.
"""

from __future__ import annotations

import itertools
import time

import quipu
from quipu import LLM, SamplingParams
from serving import serve


class Quipu:
    """One loaded model."""

    def __init__(self, *, model: str, threads: int, ctx_size: int, batch_size: int) -> None:
        self.llm = LLM(model, ctx_size=ctx_size, threads=threads, kv_type="f16")
        self.batch_size = batch_size

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
        sampling = SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True)
        times = []
        for event in self.llm.generate(token_ids, sampling, stream=True):
            times += [time.perf_counter()] * len(event.token_ids)
        if len(times) != num_tokens:
            raise SystemExit(f"asked for {num_tokens} tokens, got {len(times)}")
        return times

    def describe(self) -> str:
        return f"quipu {quipu.__version__}"


if __name__ == "__main__":
    serve(Quipu)
