"""Choosing one token: the time of a sampler chain, beside llama.cpp's on the same logits.

    python benchmarks/sampling.py [--vocab-size 151936] [-r 9] [--no-llama] [--json FILE]

One sequence and one row of logits per call. Logits are normal random numbers times a width: 8 is a sure model, 2.5 an
unsure one, whose nucleus holds tens of thousands of tokens. llama.cpp's time is that of `llama_sampler_apply` alone;
its callers also fill a list of candidates for every token. Rounds alternate; the time of a round is a median of calls.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import quipu
from common import WORKERS, Worker, write_json
from machine import HERE, describe
from measured import ratio, spread, table
from quipu import _native
from quipu.engine.native_sampler import NativeSampler
from quipu.engine.sampler import Draw, request_chain
from quipu.types import SamplingParams

WIDTHS = (8.0, 2.5)
CALLS = 20
_FREE: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}
_SEED = 1
# Name, our parameters, llama.cpp's samplers.
CHAINS: tuple[tuple[str, dict[str, Any], list[list[Any]]], ...] = (
    ("greedy", {"temperature": 0.0}, [["greedy"]]),
    (
        "default",
        {},
        [["top_k", 40], ["top_p", 0.95, 0], ["min_p", 0.05, 0], ["temp_ext", 0.8, 0.0, 1.0], ["dist", _SEED]],
    ),
    (
        "default, no top-k",
        {"top_k": 0},
        [["top_p", 0.95, 0], ["min_p", 0.05, 0], ["temp_ext", 0.8, 0.0, 1.0], ["dist", _SEED]],
    ),
    ("top-p alone", {**_FREE, "top_p": 0.95}, [["top_p", 0.95, 0], ["dist", _SEED]]),
    ("min-p alone", {**_FREE, "min_p": 0.05}, [["min_p", 0.05, 0], ["dist", _SEED]]),
    ("typical alone", {**_FREE, "typical_p": 0.9}, [["typical", 0.9, 0], ["dist", _SEED]]),
    ("top-k 1000", {**_FREE, "top_k": 1000}, [["top_k", 1000], ["dist", _SEED]]),
    ("top-n-sigma", {**_FREE, "top_n_sigma": 1.0}, [["top_n_sigma", 1.0], ["dist", _SEED]]),
    ("xtc alone", {**_FREE, "xtc_probability": 1.0}, [["xtc", 1.0, 0.1, 0, _SEED], ["dist", _SEED]]),
    ("temperature alone", {**_FREE, "temperature": 0.8}, [["temp", 0.8], ["dist", _SEED]]),
    ("mirostat 2", {"mirostat": 2}, [["temp", 0.8], ["mirostat_v2", _SEED, 5.0, 0.1]]),
    ("default, logprobs 20", {"logprobs": 20}, []),
    ("default, mask of half", {}, []),
)


def seconds(sampler: NativeSampler, row: NDArray[np.float32], sampling: SamplingParams, masks: Any) -> float:
    """The median time of a call."""
    chain = request_chain(sampler, sampling, num_prompt=0)
    state, none = sampler.state(chain), np.zeros(0, dtype=np.int32)
    num_logprobs = -1 if sampling.logprobs is None else sampling.logprobs
    times = []
    for position in range(CALLS):
        draws = [Draw(chain, state, none, _SEED, position, none, masks, num_logprobs)]
        begin = time.perf_counter()
        sampler.sample_batch(row, draws)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(arguments: argparse.Namespace, logits: NDArray[np.float32], theirs: Worker | None) -> list[dict[str, Any]]:
    """Times of all chains on all rows, in rounds that alternate between the engines."""
    sampler = NativeSampler()
    half = np.full((1, -(-logits.shape[1] // 32)), 0x55555555, dtype=np.int32)
    results = []
    for number, width in enumerate(WIDTHS):
        for name, parameters, steps in CHAINS:
            sampling = SamplingParams(**parameters)
            result: dict[str, Any] = {"chain": name, "width": width, "quipu": [], "llama.cpp": [], "fill": []}
            for _ in range(arguments.rounds):
                masks = half if "mask" in name else None
                result["quipu"].append(seconds(sampler, logits[number : number + 1], sampling, masks))
                if theirs is not None and steps:
                    reply = theirs.ask("sample", row=number, steps=steps, rounds=CALLS // 4)
                    result["llama.cpp"].append(reply["apply"])
                    result["fill"].append(reply["fill"])
            results.append(result)
    return results


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="sampler chains", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--vocab-size", type=int, default=151_936, help="tokens (the default is Qwen2.5's)")
    parser.add_argument("-r", "--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument(
        "--llama-python",
        default=os.environ.get("QUIPU_LLAMA_PYTHON") or str(HERE.parent / ".venv-llama" / "bin" / "python"),
        help="an interpreter that has llama-cpp-python (also: QUIPU_LLAMA_PYTHON)",
    )
    parser.add_argument("--no-llama", action="store_true", help="measure quipu alone")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((len(WIDTHS), arguments.vocab_size)).astype(np.float32)
    logits *= np.array(WIDTHS, dtype=np.float32)[:, None]
    engines = {"quipu": f"quipu {quipu.__version__} ({_native.sampler_scans()})"}
    theirs = None
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.no_llama:
            theirs = Worker("llama.cpp", [arguments.llama_python, str(WORKERS / "llama_cpp_sampling.py")])
            file = Path(folder) / "logits.npy"
            np.save(file, logits)
            engines["llama.cpp"] = theirs.ask("load", file=str(file))["engine"]
        results = measure(arguments, logits, theirs)
        if theirs is not None:
            theirs.close()
    rows = []
    for result in results:
        ours, other = ([t * 1e3 for t in result[name]] for name in ("quipu", "llama.cpp"))
        compared = [spread(other, 3), f"{ratio(other, ours):.1f}"] if other else ["", ""]
        rows.append([f"{result['width']:g}", result["chain"], spread(ours, 3), *compared])
    header = ["width", "chain", "quipu, ms per token", "llama.cpp, ms", "times faster"]
    print(f"\nOne token of {arguments.vocab_size}\n\n{table(header, rows)}\n")
    print(f"machine: {', '.join(f'{key} {value}' for key, value in describe().items())}")
    if arguments.json:
        content = {"title": "Sampling", "vocab_size": arguments.vocab_size, "results": results}
        write_json(arguments.json, engines, content)


if __name__ == "__main__":
    main()
