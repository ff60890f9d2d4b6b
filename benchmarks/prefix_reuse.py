"""Seconds to the first token of a prompt whose beginning was computed before, beside a fresh one.

    python benchmarks/prefix_reuse.py [-m model.gguf] [-p 2000] [--question 16] [--kv-type q8_0] [-t 2] [-r 3]
        [--json FILE]

Each round has a prefix of its own, so that nothing but what the row says is in the cache:

- fresh, cache off: prefix and a question, with the prefix cache off
- fresh: the same with it on, which finds nothing and stores everything
- another question: the same prefix, other tokens after it
- the same again: all tokens are cached, and the last one is computed
- from disk: another question, in an engine that was just opened and has the pages on disk only

The look-up alone is timed too: hashing the prompt and finding its pages.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import common
from measured import ratio, spread
from quipu import LLM, SamplingParams
from quipu.api import KV_TYPES
from quipu.engine.prefix_cache import PrefixChain
from quipu.types import Reuse

QUESTION_TOKENS = 16
FRESH_OFF, FRESH, OTHER, SAME, DISK = "fresh, cache off", "fresh", "another question", "the same again", "from disk"


def first_token(llm: LLM, token_ids: list[int]) -> tuple[float, Reuse]:
    """Seconds until the first token is there, and what was reused."""
    begin_s = time.perf_counter()
    with llm.generate(token_ids, SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True), stream=True) as stream:
        event = next(stream)
    seconds = time.perf_counter() - begin_s
    if event.reuse is None:
        raise SystemExit("the engine did not say what it reused; this is a bug in quipu")
    return seconds, event.reuse


def look_up_s(llm: LLM, token_ids: list[int]) -> float:
    """Seconds to hash a prompt and find its pages."""
    cache = llm._open_engine().engine._cache.cache
    assert cache is not None
    tokens = np.array(token_ids, dtype=np.int32)
    begin_s = time.perf_counter()
    cache.peek(tokens, len(tokens) - 1, PrefixChain(""))
    return time.perf_counter() - begin_s


def measure(model: Path, num_prefix: int, num_question: int, rounds: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """All rows of all rounds, as the report reads them. `options` are those of `LLM`."""
    vocab_size = common.measure_model(model).vocab_size
    results: dict[str, list[float]] = {name: [] for name in (FRESH_OFF, FRESH, OTHER, SAME, DISK)}
    reused: dict[str, int] = {}
    look_ups = []

    def add(name: str, llm: LLM, prompt: list[int]) -> None:
        seconds, reuse = first_token(llm, prompt)
        results[name].append(seconds)
        reused[name] = reuse.cached_tokens

    with tempfile.TemporaryDirectory(prefix="quipu-") as folder, LLM(model, prefix_cache=False, **options) as plain:
        for index in range(rounds):
            prefix = common.random_ids(num_prefix, vocab_size, seed=10 * index)
            questions = [common.random_ids(num_question, vocab_size, seed=10 * index + n) for n in (1, 2, 3)]
            prompts = [prefix + question for question in questions]
            if index == 0:
                first_token(plain, questions[0])  # warm
            add(FRESH_OFF, plain, prompts[0])
            with LLM(model, cache_folder=Path(folder), **options) as llm:
                first_token(llm, questions[2])
                add(FRESH, llm, prompts[0])
                add(OTHER, llm, prompts[1])
                add(SAME, llm, prompts[1])
                look_ups.append(look_up_s(llm, prompts[1]))
            with LLM(model, cache_folder=Path(folder), **options) as llm:
                first_token(llm, questions[2])
                add(DISK, llm, prompts[2])
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {"seconds": results, "reused": reused, "look_up_seconds": look_ups, "prefix": num_prefix}


def main() -> None:
    parser = common.options("seconds to the first token after a prefix that was computed before")
    parser.add_argument("-p", "--prefix", type=int, default=2000, help="tokens of the shared prefix")
    parser.add_argument("--question", type=int, default=QUESTION_TOKENS, help="tokens after it")
    parser.add_argument("--kv-type", default="f16", choices=sorted(KV_TYPES), help="how keys and values are stored")
    parser.set_defaults(shape="qwen2-0.5b", rounds=3)
    arguments = parser.parse_args()
    model = common.find_model(arguments)
    ctx_size = common.round_up(arguments.prefix + arguments.question + 1)
    options = {"ctx_size": ctx_size, "threads": arguments.threads, "kv_type": arguments.kv_type}
    measured = measure(model, arguments.prefix, arguments.question, arguments.rounds, options)
    results = measured["seconds"]
    rows = [
        [name, str(measured["reused"][name]), spread(values, 3), f"{100 * ratio(values, results[FRESH]):.1f} %"]
        for name, values in results.items()
    ]
    common.report(
        arguments,
        f"Prefix of {arguments.prefix} tokens and a question of {arguments.question}, {arguments.threads} threads",
        ["prompt", "tokens reused", "seconds to the first token, median (range)", "of a fresh one"],
        rows,
        model=model,
        engines={},
        notes=[
            f"Target: another question in under 5 % of a fresh prompt. Keys and values are {arguments.kv_type}; "
            f"{arguments.rounds} rounds.",
            f"Hashing and finding {arguments.prefix + arguments.question} tokens takes "
            f"{1e6 * statistics.median(measured['look_up_seconds']):.0f} microseconds.",
        ],
        measured=measured,
    )


if __name__ == "__main__":
    main()
