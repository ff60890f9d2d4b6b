"""A model that says a given text, one or a few characters per token, through the real engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scripted_model import ScriptedBackend, ScriptedModel, ScriptedSpec, ScriptedStorage

from quipu.backends.program import Batch, KVStorage
from quipu.engine import Engine, ReferenceSampler
from quipu.types import Event, Request, SamplingParams

END = 0
PROMPT = 1  # the only token of the prompt


class Pieces:
    """A tokenizer for one text, which is cut into pieces of a few characters."""

    def __init__(self, text: str, num_chars: int) -> None:
        self.pieces = ["", "", *(text[i : i + num_chars] for i in range(0, len(text), num_chars))]
        self.vocab_size = len(self.pieces)
        self.end_of_generation_ids = frozenset({END})

    def detokenizer(self, shown: Mapping[int, str] | None = None) -> Pieces:
        return self

    def append(self, token_ids: Sequence[int]) -> str:
        return "".join(self.pieces[token] for token in token_ids)

    def flush(self) -> str:
        return ""


@dataclass
class RecitingBackend(ScriptedBackend):
    """After each token comes the next, and after the last the end."""

    vocab_size: int = 2

    def compile(self, program: object, *, max_tokens: int) -> RecitingBackend:
        self.max_tokens = max_tokens
        return self

    def run(self, batch: Batch, kv: KVStorage) -> NDArray[np.float32]:
        assert isinstance(kv, ScriptedStorage)
        logits = np.zeros((len(batch.output_rows), self.vocab_size), dtype=np.float32)
        for row, place in enumerate(batch.output_rows.tolist()):
            following = int(batch.token_ids[place]) + 1
            logits[row, following if following < self.vocab_size else END] = 10.0
        return logits


def recite(text: str, *, num_chars: int = 1, max_tokens: int | None = None) -> list[Event]:
    """The events of a request that the model answers with `text`."""
    tokenizer = Pieces(text, num_chars)
    model = ScriptedModel(ScriptedSpec(tokenizer.vocab_size, 4096))
    backend = RecitingBackend(vocab_size=tokenizer.vocab_size)
    engine = Engine(model, backend, tokenizer, ReferenceSampler(), ctx_size=4096, page_size=4)  # type: ignore[arg-type]
    engine.submit(Request("1", (PROMPT,), SamplingParams(temperature=0.0, max_tokens=max_tokens)))
    events: list[Event] = []
    while engine.has_work:
        events += engine.step()
    return events
