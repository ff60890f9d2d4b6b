"""The corpus as batches of token ids. Every batch follows from the seed and its number alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quipu.tokenizer import Tokenizer
from tiny.corpus.example import Conversation, Document
from tiny.corpus.mixture import EARLY, FIRST, LATE, stream
from tiny.rendering import END_OF_TEXT, Renderer

CHUNK_CONVERSATIONS = 3000
NUM_FIRST_CHUNKS = 5
NUM_EARLY_CHUNKS = 44


class Sample(NamedTuple):
    ids: list[int]
    weights: list[float]  # per token: 0 where it is given; an answer of n tokens weighs sqrt(n) in all


class Batch(NamedTuple):
    """Samples of similar length, padded at the end.

    Attributes:
        ids: int64 [batch, length].
        weights: float32 [batch, length]: how much each token counts, 0 where it is given or padding.
    """

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]


def to_sample(tokenizer: Tokenizer, renderer: Renderer, item: Conversation | Document) -> Sample:
    ids: list[int] = []
    weights: list[float] = []
    for text, is_learned in renderer.segments(item):
        new = tokenizer.encode(text, add_special=False, parse_special=True)
        ids += new
        # Counted evenly, long answers (stories, programs) would drown the short ones, which are as hard.
        weights += [len(new) ** -0.5 if is_learned else 0.0] * len(new)
    return Sample(ids, weights)


def pad(samples: list[Sample], padding_id: int) -> Batch:
    length = max(len(sample.ids) for sample in samples)
    ids = np.full((len(samples), length), padding_id, np.int64)
    weights = np.zeros((len(samples), length), np.float32)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        weights[row, : len(sample.ids)] = sample.weights
    return Batch(ids, weights)


def chunk_batches(
    tokenizer: Tokenizer, seed: int, chunk: int, *, batch_tokens: int, context_length: int
) -> list[Batch]:
    """The batches of one chunk of the corpus, in random order.

    Samples longer than the context are left out.
    """
    renderer = Renderer()
    rng = random.Random(f"{seed} {chunk}")
    seed_of_chunk = rng.getrandbits(48)
    mixture = FIRST if chunk < NUM_FIRST_CHUNKS else EARLY if chunk < NUM_EARLY_CHUNKS else LATE
    items = itertools.islice(stream(seed_of_chunk, mixture), CHUNK_CONVERSATIONS)
    samples = [to_sample(tokenizer, renderer, item) for item in items]
    samples = sorted((s for s in samples if len(s.ids) <= context_length), key=lambda sample: len(sample.ids))
    padding_id = tokenizer.encode(END_OF_TEXT, add_special=False, parse_special=True)[0]
    batches, rows = [], list[Sample]()
    for sample in samples:
        if rows and (len(rows) + 1) * len(sample.ids) > batch_tokens:
            batches.append(pad(rows, padding_id))
            rows = []
        rows.append(sample)
    batches.append(pad(rows, padding_id))
    rng.shuffle(batches)
    return batches


def batches(tokenizer: Tokenizer, seed: int, start: int, *, batch_tokens: int, context_length: int) -> Iterator[Batch]:
    """All batches from number `start` on, without end."""
    number = 0
    for chunk in itertools.count():
        made = chunk_batches(tokenizer, seed, chunk, batch_tokens=batch_tokens, context_length=context_length)
        yield from made[max(start - number, 0) :]
        number += len(made)
