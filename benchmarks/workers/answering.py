"""Answering requests over a pipe, the same for every engine. Needs nothing but the standard library."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

# What is answered with seconds, by the engine's method of the same name.
TIMED = ("prefill", "decode", "batch_decode", "decode_at", "answer")


class MeasuredEngine(Protocol):
    """A loaded model whose speed is asked for."""

    def prefill(self, token_ids: list[int]) -> float: ...

    def decode(self, token_ids: list[int], num_tokens: int) -> list[float]: ...

    def batch_decode(self, prompts: list[list[int]], num_tokens: int) -> list[float]: ...

    def decode_at(self, context: int, num_tokens: int) -> list[float]: ...

    def answer(self, prompts: list[list[int]], num_tokens: int) -> float: ...

    def logits(self, token_ids: list[int]) -> list[list[float]]: ...

    def describe(self) -> str: ...


def serve(load: Callable[..., MeasuredEngine]) -> None:
    """Answer requests until `quit` or the end of the input. `load` takes the fields of the `load` request."""
    # Libraries may print to standard output; the replies keep it for themselves.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine: MeasuredEngine | None = None
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        op = request.pop("op")
        if op == "quit":
            break
        if op == "load":
            begin = time.perf_counter()
            engine = load(**request)
            reply: dict[str, Any] = {"seconds": time.perf_counter() - begin, "engine": engine.describe()}
        elif engine is None:
            raise SystemExit("load comes first")
        elif op in TIMED:
            reply = {"seconds": getattr(engine, op)(**request)}
        elif op == "logits":
            reply = {"logits": engine.logits(**request)}
        else:
            raise SystemExit(f"unknown op {op!r}")
        print(json.dumps(reply), file=replies, flush=True)
