"""Start, load, read one prompt, print one line when its first token is there.

python quipu_first_token.py MODEL THREADS ids|text PROMPT
"""

from __future__ import annotations

import sys

from quipu import LLM, SamplingParams

model, threads, kind, prompt = sys.argv[1:]
llm = LLM(model, threads=int(threads), ctx_size=512)
tokens = [int(word) for word in prompt.split()] if kind == "ids" else prompt
sampling = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
for event in llm.generate(tokens, sampling, stream=True):
    if event.token_ids:
        print(event.token_ids[0], flush=True)
        break
