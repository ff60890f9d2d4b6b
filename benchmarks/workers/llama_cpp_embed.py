"""Embeddings by llama.cpp: texts as JSON on standard input; tokens, vectors and seconds as JSON on standard output.

python llama_cpp_embed.py MODEL THREADS
"""

from __future__ import annotations

import json
import sys
import time

from llama_cpp import Llama

model, threads = sys.argv[1:]
texts = json.load(sys.stdin)
engine = Llama(model, embedding=True, verbose=False, n_ctx=512, n_batch=512, n_ubatch=512, n_threads=int(threads))
engine.create_embedding(texts[0])
started_s = time.perf_counter()
vectors = [engine.create_embedding(text)["data"][0]["embedding"] for text in texts]
seconds = time.perf_counter() - started_s
tokens = [engine.tokenize(text.encode(), add_bos=True, special=False) for text in texts]
print(json.dumps({"tokens": tokens, "vectors": vectors, "seconds": seconds}))
