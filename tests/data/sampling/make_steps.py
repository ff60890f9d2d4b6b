"""Write llama_cpp_steps.npz: what single samplers of llama.cpp make of random rows.

    python make_steps.py ggml-vocab-gpt-2.gguf

Needs llama-cpp-python (0.3.36 was used) and a vocabulary with the token ids of GPT-2. Each case has the ids and logits
it begins with, the tokens before it, and after every sampler was applied once: the ids left, ascending, and their
probabilities. Mirostat and adaptive-p choose a token too, and are applied three times.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

END = 50256
BREAKERS = ["\n", ":", '"', "*", "abc"]


def make(vocab, name, values):
    lib = llama_cpp
    if name == "dry":
        texts = (ctypes.c_char_p * len(BREAKERS))(*[text.encode() for text in BREAKERS])
        last_n, multiplier, base, allowed = values
        arguments = (multiplier, base, int(allowed), int(last_n))
        return lib.llama_sampler_init_dry(vocab, *arguments, texts, len(BREAKERS))
    if name == "infill":
        return lib.llama_sampler_init_infill(vocab)
    if name == "mirostat":
        return lib.llama_sampler_init_mirostat(300, 1, *values, 100)
    if name == "mirostat_v2":
        return lib.llama_sampler_init_mirostat_v2(1, *values)
    if name == "adaptive_p":
        return lib.llama_sampler_init_adaptive_p(*values, 1)
    if name == "xtc":
        return lib.llama_sampler_init_xtc(1.0, values[1], int(values[2]), 1)
    if name == "top_n_sigma":
        return lib.llama_sampler_init_top_n_sigma(values[0])
    if name == "dynamic_temperature":
        lowest, highest, exponent = values
        return lib.llama_sampler_init_temp_ext((lowest + highest) / 2, (highest - lowest) / 2, exponent)
    raise ValueError(name)


def apply(sampler, ids, logits):
    data = (llama_cpp.llama_token_data * len(ids))()
    for place, (token, logit) in enumerate(zip(ids, logits, strict=True)):
        data[place] = llama_cpp.llama_token_data(int(token), float(logit), 0.0)
    array = llama_cpp.llama_token_data_array(data, len(ids), -1, False)
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
    left = [array.data[place] for place in range(array.size)]
    chosen = left[array.selected].id if array.selected >= 0 else -1
    left = sorted((item.id, item.logit) for item in left if item.logit > -np.inf)
    weights = np.exp(np.array([logit for _, logit in left]) - max(logit for _, logit in left))
    return [token for token, _ in left], weights / weights.sum(), chosen


def cases(rng):
    for number in range(8):
        yield "top_n_sigma", [float(rng.uniform(0.3, 2.5))]
        yield "xtc", [1.0, float(rng.uniform(0.01, 0.3)), int(rng.integers(1, 4))]
        lowest = float(rng.uniform(0.0, 1.0))
        yield "dynamic_temperature", [lowest, lowest + float(rng.uniform(0.1, 1.0)), float(rng.uniform(0.3, 3.0))]
        yield "dry", [[200, 64, 30][number % 3], float(rng.uniform(0.5, 3.0)), float(rng.uniform(1.0, 2.0)), number % 4]
        yield "infill", []
        yield "mirostat", [float(rng.uniform(1.0, 6.0)), float(rng.uniform(0.05, 0.3))]
        yield "mirostat_v2", [float(rng.uniform(1.0, 6.0)), float(rng.uniform(0.05, 0.3))]
        yield "adaptive_p", [float(rng.uniform(0.05, 0.9)), float(rng.uniform(0.5, 0.95))]


def main():
    rng = np.random.default_rng(5)
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), parameters)
    vocab = llama_cpp.llama_model_get_vocab(model)
    arrays, described = {}, []
    for number, (name, values) in enumerate(cases(rng)):
        ids = np.arange(300) if name != "infill" else np.append(np.sort(rng.choice(2000, 30, replace=False)), END)
        logits = (rng.standard_normal(len(ids)) * rng.choice([1.0, 2.0, 4.0])).astype(np.float32)
        # Few different tokens, so that much is repeated; some of them are breakers.
        history = rng.choice([64, 65, 66, 67, 68, 198, 25], int(rng.integers(5, 120)), p=[0.19] * 5 + [0.03, 0.02])
        sampler = make(vocab, name, values)
        for token in history:
            llama_cpp.llama_sampler_accept(sampler, int(token))
        rounds = []
        for turn in range(3 if name in ("mirostat", "mirostat_v2", "adaptive_p") else 1):
            left, probabilities, chosen = apply(sampler, ids, logits)
            rounds.append(chosen)
            arrays[f"left/{number}/{turn}"] = np.array(left, dtype=np.int32)
            arrays[f"probabilities/{number}/{turn}"] = probabilities.astype(np.float32)
            if chosen >= 0:
                llama_cpp.llama_sampler_accept(sampler, chosen)
        llama_cpp.llama_sampler_free(sampler)
        arrays[f"ids/{number}"] = ids.astype(np.int32)
        arrays[f"logits/{number}"] = logits
        arrays[f"history/{number}"] = history.astype(np.int32)
        described.append({"name": name, "values": values, "chosen": rounds})
    arrays["cases"] = np.array(json.dumps(described))
    np.savez_compressed(Path(__file__).with_name("llama_cpp_steps.npz"), **arrays)


main()
