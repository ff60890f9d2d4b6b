"""Tokens generated per second with and without speculation, on text that repeats its prompt and on text that does not.

    python benchmarks/speculation.py [-m model.gguf] [-md draft.gguf] [-n 96] [-t 2] [-r 3] [--json FILE]

One request at a time, greedy; `off` and each source of guesses take turns in every round.

- repeats: the prompt holds a passage and begins it again, and the answer goes on with it, as a model does that is asked
  to quote or to edit. So that it does with any weights, the text is dictated to the sampler.
- differs: the same prompt, and an answer of pieces of it in random order, of one to six tokens: there always is
  something to look up, and it hardly ever goes on like that.

Only the text is dictated: the same steps are computed, guesses are looked up, checked and rejected as ever. A draft
model knows nothing of what is dictated, so its row shows what it costs where it is never right.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

import common
import quipu.api
from measured import ratio, spread
from quipu import LLM, SamplingParams
from quipu.engine.native_sampler import choose_sampler
from quipu.engine.sampler import Draw, Drawn, Sampler
from quipu.types import Usage

REPEATS, DIFFERS = "repeats", "differs"


class Dictating:
    """Chooses, instead of what the model says, a text that is given; takes the time of the real sampler too.

    Drafts are kept as the real one keeps them: while each is the next token of the text.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.text: Sequence[int] = ()

    def chain(self, *arguments: Any, **options: Any) -> Any:
        return self._sampler.chain(*arguments, **options)

    def state(self, chain: Any) -> Any:
        return self._sampler.state(chain)

    def logprobs(self, *arguments: Any) -> Any:
        return self._sampler.logprobs(*arguments)

    def sample_batch(self, logits: NDArray[np.float32], draws: Sequence[Draw]) -> list[Drawn]:
        self._sampler.sample_batch(logits, draws)
        results = []
        for draw in draws:
            token_ids = []
            for number in range(len(draw.drafts) + 1):
                token_ids.append(self.text[draw.position + number])
                if number == len(draw.drafts) or token_ids[-1] != draw.drafts[number]:
                    break
            results.append(Drawn(token_ids))
        return results


def texts(num_tokens: int, vocab_size: int, seed: int) -> Mapping[str, tuple[list[int], list[int]]]:
    """(prompt, answer) of both kinds, equally long."""
    generator = random.Random(seed)
    ids = generator.sample(range(min(1000, vocab_size // 2), vocab_size), 2 * num_tokens)
    passage, other = ids[:num_tokens], ids[num_tokens:]
    prompt = other[: num_tokens // 4] + passage + passage[:8]
    pieces: list[int] = []
    while len(pieces) < num_tokens:
        begin = generator.randrange(num_tokens)
        pieces += passage[begin : begin + generator.randint(1, 6)]
    return {REPEATS: (prompt, passage[8:]), DIFFERS: (prompt, pieces[: num_tokens - 8])}


def generate(llm: LLM, sampler: Dictating, prompt: list[int], answer: list[int]) -> tuple[float, Usage]:
    """Tokens per second after the first one."""
    sampler.text = [*prompt, *answer]
    sampling = SamplingParams(temperature=0.0, max_tokens=len(answer), ignore_eos=True)
    first_s = last_s = 0.0
    usage = None
    with llm.generate(prompt, sampling, stream=True) as stream:
        for event in stream:
            last_s = time.perf_counter()
            first_s = first_s or last_s
            usage = event.usage
    assert usage is not None
    return (len(answer) - 1) / (last_s - first_s), usage


def open_llm(
    model: Path, arguments: argparse.Namespace, ctx_size: int, source: str, draft: Path | None
) -> tuple[LLM, Dictating]:
    sampler = Dictating(choose_sampler())
    with mock.patch.object(quipu.api, "choose_sampler", return_value=sampler):
        llm = LLM(
            model,
            ctx_size=ctx_size,
            threads=arguments.threads,
            prefix_cache=False,
            speculate=source,
            draft_model=draft if source == "draft" else None,
        )
    return llm, sampler


def main() -> None:
    parser = common.options("tokens generated per second with and without speculation")
    parser.add_argument("-md", "--model-draft", type=Path, help="a draft model")
    parser.add_argument("-n", "--tokens", type=int, default=96, help="tokens of the passage")
    parser.set_defaults(rounds=3)
    arguments = parser.parse_args()
    model = common.find_model(arguments)
    vocab_size = common.measure_model(model).vocab_size
    ctx_size = common.round_up(4 * arguments.tokens)
    sources = ["off", "ngram", *(["draft"] if arguments.model_draft else [])]
    llms = {source: open_llm(model, arguments, ctx_size, source, arguments.model_draft) for source in sources}
    rates: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in sources} for kind in (REPEATS, DIFFERS)}
    usages: dict[str, dict[str, list[tuple[int, int]]]] = {kind: {name: [] for name in sources} for kind in rates}
    for llm, sampler in llms.values():
        generate(llm, sampler, *texts(16, vocab_size, seed=0)[REPEATS])  # warm
    for index in range(arguments.rounds):
        for kind, (prompt, answer) in texts(arguments.tokens, vocab_size, seed=1 + index).items():
            for source in sources[index % 2 :] + sources[: index % 2]:
                time.sleep(common.SETTLE_S)
                rate, usage = generate(*llms[source], prompt, answer)
                rates[kind][source].append(rate)
                usages[kind][source].append((usage.drafted_tokens, usage.accepted_tokens))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rows = [
        [
            kind,
            source,
            spread(values, 1),
            f"{ratio(values, rates[kind]['off']):.2f}x",
            f"{statistics.mean(n for n, _ in usages[kind][source]):.0f}",
            f"{statistics.mean(n for _, n in usages[kind][source]):.0f}",
        ]
        for kind in rates
        for source, values in rates[kind].items()
    ]
    for llm, _ in llms.values():
        llm.close()
    common.report(
        arguments,
        f"Speculation: passages of {arguments.tokens} tokens, one request, {arguments.threads} threads",
        ["text", "guesses", "tokens/s, median (range)", "of off", "guessed", "right"],
        rows,
        model=model,
        engines={},
        notes=[
            "Targets: ngram at least 1.8x where the text repeats, never below 0.97x where it does not.",
            f"{arguments.rounds} rounds, sources interleaved. The text is dictated; all computation is done.",
        ],
        measured={"tokens_per_second": rates, "guessed_and_right": usages, "passage": arguments.tokens},
    )


if __name__ == "__main__":
    main()
