"""A made-up byte-level BPE vocabulary of any size that hangs together: every merge makes a token out of two tokens."""

from __future__ import annotations

import random
import string
from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

# How byte-level BPE spells the bytes (GPT-2): printable ones as they are, the other 68 from U+0100 on.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_SPACE = "Ġ"
_MAX_LETTERS = 8


class Vocabulary(NamedTuple):
    """Tokens in the order of their ids, and merges in the order of their rank, each "left right"."""

    tokens: list[str]
    merges: list[str]


def byte_alphabet() -> list[str]:
    """The character that spells each byte, by byte value."""
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in _PRINTABLE else chr(next(others)) for byte in range(256)]


def make_vocabulary(num_tokens: int, num_merges: int, seed: int) -> Vocabulary:
    """A vocabulary in which ordinary text falls into pieces of a few letters.

    Args:
        num_tokens: at least 256, for the bytes; special tokens are not counted.
        num_merges: at least one for every token beyond the bytes. Further ones are other ways to put a token together.
        seed: the same seed gives the same vocabulary.

    Raises:
        ValueError: fewer tokens or merges than that, or more merges than there are ways.
    """
    if num_tokens < 256 or num_merges < num_tokens - 256:
        raise ValueError(f"{num_tokens} tokens with {num_merges} merges do not make a vocabulary")
    alphabet = byte_alphabet()
    words = _make_words(num_tokens - 256, random.Random(seed))
    # Shorter words first: a part always has a lower id than the whole, as in a trained vocabulary.
    tokens = [*alphabet, *sorted(words, key=len)]
    return Vocabulary(tokens, _make_merges(tokens, num_merges, random.Random(seed + 1)))


def _make_words(count: int, generator: random.Random) -> list[str]:
    """Different words of two letters or more, each made of two tokens that are there already; some begin with a space."""
    letters = string.ascii_lowercase
    words = dict.fromkeys(_short_words(letters))
    if len(words) >= count:
        return list(words)[:count]
    plain = [*letters, *(word for word in words if not word.startswith(_SPACE))]
    heads = [*plain, _SPACE, *(word for word in words if word.startswith(_SPACE))]
    while len(words) < count:
        word = generator.choice(heads) + generator.choice(plain)
        if len(word) > _MAX_LETTERS or word in words:
            continue
        words[word] = None
        heads.append(word)
        if not word.startswith(_SPACE):
            plain.append(word)
    return list(words)


def _short_words(letters: str) -> Iterable[str]:
    """All pairs, then all triples, with and without a space in front; every one is two earlier ones."""
    yield from (_SPACE + letter for letter in letters)
    for length in (2, 3):
        for word in map("".join, product(letters, repeat=length)):
            yield word
            if length == 2:
                yield _SPACE + word


def _make_merges(tokens: list[str], count: int, generator: random.Random) -> list[str]:
    """One way to make each word, then other ways, picked at random; in the order of the words' ids."""
    known = set(tokens)
    first: list[tuple[int, str]] = []
    others: list[tuple[int, str]] = []
    for rank, token in enumerate(tokens[256:]):
        ways = [
            (rank, f"{token[:cut]} {token[cut:]}")
            for cut in range(1, len(token))
            if token[:cut] in known and token[cut:] in known
        ]
        first.append(ways[-1])
        others += ways[:-1]
    missing = count - len(first)
    if missing > len(others):
        raise ValueError(f"{count} merges were asked for, but there are only {len(first) + len(others)} ways")
    return [merge for _, merge in sorted([*first, *generator.sample(others, missing)], key=lambda way: way[0])]
