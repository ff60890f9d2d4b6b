"""What a model gives where it embeds text: how token vectors become one, and how long that is."""

from __future__ import annotations

from dataclasses import dataclass

from quipu.errors import UnsupportedModelError
from quipu.gguf import ModelKeys
from quipu.types import Pooling

# Values of `{architecture}.pooling_type`, as llama.cpp numbers them.
POOLING_TYPES: tuple[Pooling, ...] = (Pooling.NONE, Pooling.MEAN, Pooling.CLS, Pooling.LAST, Pooling.RANK)


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """How a model embeds text.

    Attributes:
        pooling: what a request that asks for nothing else gets.
        length: values of an embedding.
        is_encoder: every token sees the whole text, so that a text is computed in one step; there are no logits.
        num_scores: results of the classification head for a pair of texts; 0: there is no head.
        num_token_types: segments that its input can tell apart; 1: none.
    """

    pooling: Pooling
    length: int
    is_encoder: bool = False
    num_scores: int = 0
    num_token_types: int = 1


def read_pooling(keys: ModelKeys, default: Pooling) -> Pooling:
    """The pooling that the file names, or `default`.

    Raises:
        ModelFileError: the value is not a number.
        UnsupportedModelError: a pooling that is not known here.
    """
    number = keys.integer("pooling_type", None, minimum=-1)
    if number is None or number == -1:  # -1: not chosen
        return default
    if number >= len(POOLING_TYPES):
        known = ", ".join(f"{index} ({name})" for index, name in enumerate(POOLING_TYPES))
        raise UnsupportedModelError(
            f"{keys.path}: {keys.key('pooling_type')} = {number} is not known, only {known}; use another model"
        )
    return POOLING_TYPES[number]
