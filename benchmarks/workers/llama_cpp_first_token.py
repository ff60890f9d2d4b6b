"""The same as quipu_first_token.py with llama.cpp: start, load, read one prompt, print one line.

python llama_cpp_first_token.py MODEL THREADS ids|text PROMPT
"""

from __future__ import annotations

import sys

from llama_cpp import llama_cpp as low_level

from llama_cpp_worker import LlamaCpp

model, threads, kind, prompt = sys.argv[1:]
engine = LlamaCpp(model=model, threads=int(threads), ctx_size=512, batch_size=512, repack=True)
if kind == "ids":
    tokens = [int(word) for word in prompt.split()]
else:
    text = prompt.encode()
    array = (low_level.llama_token * 512)()
    vocabulary = low_level.llama_model_get_vocab(engine.model)
    count = low_level.llama_tokenize(vocabulary, text, len(text), array, len(array), True, False)
    tokens = list(array[:count])
engine.feed(tokens)
num_rows = low_level.llama_vocab_n_tokens(low_level.llama_model_get_vocab(engine.model))
logits = low_level.llama_get_logits_ith(engine.context, -1)[:num_rows]
print(max(range(num_rows), key=logits.__getitem__), flush=True)
