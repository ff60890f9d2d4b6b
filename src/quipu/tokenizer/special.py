"""Which tokens are special: types, well-known texts, and the ids that end a generation.

GGUF files name a few special ids by key; the rest is known only by the tokens' texts. The texts and the exceptions
below are facts of published models, collected in llama.cpp, `src/llama-vocab.cpp` (MIT licence).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from quipu.errors import TokenizerError

TokenTypes = npt.NDArray[np.int32]


class TokenType(IntEnum):
    """Values of `tokenizer.ggml.token_type`."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of the tokens that have a role; None where the vocabulary has none."""

    bos: int | None = None
    eos: int | None = None
    eot: int | None = None
    eom: int | None = None
    unknown: int | None = None
    separator: int | None = None
    padding: int | None = None
    mask: int | None = None
    fim_prefix: int | None = None
    fim_suffix: int | None = None
    fim_middle: int | None = None
    fim_pad: int | None = None
    fim_repository: int | None = None
    fim_separator: int | None = None


# The keys that name each role, the preferred one first. "seperator" is how the format spells it.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "bos": ("bos_token_id",),
    "eos": ("eos_token_id",),
    "eot": ("eot_token_id",),
    "eom": ("eom_token_id",),
    "unknown": ("unknown_token_id",),
    "separator": ("seperator_token_id",),
    "padding": ("padding_token_id",),
    "mask": ("mask_token_id",),
    "fim_prefix": ("fim_pre_token_id", "prefix_token_id"),
    "fim_suffix": ("fim_suf_token_id", "suffix_token_id"),
    "fim_middle": ("fim_mid_token_id", "middle_token_id"),
    "fim_pad": ("fim_pad_token_id",),
    "fim_repository": ("fim_rep_token_id",),
    "fim_separator": ("fim_sep_token_id",),
}

# Ids that hold where no key says otherwise (LLaMA's, BERT's and T5's vocabularies).
_DEFAULTS: Mapping[str, SpecialTokens] = {
    "llama": SpecialTokens(bos=1, eos=2, unknown=0),
    "bert": SpecialTokens(bos=101, unknown=100, separator=102, padding=0, mask=103),
    "t5": SpecialTokens(eos=1, unknown=2, padding=0),
}

