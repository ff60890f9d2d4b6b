"""The parts of a `tokenizers.Tokenizer`, as the builders of the single kinds of vocabulary return them."""

from __future__ import annotations

from typing import NamedTuple

from tokenizers import Regex
from tokenizers.models import Model
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer, Split


class Pipeline(NamedTuple):
    """What turns text without special tokens into ids."""

    model: Model
    normalizer: Normalizer | None = None
    pre_tokenizer: PreTokenizer | None = None


def split(expression: str, behavior: str = "isolated") -> PreTokenizer:
    """A cut at every match of an Oniguruma expression."""
    return Split(Regex(expression), behavior)
