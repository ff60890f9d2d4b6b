"""Sentences from templates: `[a|b]` is a choice, which may nest or be empty, and `$name` is a slot."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tiny.corpus.frames import FRAMES
from tiny.corpus.noise import SLOT_END, perturb

Split = Literal["train", "held_out"]
Language = Literal["en", "zh"]

_INNERMOST_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\$([a-z_]+)")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou][a-z])")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
# How often a noun is asked for in a frame, rather than in the words of its topic.
_FRAMED_SHARE = {"train": 0.35, "held_out": 0.2}
# How many of the wordings in training are disturbed, and by how much at most.
_NOISY_SHARE = 0.4
_MOST_NOISE = 0.22


@dataclass(frozen=True, slots=True)
class Templates:
    """The wordings of one question. Those of `held_out` are used for evaluation only, and share none with `train`.

    Attributes:
        nouns: what is asked for, as a noun to be put into the frames that all topics share.
        exact: in training, never disturb a wording.
    """

    train: Sequence[str]
    held_out: Sequence[str]
    nouns: Sequence[str] = ()
    exact: bool = False

    def __post_init__(self) -> None:
        shared = set(self.train) & set(self.held_out)
        if shared or not self.train or not self.held_out:
            raise ValueError(f"both splits need templates of their own; shared: {shared}")

    def of(self, split: Split) -> Sequence[str]:
        return self.train if split == "train" else self.held_out

    def fill(self, rng: random.Random, split: Split, **slots: object) -> str:
        """One of the split's templates, or a noun in a frame of the split, with choices made and slots filled."""
        share = _FRAMED_SHARE[split] if self.nouns else 0.0
        noise = rng.uniform(0, _MOST_NOISE) if split == "train" and rng.random() < _NOISY_SHARE else 0.0
        noise *= not self.exact
        if rng.random() >= share:
            return fill(rng, rng.choice(self.of(split)), noise, **slots)
        noun = rng.choice(self.nouns)
        frames = FRAMES["zh" if _CHINESE.search(noun) else "en"][split]
        return fill(rng, rng.choice(frames).replace("$noun", noun), noise, **slots)


def fill(rng: random.Random, template: str, noise: float = 0.0, /, **slots: object) -> str:
    """The template with its choices made, a share of its words disturbed, and its slots filled."""
    while True:
        # Slots come last, so that brackets in their values are text.
        chosen = _INNERMOST_CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template)
        if chosen == template:
            break
        template = chosen
    if noise:
        template = perturb(rng, template, noise)
    text = _SLOT.sub(lambda match: str(slots[match[1]]), template).replace(SLOT_END, "")
    return text if "letter" in slots else articles(text)  # "how many a are" is about the letter


def articles(text: str) -> str:
    """The text with "an" for "a" before a vowel."""
    return _ARTICLE.sub(r"\1n ", text)


def weighted(rng: random.Random, weights: Mapping[str, float]) -> str:
    """One of the keys, each as often as its weight says."""
    return rng.choices(list(weights), list(weights.values()))[0]