_ROLE_TEXTS: Mapping[str, tuple[str, ...]] = {
    "eot": (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "<end_of_utterance>",
    ),
    "eom": ("<|eom_id|>",),
    "fim_prefix": (
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<\uff5cfim\u2581begin\uff5c>",
        "<PRE>",
        "\u2581<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ),
    "fim_suffix": (
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<\uff5cfim\u2581hole\uff5c>",
        "<SUF>",
        "\u2581<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ),
    "fim_middle": (
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<\uff5cfim\u2581end\uff5c>",
        "<MID>",
        "\u2581<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_repository": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_separator": ("<|file_sep|>",),
}

_END_TEXTS = frozenset(
    (
        *_ROLE_TEXTS["eot"],
        *_ROLE_TEXTS["eom"],
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "</s>",
        "[EOS]",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "[e~[",
    )
)

# Control tokens that structure a reply and so belong to its text: without them the reply cannot be taken apart.
_SHOWN_TEXTS = frozenset(("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"))

_MATCHED = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)


def declared_special_tokens(metadata: Mapping[str, Any], model: str, vocab_size: int) -> SpecialTokens:
    """The special ids that the keys name, or the defaults of the kind of vocabulary.

    Raises:
        TokenizerError: a key holds something else than the id of a token.
    """
    found: dict[str, int] = {}
    for role, names in _KEYS.items():
        candidates = (*names, "cls_token_id") if role == "bos" and model == "bert" else names
        for name in candidates:
            key = f"tokenizer.ggml.{name}"
            value = metadata.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocab_size:
                raise TokenizerError(
                    f"{key} is {value!r}, which is not the id of one of {vocab_size} tokens; convert the model again"
                )
            found.setdefault(role, value)
    defaults = _DEFAULTS.get(model, SpecialTokens())
    inside = {
        field.name: value
        for field in fields(defaults)
        if (value := getattr(defaults, field.name)) is not None and value < vocab_size
    }
    return SpecialTokens(**(inside | found))


@dataclass(frozen=True, slots=True)
class Classification:
    """What the tokens' texts add to what the keys say.

    Attributes:
        special: ids by role, from the keys and, where they are silent, from well-known texts.
        types: int32 [vocab_size], the token types after corrections.
        end_of_generation_ids: a reply ends at any of these.
        shown_ids: control tokens that are part of the text of a reply all the same.
    """

    special: SpecialTokens
    types: TokenTypes
    end_of_generation_ids: frozenset[int]
    shown_ids: frozenset[int]


def classify(declared: SpecialTokens, types: TokenTypes, texts: Sequence[str], model: str) -> Classification:
    """Finds the special tokens that only their texts reveal, and corrects their types.

    A token that ends turns or structures fill-in-the-middle prompts is a control token, whatever the file says: as a
    normal token, text written by a user could produce it. `</s>` is the exception: in a byte-level vocabulary where it
    is a normal token it is the HTML tag.
    """
    wanted = _END_TEXTS.union(_SHOWN_TEXTS, *_ROLE_TEXTS.values(), ("<|plamo:eos|>",))
    ids = {text: index for index, text in enumerate(texts) if text in wanted}
    types = types.copy()
    special = declared
    for role, candidates in _ROLE_TEXTS.items():
        match = next((ids[text] for text in candidates if text in ids), None)
        if getattr(special, role) is None and match is not None:
            special = replace(special, **{role: match})
            types[match] = TokenType.CONTROL
    ends = {ids[text] for text in _END_TEXTS if text in ids}
    tag = ids.get("</s>")
    if tag is not None and model == "gpt2" and types[tag] == TokenType.NORMAL and tag != special.eos:
        ends.discard(tag)
    types[list(ends)] = TokenType.CONTROL
    roles = (
        special.eos,
        special.eot,
        special.eom,
        special.fim_pad,
        special.fim_repository,
        special.fim_separator,
    )
    ends.update(token_id for token_id in roles if token_id is not None)
    shown = {ids[text] for text in _SHOWN_TEXTS if text in ids}
    _apply_exceptions(ids, ends, shown, types)
    return Classification(special, types, frozenset(ends), frozenset(shown))


def _apply_exceptions(ids: Mapping[str, int], ends: set[int], shown: set[int], types: TokenTypes) -> None:
    """Families in which a text that ends turns elsewhere means something else."""
    has = {text for text, token_id in ids.items() if token_id in ends}
    if "<|end|>" in has and (
        {"<|return|>", "<|call|>"} <= has or ("<|flush|>" in has and has & {"<|call|>", "<|calls|>"})
    ):  # gpt-oss and Solar: it closes one message of several
        ends.discard(ids["<|end|>"])
        shown.add(ids["<|end|>"])
    if "</s>" in has and ("<|tool_response>" in has or "<|plamo:eos|>" in has):  # Gemma 4 and PLaMo: a normal token
        ends.discard(ids["</s>"])
        types[ids["</s>"]] = TokenType.NORMAL


@dataclass(frozen=True, slots=True)
class MatchedToken:
    """A token that is looked for in the text before anything else.

    Attributes:
        left_strip, right_strip: white space on that side disappears with it.
    """

    id: int
    text: str
    hidden: bool
    left_strip: bool = False
    right_strip: bool = False


def matched_tokens(metadata: Mapping[str, Any], types: TokenTypes, texts: Sequence[str]) -> list[MatchedToken]:
    """The tokens that are matched whole: user-defined ones always, `hidden` ones only where special tokens are parsed.

    GGUF does not store which of them swallow white space; the models that need it are recognised by name.
    """
    name = str(metadata.get("general.name", "")).lower()
    pre = str(metadata.get("tokenizer.ggml.pre", ""))
    architecture = str(metadata.get("general.architecture", ""))
    left: Iterable[str] = ()
    strip_right = False
    if pre in ("jina-v2-de", "jina-v2-es", "jina-v2-code") or architecture in ("nomic-bert-moe", "jina-bert-v3"):
        left = ("<mask>",)
    elif "phi-3" in name or "phi3" in name:
        strip_right = True
    elif "modern-bert" in name:
        left = ("[MASK]",)
    matched = []
    for index in np.flatnonzero(np.isin(types, _MATCHED)).tolist():
        text = texts[index]
        matched.append(
            MatchedToken(
                id=index,
                text=text,
                hidden=types[index] != TokenType.USER_DEFINED,
                left_strip=text in left,
                right_strip=strip_right and text not in ("<unk>", "<s>", "<|endoftext|>"),
            )
        )
    return matched
