"""Tokens generated per second by the length of the context, ours beside llama.cpp's and the machine's limit.

    python benchmarks/context.py [-m model.gguf] [--contexts 0,512,4096] [--kv-type q8_0] [-n 16] [-t 2] [-r 3]
        [--json FILE]

The cache is filled once per context and rolled back after each round. Reading a prompt of 32k tokens takes the better
part of an hour on few cores, so it is not read: llama.cpp's cache repeats the keys and values of a short prompt
(through its saved state), ours holds random ones. What attention costs does not depend on what they say. Here both
engines run without sampling: ours the model's program alone, llama.cpp's `llama_decode`.
"""

from __future__ import annotations

import common
from charts import case_table, text_bars
from machine import measure_limits
from quipu.api import KV_TYPES


def main() -> None:
    parser = common.options("tokens generated per second by length of the context")
    parser.add_argument("--contexts", default="0,512,2048,4096,8192,16384,32768", help="tokens, separated by commas")
    parser.add_argument("--kv-type", default="f16", choices=sorted(KV_TYPES), help="how keys and values are stored")
    parser.add_argument("-n", "--tokens", type=int, default=16, help="tokens generated per round")
    parser.set_defaults(shape="qwen2-0.5b", rounds=3)
    arguments = parser.parse_args()
    contexts = [int(context) for context in arguments.contexts.split(",")]
    model = common.find_model(arguments)
    kv_type = KV_TYPES[arguments.kv_type]
    model_size = common.measure_model(model, kv_value_bytes=kv_type.block_bytes / kv_type.block_size)
    limits = measure_limits(arguments.threads)
    ctx_size = common.round_up(max(contexts) + arguments.tokens + 1)
    workers = common.start_workers(arguments, model, ctx_size=ctx_size, kv_type=arguments.kv_type)

    def measure(worker: common.Worker, index: int, *, size: int) -> float:
        seconds = worker.ask("decode_at", context=size, num_tokens=arguments.tokens)["seconds"]
        return float(arguments.tokens / sum(seconds))

    def limit(context: int) -> float:
        return common.decode_limit(model_size, limits, 1, context + arguments.tokens / 2)

    cases = common.measure_cases(workers, arguments.rounds, contexts, measure, limit)
    print(f"\n{text_bars(cases)}")
    common.report(
        arguments,
        f"Context: {arguments.tokens} tokens after a filled cache ({arguments.kv_type}), {arguments.threads} threads",
        *case_table("context", cases),
        model=model,
        engines={name: worker.engine for name, worker in workers.items()},
        notes=[
            f"Each position of the cache takes {model_size.kv_bytes_per_token:.0f} bytes. {arguments.rounds} rounds, "
            "engines interleaved; llama.cpp with the faster of its two layouts."
        ],
        measured={"kv_type": arguments.kv_type, "cases": [case.to_json() for case in cases]},
    )


if __name__ == "__main__":
    main()
