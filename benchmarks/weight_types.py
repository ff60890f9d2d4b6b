"""Every weight type: prompt tokens read and tokens generated per second, ours beside llama.cpp's and the limits.

    python benchmarks/weight_types.py [--types IQ2_XXS,IQ3_S] [--shape llama-1b-short] [-p 512] [-n 32] [-t 2] [-r 5]
        [--json FILE]

One synthetic model per type, all of whose matrices have that type. Rounds alternate between the engines; a ratio is to
llama.cpp's better layout. The limit of decode is the measured read bandwidth over the bytes of weights and cache, that
of prefill the rate of 8-bit multiply-adds (which float types cannot reach) over those of a token.
"""

from __future__ import annotations

import argparse

import common
from charts import Case, case_table, text_bars
from machine import measure_limits
from measured import table

TYPES = (
    "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS "
    "TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0 F16 BF16 F32"
)
_DECODE_PROMPT_TOKENS = 16


def measure_type(arguments: argparse.Namespace) -> tuple[Case, Case, dict[str, str]]:
    """Decode and prefill of the type in `arguments`, and what the engines call themselves."""
    limits = measure_limits(arguments.threads)  # anew for each type: over a quarter of an hour they drift
    model = common.find_model(arguments)
    size = common.measure_model(model)

    def prefill(worker: common.Worker, index: int) -> float:
        token_ids = common.random_ids(arguments.prompt_tokens, size.vocab_size, seed=index)
        return float(len(token_ids) / worker.ask("prefill", token_ids=token_ids)["seconds"])

    def decode(worker: common.Worker, index: int) -> float:
        token_ids = common.random_ids(_DECODE_PROMPT_TOKENS, size.vocab_size, seed=index)
        seconds = worker.ask("decode", token_ids=token_ids, num_tokens=arguments.tokens)["seconds"]
        return float(arguments.tokens / sum(seconds))

    needed = max(arguments.prompt_tokens, _DECODE_PROMPT_TOKENS + arguments.tokens)
    workers = common.start_workers(arguments, model, ctx_size=common.round_up(needed + 1))
    prefilled = common.interleave(workers, arguments.rounds, prefill)
    decoded = common.interleave(workers, arguments.rounds, decode)
    for worker in workers.values():
        worker.close()
    mean_cached = _DECODE_PROMPT_TOKENS + arguments.tokens / 2
    return (
        Case(arguments.type, decoded, common.decode_limit(size, limits, 1, mean_cached)),
        Case(arguments.type, prefilled, common.prefill_limit(size, limits, arguments.prompt_tokens)),
        {name: worker.engine for name, worker in workers.items()},
    )


def main() -> None:
    parser = common.options("speed of each weight type")
    parser.add_argument("--types", default=TYPES.replace(" ", ","), help="separated by commas")
    parser.add_argument("-p", "--prompt-tokens", type=int, default=512)
    parser.add_argument("-n", "--tokens", type=int, default=32, help="tokens generated per round")
    parser.set_defaults(shape="llama-1b-short", rounds=5)
    arguments = parser.parse_args()
    if arguments.model is not None:
        parser.error("this benchmark makes its own models; choose them with --shape and --types")
    cases: dict[str, list[Case]] = {"decode": [], "prefill": []}
    for type_name in arguments.types.split(","):
        arguments.type = type_name
        decoded, prefilled, engines = measure_type(arguments)
        cases["decode"].append(decoded)
        cases["prefill"].append(prefilled)
        for work, of_work in cases.items():
            print(work, *case_table("type", of_work)[1][-1], flush=True)
        if arguments.json:  # after every type, so that what is measured is not lost
            content = {work: [case.to_json() for case in of_work] for work, of_work in cases.items()}
            common.write_json(arguments.json, engines, {"title": "Weight types", "shape": arguments.shape, **content})
    for work, of_work in cases.items():
        print(f"\n{work}\n{text_bars(of_work)}\n\n{table(*case_table('type', of_work))}")
    for name, engine in engines.items():
        print(f"{name}: {engine}")


if __name__ == "__main__":
    main()
