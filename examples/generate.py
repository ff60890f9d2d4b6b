"""Continue a text, showing it as it is made.

python examples/generate.py model.gguf "Once upon a time"
"""

from __future__ import annotations

import sys

from quipu import LLM, SamplingParams


def main() -> None:
    path, prompt = sys.argv[1], " ".join(sys.argv[2:]) or "Once upon a time"
    llm = LLM(path, ctx_size=512)
    print(prompt, end="", flush=True)
    for event in llm.generate(prompt, SamplingParams(max_tokens=48, seed=1), stream=True):
        print(event.text, end="", flush=True)
        if event.finish_reason is not None:
            print(f"\n[{event.finish_reason.value}, {event.usage.completion_tokens} tokens]")


if __name__ == "__main__":
    main()
