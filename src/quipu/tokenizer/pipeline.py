"""The parts of a `tokenizers.Tokenizer`, as the builders of the single kinds of vocabulary return them."""

from __future__ import annotations

from collections.abc import Container, Iterable
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


def lost_bytes_warning(ids: Container[str], byte_spellings: Iterable[str]) -> tuple[str, ...]:
    """A warning if some bytes have no token, so that characters with them vanish."""
    num_missing = sum(spelling not in ids for spelling in byte_spellings)
    if not num_missing:
        return ()
    return (
        f"{num_missing} of the 256 bytes have no token (tokenizer.ggml.tokens), so some characters are lost when text "
        "is tokenized; get a newer conversion of the model",
    )


def split(expression: str, behavior: str = "isolated") -> PreTokenizer:
    """A cut at every match of an Oniguruma expression."""
    return Split(Regex(expression), behavior)
