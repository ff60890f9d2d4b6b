"""Tokens generated per second, ours beside llama.cpp's and beside the machine's memory bandwidth.

    python benchmarks/decode.py [-m model.gguf] [-t 2] [-r 7] [--json FILE]

After a short prompt, one token at a time. The limit is the measured read bandwidth divided by the bytes that a token
needs: every weight once, and the keys and values so far.
"""

from __future__ import annotations

import statistics

import common
from charts import Case
from machine import measure_limits
from measured import OURS, best_of_theirs, ratio, spread


def main() -> None:
    parser = common.options("tokens generated per second")
    parser.add_argument("-p", "--prompt-tokens", type=int, default=32)
    parser.add_argument("-n", "--tokens", type=int, default=64, help="tokens generated per round")
    arguments = parser.parse_args()
    model = common.find_model(arguments)
    size = common.measure_model(model)
    limits = measure_limits(arguments.threads)
    ctx_size = common.round_up(arguments.prompt_tokens + arguments.tokens + 1)

    def measure(worker: common.Worker, index: int) -> float:
        token_ids = common.random_ids(arguments.prompt_tokens, size.vocab_size, seed=index)
        seconds = worker.ask("decode", token_ids=token_ids, num_tokens=arguments.tokens)["seconds"]
        return float(arguments.tokens / sum(seconds))

    workers = common.start_workers(arguments, model, ctx_size=ctx_size)
    results = common.interleave(workers, arguments.rounds, measure)
    for worker in workers.values():
        worker.close()

    mean_cached = arguments.prompt_tokens + arguments.tokens / 2
    bytes_per_token = size.decode_bytes + mean_cached * size.kv_bytes_per_token
    limit = limits.read_bytes_per_s / bytes_per_token
    theirs = best_of_theirs(results, higher_is_better=True)
    rows = []
    for name, values in results.items():
        compared = f"{ratio(values, results[theirs]):.3f}" if theirs else "-"
        speed = statistics.median(values)
        rows.append([name, spread(values), compared, f"{speed * bytes_per_token / 1e9:.1f}", f"{speed / limit:.0%}"])
    rows.append(["limit", f"{limit:.1f}", "", f"{limits.read_bytes_per_s / 1e9:.1f}", "100%"])
    common.report(
        arguments,
        f"Decode: {arguments.tokens} tokens after {arguments.prompt_tokens}, {arguments.threads} threads, f16 KV cache",
        ["engine", "tokens/s, median (range)", f"ratio to {theirs or 'theirs'}", "GB/s", "of bandwidth"],
        rows,
        model=model,
        engines={name: worker.engine for name, worker in workers.items()},
        notes=[f"Each token reads {bytes_per_token / 1e6:.0f} MB. {arguments.rounds} rounds, engines interleaved."],
        measured={
            "tokens_per_second": results,
            "cases": [Case(model.stem, results, limit).to_json()],
            "bytes_per_token": bytes_per_token,
            "read_bytes_per_s": limits.read_bytes_per_s,
            "ratio": ratio(results[OURS], results[theirs]) if theirs else None,
            "bandwidth_fraction": statistics.median(results[OURS]) / limit,
        },
    )


if __name__ == "__main__":
    main()
