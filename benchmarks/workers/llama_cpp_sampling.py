"""llama.cpp's sampler chains behind a pipe: one JSON request per line in, one JSON reply per line out.

    python llama_cpp_sampling.py

Needs `llama-cpp-python` and nothing of quipu.

Requests:
    {"op": "load", "file"}                   logits [rows, vocab] in a .npy file -> {"engine"}
    {"op": "sample", "row", "steps": [[name, values...], ...], "rounds"}
                                             -> {"fill": seconds, "apply": seconds}, the medians of the rounds
    {"op": "quit"}
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import sys
import time

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as low_level

_TOKEN = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Chains:
    """Rows of logits, and chains applied to them."""

    def load(self, file: str) -> dict[str, object]:
        self.logits = np.load(file)
        return {"engine": f"llama-cpp-python {llama_cpp.__version__}"}

    def sample(self, row: int, steps: list[list[object]], rounds: int) -> dict[str, object]:
        chain = low_level.llama_sampler_chain_init(low_level.llama_sampler_chain_default_params())
        for name, *values in steps:
            sampler = getattr(low_level, f"llama_sampler_init_{name}")(*values)
            low_level.llama_sampler_chain_add(chain, sampler)
        vocab_size = self.logits.shape[1]
        candidates = np.zeros(vocab_size, dtype=_TOKEN)
        fill, apply = [], []
        for _ in range(rounds):
            begin = time.perf_counter()
            candidates["id"] = np.arange(vocab_size, dtype=np.int32)
            candidates["logit"] = self.logits[row]
            candidates["p"] = 0.0
            filled = time.perf_counter()
            data = candidates.ctypes.data_as(ctypes.POINTER(low_level.llama_token_data))
            array = low_level.llama_token_data_array(data, vocab_size, -1, False)
            begin_apply = time.perf_counter()
            low_level.llama_sampler_apply(chain, ctypes.byref(array))
            apply.append(time.perf_counter() - begin_apply)
            fill.append(filled - begin)
        low_level.llama_sampler_free(chain)
        return {"fill": statistics.median(fill), "apply": statistics.median(apply)}


def main() -> None:
    # Libraries may print to standard output; the replies keep it for themselves.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    chains = Chains()
    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        if op == "quit":
            return
        print(json.dumps(getattr(chains, op)(**request)), file=replies, flush=True)


if __name__ == "__main__":
    main()
