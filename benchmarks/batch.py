"""Tokens generated per second, all sequences together, by how many generate at a time; ours beside llama.cpp's.

    python benchmarks/batch.py [-m model.gguf] [--sizes 1,2,4,8,16,32] [-n 12] [-t 2] [-r 3] [--json FILE]

Every step computes one token of each sequence: ours through `LLM.generate` with a list of prompts, llama.cpp's through
one `llama_decode` with a batch of as many sequences, each with a cache of its own. The prompts are read before the
clock starts. The limit is whichever takes longer: reading the weights once per step and every sequence's keys and
values, or the multiply-adds of all tokens.
"""

from __future__ import annotations

import common
from charts import case_table, text_bars
from machine import measure_limits

_STEP_TOKENS = 512  # what both engines take in one step; all prompts have to fit


def main() -> None:
    parser = common.options("tokens generated per second by many sequences at once")
    parser.add_argument("--sizes", default="1,2,4,8,16,32", help="numbers of sequences, separated by commas")
    parser.add_argument("-p", "--prompt-tokens", type=int, default=8, help="tokens of each prompt")
    parser.add_argument("-n", "--tokens", type=int, default=12, help="steps per round")
    parser.set_defaults(rounds=3)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    if max(sizes) * arguments.prompt_tokens > _STEP_TOKENS:
        raise SystemExit(f"{max(sizes)} prompts of {arguments.prompt_tokens} tokens exceed {_STEP_TOKENS}; lower -p")
    model = common.find_model(arguments)
    model_size = common.measure_model(model)
    vocab_size = model_size.vocab_size
    limits = measure_limits(arguments.threads)
    ctx_size = common.round_up(arguments.prompt_tokens + arguments.tokens + 1)
    workers = common.start_workers(arguments, model, ctx_size=ctx_size, num_sequences=max(sizes))
    mean_cached = arguments.prompt_tokens + arguments.tokens / 2

    def measure(worker: common.Worker, index: int, *, size: int) -> float:
        prompts = common.random_prompts(size, arguments.prompt_tokens, vocab_size, index)
        seconds = worker.ask("batch_decode", prompts=prompts, num_tokens=arguments.tokens)["seconds"]
        return float(size * arguments.tokens / sum(seconds))

    def limit(num_sequences: int) -> float:
        return common.decode_limit(model_size, limits, num_sequences, mean_cached)

    cases = common.measure_cases(workers, arguments.rounds, sizes, measure, limit)
    print(f"\n{text_bars(cases)}")
    common.report(
        arguments,
        f"Batch: {arguments.tokens} steps of one token per sequence, {arguments.threads} threads, f16 KV cache",
        *case_table("sequences", cases),
        model=model,
        engines={name: worker.engine for name, worker in workers.items()},
        notes=[
            f"Prompts of {arguments.prompt_tokens} tokens. {arguments.rounds} rounds, engines interleaved; llama.cpp "
            "with the faster of its two layouts."
        ],
        measured={"cases": [case.to_json() for case in cases]},
    )


if __name__ == "__main__":
    main()
