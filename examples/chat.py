"""A conversation in twenty lines: read a turn, answer it, remember both. An empty line ends it.

python examples/chat.py model.gguf
"""

from __future__ import annotations

import sys

from quipu import LLM, QuipuError, SamplingParams


def main() -> int:
    llm = LLM(sys.argv[1])
    messages: list[dict[str, str]] = []
    for line in sys.stdin:
        if not line.strip():
            break
        messages.append({"role": "user", "content": line.strip()})
        answer = ""
        try:
            for event in llm.chat(messages, SamplingParams(max_tokens=200), stream=True):
                print(event.text, end="", flush=True)
                answer += event.text
        except QuipuError as error:  # one sentence, such as that the conversation outgrew the context
            print(f"error: {error}", file=sys.stderr)
            return 1
        print()
        messages.append({"role": "assistant", "content": answer})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
