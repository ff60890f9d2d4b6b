"""How well a model predicts a text: bits per token, from the logits of every position.

python examples/score.py model.gguf "The quick brown fox jumps over the lazy dog."
"""

from __future__ import annotations

import sys

import numpy as np

from quipu import LLM


def main() -> None:
    path, text = sys.argv[1], " ".join(sys.argv[2:]) or "The quick brown fox jumps over the lazy dog."
    llm = LLM(path, ctx_size=512)
    ids = llm.tokenize(text)
    logits = llm.logits(ids).astype(np.float64)  # [tokens, vocabulary]
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    predicted = log_probability[np.arange(len(ids) - 1), ids[1:]]  # row i predicts token i + 1
    print(f"{len(ids)} tokens, {-predicted.mean() / np.log(2):.2f} bits per predicted token")


if __name__ == "__main__":
    main()
