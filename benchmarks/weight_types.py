"""Every quantized weight type: prompt tokens read and tokens generated per second, ours beside llama.cpp's.

    python benchmarks/weight_types.py [--types IQ2_XXS,IQ3_S] [--shape llama-1b-short] [-p 512] [-n 32] [-r 5] [--json FILE]

One synthetic model per type, all of whose matrices have that type. Rounds alternate between the engines; a ratio is to
llama.cpp's better layout. Bandwidth is that of the weights a generated token reads, over the measured limit.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import common
from machine import measure_limits

TYPES = (
    "Q4_1 Q5_1 Q2_K Q3_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0 "
    "F16 BF16 F32"
)


def main() -> None:
    parser = common.options("speed of each weight type")
    parser.add_argument("--types", default=TYPES.replace(" ", ","), help="separated by commas")
    parser.add_argument("-p", "--prompt-tokens", type=int, default=512)
    parser.add_argument("-n", "--tokens", type=int, default=32, help="tokens generated per round")
    parser.set_defaults(shape="llama-1b-short", rounds=5)
    arguments = parser.parse_args()
    limits = measure_limits(arguments.threads)
    header = ["type", "prefill t/s", "llama.cpp", "ratio", "decode t/s", "llama.cpp", "ratio", "GB/s", "of bandwidth"]
    rows, measured, engines = [], {}, {}
    for type_name in arguments.types.split(","):
        arguments.type = type_name
        model = common.find_model(arguments)
        size = common.measure_model(model)
        workers = common.start_workers(arguments, model, ctx_size=(arguments.prompt_tokens + 256) // 256 * 256)
        engines = {name: worker.engine for name, worker in workers.items()}

        def prefill(worker: common.Worker, index: int, vocab_size: int = size.vocab_size) -> float:
            token_ids = common.random_ids(arguments.prompt_tokens, vocab_size, seed=index)
            return float(len(token_ids) / worker.ask("prefill", token_ids=token_ids)["seconds"])

        def decode(worker: common.Worker, index: int, vocab_size: int = size.vocab_size) -> float:
            token_ids = common.random_ids(16, vocab_size, seed=index)
            seconds = worker.ask("decode", token_ids=token_ids, num_tokens=arguments.tokens)["seconds"]
            return float(arguments.tokens / sum(seconds))

        row = [type_name]
        for measure in (prefill, decode):
            results = common.interleave(workers, arguments.rounds, measure)
            theirs = common.best_of_theirs(results, higher_is_better=True)
            row.append(f"{statistics.median(results[common.OURS]):.1f}")
            row.append(f"{statistics.median(results[theirs]):.1f}" if theirs else "-")
            row.append(f"{common.ratio(results[common.OURS], results[theirs]):.2f}" if theirs else "-")
            measured.setdefault(type_name, {})[measure.__name__] = results
        rate = statistics.median(results[common.OURS]) * size.decode_bytes
        rows.append([*row, f"{rate / 1e9:.1f}", f"{rate / limits.read_bytes_per_s:.0%}"])
        print(" ".join(rows[-1]), flush=True)
        for worker in workers.values():
            worker.close()
    print(common.table(header, rows))
    for name, engine in engines.items():
        print(f"{name}: {engine}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"read_bytes_per_s": limits.read_bytes_per_s, "types": measured}))


if __name__ == "__main__":
    main()
