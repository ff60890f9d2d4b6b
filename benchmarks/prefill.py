"""Prompt tokens read per second, ours beside llama.cpp's and beside the machine's integer arithmetic.

    python benchmarks/prefill.py [-m model.gguf] [-p 512] [-t 2] [-r 7] [--json FILE]

Each round is one prompt into an empty cache, up to the logits of its last token. The limit is the measured rate of
8-bit multiply-adds divided by those that a prompt needs.
"""

from __future__ import annotations

import statistics

import common
from charts import Case
from machine import measure_limits
from measured import OURS, best_of_theirs, ratio, spread


def main() -> None:
    parser = common.options("prompt tokens read per second")
    parser.add_argument("-p", "--prompt-tokens", type=int, default=512)
    arguments = parser.parse_args()
    model = common.find_model(arguments)
    size = common.measure_model(model)
    limits = measure_limits(arguments.threads)
    num_tokens = arguments.prompt_tokens

    def measure(worker: common.Worker, index: int) -> float:
        token_ids = common.random_ids(num_tokens, size.vocab_size, seed=index)
        return float(num_tokens / worker.ask("prefill", token_ids=token_ids)["seconds"])

    workers = common.start_workers(arguments, model, ctx_size=common.round_up(num_tokens + 1))
    results = common.interleave(workers, arguments.rounds, measure)
    for worker in workers.values():
        worker.close()

    multiply_adds = common.prompt_multiply_adds(size, num_tokens)
    limit = common.prefill_limit(size, limits, num_tokens)
    theirs = best_of_theirs(results, higher_is_better=True)
    rows = []
    for name, values in results.items():
        compared = f"{ratio(values, results[theirs]):.3f}" if theirs else "-"
        rate = statistics.median(values) * multiply_adds
        share = f"{rate / limits.multiply_adds_per_s:.0%}" if limits.multiply_adds_per_s else "-"
        rows.append([name, spread(values), compared, f"{rate / 1e9:.0f}", share])
    if limit is not None:
        rows.append(["limit", f"{limit:.1f}", "", f"{limits.multiply_adds_per_s / 1e9:.0f}", "100%"])
    common.report(
        arguments,
        f"Prefill: a prompt of {num_tokens} tokens, {arguments.threads} threads, f16 KV cache",
        ["engine", "tokens/s, median (range)", f"ratio to {theirs or 'theirs'}", "G multiply-adds/s", "of 8-bit peak"],
        rows,
        model=model,
        engines={name: worker.engine for name, worker in workers.items()},
        notes=[
            f"Each token takes {multiply_adds / 1e9:.2f} G multiply-adds. "
            f"{arguments.rounds} rounds, engines interleaved."
        ],
        measured={
            "tokens_per_second": results,
            "cases": [Case(model.stem, results, limit).to_json()],
            "multiply_adds_per_token": multiply_adds,
            "multiply_adds_per_s": limits.multiply_adds_per_s,
            "ratio": ratio(results[OURS], results[theirs]) if theirs else None,
        },
    )


if __name__ == "__main__":
    main()
